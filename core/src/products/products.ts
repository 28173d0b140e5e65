// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { and, eq, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { products } from '../db/tables.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { ProblemError } from '../errors.ts'
import { formatCursor, parseCursor } from '../http/schemas.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Product, ProductCreate, ProductPatch, ProductSettings } from './schemas.ts'

export type ProductParts = { context: Context; registry: DeviceRegistry }

const defaultInactivityTimeoutMs = 600_000
const maxModelKeys = 1000

type ProductRow = {
  id: string
  name: string
  description: string
  settings: ProductSettings
  inactivityTimeoutMs: number
  isDefault: boolean
  deviceCount: number
  createdAt: number
  updatedAt: number
  version: number
}

const productColumns = sql`p.id, p.name, p.description, p.settings, p.inactivity_timeout_ms::float8 as "inactivityTimeoutMs", p.is_default as "isDefault",
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
  return { items: page.map(toProduct), nextCursor: rows.length > limit ? formatCursor(['products', page.at(-1)!.name]) : null }
}

/** @throws {ProblemError} `NOT_FOUND` */
export async function getProduct(context: Context, scope: Scope, id: string): Promise<{ product: Product; version: number }> {
  const row = await context.db.withTenant(scope, (tx) => readRow(tx, id))
  return { product: toProduct(row), version: row.version }
}

/** @throws {ProblemError} `NAME_TAKEN`, `UNPROCESSABLE` */
export async function createProduct(context: Context, scope: Scope, wanted: ProductCreate): Promise<{ product: Product; version: number }> {
  const id = randomUUIDv7()
  const settings = mergeSettings({}, wanted)
  await context.db.withTenant(scope, (tx) =>
    withUniqueName(wanted.name, () =>
      tx.insert(products).values({
        tenantId: scope.tenantId,
        id,
        name: wanted.name.trim(),
        description: wanted.description ?? '',
        settings,
        inactivityTimeoutMs: wanted.inactivityTimeoutMs ?? defaultInactivityTimeoutMs,
      }),
    ),
  )
  return getProduct(context, scope, id)
}

/**
 * Open sessions follow the change before this returns.
 *
 * @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT` when `version` is not the stored one, `NAME_TAKEN`, `UNPROCESSABLE`
 */
export async function updateProduct(
  parts: ProductParts,
  scope: Scope,
  id: string,
  patch: ProductPatch,
  version?: number,
): Promise<{ product: Product; version: number }> {
  const { context, registry } = parts
  await context.db.withTenant(scope, async (tx) => {
    await tx.execute(sql`select 1 from products where id = ${id} for update`)
    const row = await readRow(tx, id)
    if (version !== undefined && row.version !== version) throw new ProblemError('VERSION_CONFLICT')
    const change = {
      ...(patch.name === undefined ? {} : { name: patch.name.trim() }),
      ...(patch.description === undefined ? {} : { description: patch.description ?? '' }),
      ...(patch.inactivityTimeoutMs === undefined ? {} : { inactivityTimeoutMs: patch.inactivityTimeoutMs ?? defaultInactivityTimeoutMs }),
      settings: mergeSettings(row.settings, patch),
    }
    await withUniqueName(patch.name ?? '', () =>
      tx
        .update(products)
        .set({ ...change, version: row.version + 1, updatedAt: new Date(context.clock.now()) })
        .where(eq(products.id, id)),
    )
  })
  await registry.refreshProduct(scope, id)
  context.events.emit('product.changed', { tenantId: scope.tenantId, productId: id })
  return getProduct(context, scope, id)
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
  })
  context.events.emit('product.changed', { tenantId: scope.tenantId, productId: id })
}

/** The product of that name, made when it does not exist; @returns its id. */
export async function ensureProduct(context: Context, scope: Scope, name: string): Promise<string> {
  return context.db.withTenant(scope, async (tx) => {
    await tx.insert(products).values({ tenantId: scope.tenantId, id: randomUUIDv7(), name: name.trim() }).onConflictDoNothing()
    const [row] = await tx.select({ id: products.id }).from(products).where(eq(products.name, name.trim()))
    if (!row) throw new Error(`product ${name} is neither new nor old`)
    return row.id
  })
}

async function readRow(tx: Tx, id: string): Promise<ProductRow> {
  const [row] = await tx.execute<ProductRow>(sql`select ${productColumns} from products p where p.id = ${id}`)
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

function toProduct(row: ProductRow): Product {
  const { settings, version: _, createdAt, updatedAt, ...product } = row
  return {
    ...product,
    model: { keys: settings.model?.keys ?? {}, primaryKey: settings.model?.primaryKey ?? null },
    payload: { ...defaultPayloadRules, ...settings.payload },
    createdAt: new Date(createdAt).toISOString(),
    updatedAt: new Date(updatedAt).toISOString(),
  }
}

function mergeSettings(settings: ProductSettings, patch: Pick<ProductPatch, 'model' | 'payload'>): ProductSettings {
  const { model, payload } = patch
  const change = { ...(model === undefined ? {} : { model }), ...(payload === undefined ? {} : { payload }) }
  // The schema of the patch has checked every member of it, so what was valid stays so.
  const merged = mergePatch(settings, change) as ProductSettings
  checkModel(merged)
  return merged
}

function checkModel({ model }: ProductSettings): void {
  const keys = Object.entries(model?.keys ?? {})
  const errors = keys
    .filter(([, { min, max }]) => min !== undefined && max !== undefined && min > max)
    .map(([key]) => ({
      pointer: `/model/keys/${key.replaceAll('~', '~0').replaceAll('/', '~1')}/min`,
      detail: `The minimum of ${key} lies above its maximum.`,
    }))
  if (keys.length > maxModelKeys) errors.push({ pointer: '/model/keys', detail: `A model has at most ${maxModelKeys} keys.` })
  if (errors.length > 0) throw new ProblemError('UNPROCESSABLE', { errors: errors.slice(0, 20) })
}

/** RFC 7396. Members are set one by one through entries, so that no name has a meaning of its own [V-3]. */
function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch
  const merged = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) merged.delete(name)
    else if (value !== undefined) merged.set(name, mergePatch(merged.get(name), value))
  }
  return Object.fromEntries(merged)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

async function withUniqueName<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name }, cause: error }) : error
  }
}

function isForeignKeyViolation(error: unknown): boolean {
  const { code, cause } = error as { code?: string; cause?: { code?: string } }
  return code === '23503' || cause?.code === '23503'
}
