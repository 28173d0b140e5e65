// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { products } from '../db/tables.ts'
import { isUniqueViolation, unwrapDbError } from '../db/errors.ts'
import { certificateLookup, parseCertificate } from '../devices/certificates.ts'
import { ProblemError } from '../errors.ts'
import { checkAssignable } from '../firmware/packages.ts'
import { formatCursor, parseCursor } from '../http/schemas.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import { namePatternProblem, patternProblems } from '../provisioning/name-pattern.ts'
import { randomBase62, sha256 } from '../secrets.ts'
import type { SealPlace } from '../secrets.ts'
import { completeSettings, mergeSettings, withExactReplies } from './settings.ts'
import type { Product, ProductCreate, ProductPatch, StoredSettings } from './schemas.ts'

export type ProductParts = { context: Context; registry: DeviceRegistry }

const defaultInactivityTimeoutMs = 600_000
/** Of a provisioning key or secret that nobody has given. */
const generatedLength = 20

type ProductRow = {
  id: string
  name: string
  description: string
  settings: StoredSettings
  /** `settings.clientRpc` as text: its numbers keep their digits. */
  replies: string | null
  inactivityTimeoutMs: number
  isDefault: boolean
  deviceCount: number
  createdAt: number
  updatedAt: number
  version: number
}

const productColumns = sql`p.id, p.name, p.description, p.settings, p.settings->>'clientRpc' as replies, p.inactivity_timeout_ms::float8 as "inactivityTimeoutMs", p.is_default as "isDefault",
  (select count(*)::float8 from devices d where d.tenant_id = p.tenant_id and d.product_id = p.id and d.deleted_at is null) as "deviceCount",
  floor(extract(epoch from p.created_at) * 1000)::float8 as "createdAt", floor(extract(epoch from p.updated_at) * 1000)::float8 as "updatedAt", p.version`

/** Products by name. */
export async function listProducts(
  context: Context,
  scope: Scope,
  limit: number,
  cursor?: string,
): Promise<{ items: Product[]; nextCursor: string | null }> {
  const [, after] = cursor ? parseCursor(cursor, 2) : []
  if (cursor && typeof after !== 'string') throw new ProblemError('CURSOR_INVALID')
  const rows = await context.db.withTenant(scope, (tx) =>
    tx.execute<ProductRow>(
      sql`select ${productColumns} from products p ${cursor ? sql`where p.name > ${after}` : sql``} order by p.name limit ${limit + 1}`,
    ),
  )
  const page = rows.slice(0, limit)
  return {
    items: page.map((row) => toProduct({ ...row, settings: withExactReplies(row) })),
    nextCursor: rows.length > limit ? formatCursor(['products', page.at(-1)!.name]) : null,
  }
}

/** @throws {ProblemError} `NOT_FOUND` */
export async function getProduct(context: Context, scope: Scope, id: string): Promise<{ product: Product; version: number }> {
  const row = await context.db.withTenant(scope, (tx) => readRow(tx, id))
  return { product: toProduct(row), version: row.version }
}

/**
 * The answer shows the secret of provisioning, for this once.
 *
 * @throws {ProblemError} `NAME_TAKEN`, `UNPROCESSABLE`, `RATE_LIMIT_SYNTAX`, `PROVISIONING_TAKEN`
 */
export async function createProduct(context: Context, scope: Scope, wanted: ProductCreate): Promise<{ product: Product; version: number }> {
  const id = randomUUIDv7()
  const settings = mergeSettings({}, wanted)
  const { secret, ...provisioning } = mergeProvisioning(context, placeOfSecret(scope, id), undefined, wanted.provisioning)
  await context.db.withTenant(scope, async (tx) => {
    await checkOta(tx, id, settings)
    await withUniqueNames(wanted.name, () =>
      tx.insert(products).values({
        tenantId: scope.tenantId,
        id,
        name: wanted.name.trim(),
        description: wanted.description ?? '',
        settings: { ...settings, ...provisioning.settings },
        provisioningSha256: provisioning.lookup,
        inactivityTimeoutMs: wanted.inactivityTimeoutMs ?? defaultInactivityTimeoutMs,
      }),
    )
    recordAudit(tx, {
      type: 'product.create',
      subject: `product:${id}`,
      targetName: wanted.name.trim(),
      changes: { from: null, to: wanted, schema: secretMembers },
    })
  })
  context.events.emit('product.changed', { tenantId: scope.tenantId, productId: id })
  const { product, version } = await getProduct(context, scope, id)
  return { product: { ...product, provisioning: { ...product.provisioning, secret } }, version }
}

/**
 * Open sessions follow the change before this returns. A secret that was generated is shown by the answer.
 *
 * @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT` when `version` is not the stored one, and those of {@link createProduct}
 */
export async function updateProduct(
  parts: ProductParts,
  scope: Scope,
  id: string,
  patch: ProductPatch,
  version?: number,
): Promise<{ product: Product; version: number }> {
  const { context, registry } = parts
  let generated: string | null = null
  await context.db.withTenant(scope, async (tx) => {
    await tx.execute(sql`select 1 from products where id = ${id} for update`)
    const row = await readRow(tx, id)
    if (version !== undefined && row.version !== version) throw new ProblemError('VERSION_CONFLICT')
    const { isGenerated, secret, ...provisioning } = mergeProvisioning(
      context,
      placeOfSecret(scope, id),
      row.settings.provisioning,
      patch.provisioning,
    )
    generated = isGenerated ? secret : null
    const settings = mergeSettings(row.settings, patch)
    if (patch.ota) await checkOta(tx, id, settings)
    const change = {
      ...(patch.name === undefined ? {} : { name: patch.name.trim() }),
      ...(patch.description === undefined ? {} : { description: patch.description ?? '' }),
      ...(patch.inactivityTimeoutMs === undefined ? {} : { inactivityTimeoutMs: patch.inactivityTimeoutMs ?? defaultInactivityTimeoutMs }),
      settings: { ...settings, ...provisioning.settings },
      provisioningSha256: provisioning.lookup,
    }
    await withUniqueNames(patch.name ?? '', () =>
      tx
        .update(products)
        .set({ ...change, version: row.version + 1, updatedAt: new Date(context.clock.now()) })
        .where(eq(products.id, id)),
    )
    const before: Record<string, unknown> = toProduct(row)
    const from = Object.fromEntries(Object.keys(patch).map((name) => [name, before[name] ?? null]))
    recordAudit(tx, {
      type: 'product.update',
      subject: `product:${id}`,
      targetName: row.name,
      changes: { from, to: patch, schema: secretMembers },
    })
  })
  await registry.refreshProduct(scope, id)
  context.events.emit('product.changed', { tenantId: scope.tenantId, productId: id })
  const { product, version: newVersion } = await getProduct(context, scope, id)
  return { product: { ...product, provisioning: { ...product.provisioning, secret: generated } }, version: newVersion }
}

/** @throws {ProblemError} `NOT_FOUND`, `PRODUCT_IN_USE` also for devices in the bin and for the default product */
export async function deleteProduct(context: Context, scope: Scope, id: string, version?: number): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const row = await readRow(tx, id)
    if (version !== undefined && row.version !== version) throw new ProblemError('VERSION_CONFLICT')
    if (row.isDefault) {
      throw new ProblemError('PRODUCT_IN_USE', { errors: [{ pointer: '', detail: 'Devices that name no product get the default one.' }] })
    }
    // The foreign key of devices decides, so that no device can slip in between.
    await tx
      .delete(products)
      .where(and(eq(products.id, id), eq(products.isDefault, false)))
      .catch((error: unknown) => {
        throw isForeignKeyViolation(error) ? new ProblemError('PRODUCT_IN_USE', { cause: error }) : error
      })
    recordAudit(tx, { type: 'product.delete', subject: `product:${id}`, targetName: row.name })
  })
  context.events.emit('product.changed', { tenantId: scope.tenantId, productId: id })
}

/** The product of that name, made when it does not exist; @returns its id. */
export async function ensureProduct(context: Context, scope: Scope, name: string): Promise<string> {
  return context.db.withTenant(scope, async (tx) => {
    const made = await tx
      .insert(products)
      .values({ tenantId: scope.tenantId, id: randomUUIDv7(), name: name.trim() })
      .onConflictDoNothing()
      .returning({ id: products.id })
    for (const { id } of made) recordAudit(tx, { type: 'product.create', subject: `product:${id}`, targetName: name.trim() })
    const [row] = await tx.select({ id: products.id }).from(products).where(eq(products.name, name.trim()))
    if (!row) throw new Error(`product ${name} is neither new nor old`)
    return row.id
  })
}

async function readRow(tx: Tx, id: string): Promise<ProductRow> {
  const [row] = await tx.execute<ProductRow>(sql`select ${productColumns} from products p where p.id = ${id}`)
  if (!row) throw new ProblemError('NOT_FOUND')
  return { ...row, settings: withExactReplies(row) }
}

function toProduct(row: ProductRow): Product {
  const { settings, version: _, replies: __, createdAt, updatedAt, ...product } = row
  return {
    ...product,
    model: { keys: settings.model?.keys ?? {}, primaryKey: settings.model?.primaryKey ?? null },
    provisioning: showProvisioning(settings.provisioning),
    ...completeSettings(settings),
    createdAt: new Date(createdAt).toISOString(),
    updatedAt: new Date(updatedAt).toISOString(),
  }
}

function showProvisioning(stored: NonNullable<StoredSettings['provisioning']> = {}) {
  const { sealedSecret: _, strategy = 'disabled', key, ...chain } = stored
  return { strategy, key: key ?? null, secret: null, ...chain }
}

/** The packages a product gives its devices are its own, and have content [O-2]. */
async function checkOta(tx: Tx, productId: string, { ota = {} }: StoredSettings): Promise<void> {
  const { firmwareId, softwareId } = ota
  if (firmwareId) await checkAssignable(tx, { packageId: firmwareId, productId, kind: 'firmware' }, '/ota/firmwareId')
  if (softwareId) await checkAssignable(tx, { packageId: softwareId, productId, kind: 'software' }, '/ota/softwareId')
}

/** [P-6] With both of them a device is made: records hold neither; `secret` is masked by its name. */
const secretMembers = { properties: { provisioning: { properties: { key: { 'x-secret': true } } } } }

/** Look-up text of key and secret together: what devices present is found by it, and nothing has to be opened to compare. */
export const provisioningLookup = (key: string, secret: string): Buffer => sha256(`provision\0${key}\0${secret}`)

const placeOfSecret = (scope: Scope, productId: string): SealPlace => ({
  column: 'products.settings.provisioning.sealedSecret',
  tenantId: scope.tenantId,
  rowId: productId,
})

/** What provisioning becomes. A key or a secret that is needed and missing is generated; `secret: null` keeps what there is. */
function mergeProvisioning(
  context: Context,
  place: SealPlace,
  stored: StoredSettings['provisioning'],
  patch: ProductPatch['provisioning'],
): { settings: Pick<StoredSettings, 'provisioning'>; lookup: Buffer | null; secret: string | null; isGenerated: boolean } {
  if (patch === null) return { settings: { provisioning: {} }, lookup: null, secret: null, isGenerated: false }
  const strategy = (patch?.strategy === undefined ? stored?.strategy : patch.strategy) ?? 'disabled'
  const chain = mergeChain(strategy, stored, patch)
  const isOn = strategy !== 'disabled' && strategy !== 'x509-chain'
  const given = patch?.key === undefined ? stored?.key : (patch.key ?? undefined)
  const key = given ?? (isOn ? randomBase62(generatedLength) : undefined)
  const known = patch?.secret ?? (stored?.sealedSecret ? context.secrets.open(stored.sealedSecret, place) : undefined)
  const secret = known ?? (isOn ? randomBase62(generatedLength) : undefined)
  const provisioning = {
    ...chain.settings,
    strategy,
    ...(key === undefined ? {} : { key }),
    ...(secret === undefined ? {} : { sealedSecret: context.secrets.seal(secret, place) }),
  }
  return {
    settings: { provisioning },
    lookup: isOn ? provisioningLookup(key!, secret!) : chain.lookup,
    secret: secret ?? null,
    isGenerated: known === undefined && isOn,
  }
}

/** What provisioning by certificates becomes [X-3]; its look-up is that of the authority, which has one product only. */
function mergeChain(
  strategy: string,
  stored: StoredSettings['provisioning'] = {},
  patch: ProductPatch['provisioning'] = {},
): { settings: NonNullable<StoredSettings['provisioning']>; lookup: Buffer | null } {
  const settings: NonNullable<StoredSettings['provisioning']> = {}
  const { certificate, namePattern, allowCreate, revoked } = { ...stored, ...patch }
  if (certificate) settings.certificate = certificate
  if (namePattern) settings.namePattern = namePattern
  if (allowCreate) settings.allowCreate = allowCreate
  if (revoked && revoked.length > 0) settings.revoked = revoked
  const authority = certificate ? parseCertificate(certificate) : undefined
  const isNeeded = strategy === 'x509-chain'
  if ((certificate || isNeeded) && !authority?.ca) {
    throw new ProblemError('UNPROCESSABLE', {
      errors: [{ pointer: '/provisioning/certificate', detail: 'Give the certificate of an authority as PEM.' }],
    })
  }
  const problem = namePattern ? namePatternProblem(namePattern) : undefined
  if (problem) {
    throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/provisioning/namePattern', detail: patternProblems[problem] }] })
  }
  return { settings, lookup: isNeeded && authority ? certificateLookup(authority.raw) : null }
}

async function withUniqueNames<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!isUniqueViolation(error)) throw error
    const { constraint_name: index } = (unwrapDbError(error) ?? {}) as { constraint_name?: string }
    if (index === 'products_provisioning') throw new ProblemError('PROVISIONING_TAKEN', { cause: error })
    throw new ProblemError('NAME_TAKEN', { params: { name }, cause: error })
  }
}

function isForeignKeyViolation(error: unknown): boolean {
  const { code, cause } = error as { code?: string; cause?: { code?: string } }
  return code === '23503' || cause?.code === '23503'
}
