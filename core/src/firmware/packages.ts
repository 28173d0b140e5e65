// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { otaPackages } from '../db/tables.ts'
import type { OtaKind } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import type { ChecksumAlgorithm } from './checksums.ts'
import type { OtaPackage, PackageCreate, PackageListQuery } from './schemas.ts'

type PackageRow = Omit<OtaPackage, 'createdAt' | 'updatedAt'> & { createdAt: number; updatedAt: number }

/** What devices need to know of a package; it does not change while anybody has it. */
export type OtaFile = {
  packageId: string
  title: string
  version: string
  tag: string | null
  url: string | null
  checksumAlgorithm: ChecksumAlgorithm
  checksum: string | null
  sizeBytes: number | null
  fileName: string | null
  contentType: string | null
  contentId: string | null
}

/** An {@link OtaFile} of `ota_packages o`. */
export const fileColumns = sql`o.id as "packageId", o.title, o.version, o.tag, o.url, o.checksum_algorithm as "checksumAlgorithm", o.checksum,
  o.size_bytes::float8 as "sizeBytes", o.file_name as "fileName", o.content_type as "contentType", o.content_id as "contentId"`

/** Members of a product's `ota`, by kind. */
const settingOf = { firmware: 'firmwareId', software: 'softwareId' } as const

/** True for a package that is the one of its product. */
const isProductTarget = sql`exists (select 1 from products p where p.tenant_id = o.tenant_id and p.id = o.product_id
  and p.settings->'ota'->>(case o.kind when 'firmware' then ${settingOf.firmware} else ${settingOf.software} end) = o.id::text)`

/** Devices that are told, or about to be told, to install it. Those in the bin do not count: they are sorted out when they come back. */
const devicesOf = sql`ota_devices t join devices d on d.tenant_id = t.tenant_id and d.id = t.device_id and d.deleted_at is null
  where t.tenant_id = o.tenant_id and (t.package_id = o.id or t.own_package_id = o.id)`

const packageColumns = sql`o.id, o.kind, o.title, o.version, o.tag, o.product_id as "productId",
  (select p.name from products p where p.tenant_id = o.tenant_id and p.id = o.product_id) as "productName", o.url,
  o.checksum_algorithm as "checksumAlgorithm", o.checksum, o.size_bytes::float8 as size, o.file_name as "fileName", o.content_type as "contentType",
  ${isProductTarget} as "isProductTarget", (select count(*)::int from ${devicesOf}) as "deviceCount",
  floor(extract(epoch from o.created_at) * 1000)::float8 as "createdAt", floor(extract(epoch from o.updated_at) * 1000)::float8 as "updatedAt"`

/** Packages, newest first. */
export async function listPackages(
  context: Context,
  scope: Scope,
  query: PackageListQuery,
): Promise<{ items: OtaPackage[]; nextCursor: string | null }> {
  const { limit = 50, cursor, productId, kind } = query
  const [, after] = cursor ? parseCursor(cursor, 2) : []
  if (cursor && !isUuid(after)) throw new ProblemError('CURSOR_INVALID')
  const conditions = [
    ...(cursor ? [sql`o.id < ${after}::uuid`] : []),
    ...(productId ? [sql`o.product_id = ${productId}`] : []),
    ...(kind ? [sql`o.kind = ${kind}`] : []),
  ]
  // Ids are UUIDv7, so their order is the order of creation.
  const rows = await context.db.withTenant(scope, (tx) =>
    tx.execute<PackageRow>(sql`select ${packageColumns} from ota_packages o ${where(conditions)} order by o.id desc limit ${limit + 1}`),
  )
  const page = rows.slice(0, limit)
  return { items: page.map(toPackage), nextCursor: rows.length > limit ? formatCursor(['ota', page.at(-1)!.id]) : null }
}

/** @throws {ProblemError} `NOT_FOUND` */
export async function getPackage(context: Context, scope: Scope, id: string): Promise<OtaPackage> {
  const [row] = await context.db.withTenant(scope, (tx) =>
    tx.execute<PackageRow>(sql`select ${packageColumns} from ota_packages o where o.id = ${id}`),
  )
  if (!row) throw new ProblemError('NOT_FOUND')
  return toPackage(row)
}

/** The facts that a download needs. @throws {ProblemError} `NOT_FOUND` */
export async function getFile(context: Context, scope: Scope, id: string): Promise<OtaFile> {
  const [row] = await context.db.withTenant(scope, (tx) =>
    tx.execute<OtaFile>(sql`select ${fileColumns} from ota_packages o where o.id = ${id}`),
  )
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

/** @throws {ProblemError} `OTA_PACKAGE_EXISTS`, `UNPROCESSABLE` for an unknown product */
export async function createPackage(context: Context, scope: Scope, wanted: PackageCreate): Promise<OtaPackage> {
  const id = randomUUIDv7()
  const { title, version, kind, productId, tag, url, checksumAlgorithm = 'SHA256' } = wanted
  await context.db.withTenant(scope, async (tx) => {
    const [product] = await tx.execute(sql`select 1 from products where id = ${productId} for key share`)
    if (!product) throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/productId', detail: 'There is no such product.' }] })
    await tx
      .insert(otaPackages)
      .values({ tenantId: scope.tenantId, id, productId, kind, title, version, tag: tag ?? null, url: url ?? null, checksumAlgorithm })
      .catch((error: unknown) => {
        throw isUniqueViolation(error) ? new ProblemError('OTA_PACKAGE_EXISTS', { cause: error }) : error
      })
    recordAudit(tx, {
      type: 'firmware.create',
      subject: `ota-package:${id}`,
      targetName: `${title} ${version}`,
      changes: { from: null, to: wanted },
    })
  })
  return getPackage(context, scope, id)
}

/** @throws {ProblemError} `NOT_FOUND`, `OTA_PACKAGE_ASSIGNED` */
export async function deletePackage(context: Context, scope: Scope, id: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    await lockUnassigned(tx, id)
    await tx.execute(sql`update ota_devices set own_package_id = null where own_package_id = ${id}`)
    await tx.execute(sql`delete from ota_packages where id = ${id}`)
    recordAudit(tx, { type: 'firmware.delete', subject: `ota-package:${id}` })
  })
}

/**
 * Holds a package until the transaction ends, so that nobody can assign it meanwhile.
 *
 * @throws {ProblemError} `NOT_FOUND`, `OTA_PACKAGE_ASSIGNED`
 */
export async function lockUnassigned(
  tx: Tx,
  id: string,
): Promise<{ url: string | null; uploadId: string | null; contentId: string | null }> {
  await tx.execute(sql`select 1 from ota_packages where id = ${id} for update`)
  // Looked at again by a query of its own, which sees what the lock was waiting for.
  const [row] = await tx.execute<{ url: string | null; uploadId: string | null; contentId: string | null; isAssigned: boolean }>(sql`
    select o.url, o.upload_id as "uploadId", o.content_id as "contentId", ${isProductTarget} or exists (select 1 from ${devicesOf}) as "isAssigned"
    from ota_packages o where o.id = ${id}`)
  if (!row) throw new ProblemError('NOT_FOUND')
  if (row.isAssigned) throw new ProblemError('OTA_PACKAGE_ASSIGNED')
  return row
}

/**
 * Whether a package may be given to the devices of a product; it cannot be deleted until the transaction ends.
 *
 * @param pointer of the member that names the package
 * @throws {ProblemError} `UNPROCESSABLE`
 */
export async function checkAssignable(
  tx: Tx,
  wanted: { packageId: string; productId: string; kind: OtaKind },
  pointer: string,
): Promise<void> {
  const [row] = await tx.execute<{ productId: string; kind: OtaKind; isReady: boolean }>(sql`
    select product_id as "productId", kind, url is not null or content_id is not null as "isReady" from ota_packages
    where id = ${wanted.packageId} for share`)
  const detail = !row
    ? 'There is no such package.'
    : row.kind !== wanted.kind
      ? `The package is ${row.kind}, not ${wanted.kind}.`
      : row.productId !== wanted.productId
        ? 'The package belongs to another product.'
        : row.isReady
          ? undefined
          : 'The package has no content yet.'
  if (detail) throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer, detail }] })
}

function where(conditions: SQL[]): SQL {
  return conditions.length > 0 ? sql`where ${sql.join(conditions, sql` and `)}` : sql``
}

function toPackage({ createdAt, updatedAt, ...row }: PackageRow): OtaPackage {
  return { ...row, createdAt: new Date(createdAt).toISOString(), updatedAt: new Date(updatedAt).toISOString() }
}
