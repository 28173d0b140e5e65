// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import { provisioningLookup } from '../products/products.ts'
import type { StoredSettings } from '../products/schemas.ts'
import { isEqual } from '../secrets.ts'

/** A product that devices may provision themselves into. */
export type ProvisioningProduct = {
  scope: Scope
  id: string
  settings: NonNullable<StoredSettings['provisioning']>
  /** SHA-256 of what devices show to belong to it. */
  lookup: Buffer
}

type Row = { id: string; settings: StoredSettings['provisioning']; lookup: string }

const retryMs = 1000

/**
 * The products with provisioning switched on, in memory: somebody who guesses keys costs no query.
 * A change counts for every request that comes after the answer to it.
 */
export class ProvisioningProducts {
  readonly #context: Context
  #products: readonly ProvisioningProduct[] = []
  #turn: Promise<void> = Promise.resolve()
  #leave: (() => void) | undefined

  constructor(context: Context) {
    this.#context = context
  }

  async start(): Promise<void> {
    this.#leave ??= this.#context.events.on('product.changed', ({ tenantId }) => void this.#refresh(tenantId))
    for (const scope of await listTenants(this.#context.db)) await this.#load(scope)
  }

  stop(): void {
    this.#leave?.()
  }

  /** The product of a key and its secret; each candidate is compared in constant time [P-6]. */
  async find(key: string, secret: string): Promise<ProvisioningProduct | undefined> {
    await this.#turn
    const lookup = provisioningLookup(key, secret)
    let found: ProvisioningProduct | undefined
    for (const product of this.#products) if (isEqual(product.lookup, lookup)) found = product
    return found
  }

  /** One after the other, so that the newest rows are the last ones read. */
  #refresh(tenantId: string): Promise<void> {
    this.#turn = this.#turn.then(async () => {
      try {
        const tenants = await listTenants(this.#context.db)
        const scope = tenants.find((one) => one.tenantId === tenantId)
        if (scope) await this.#load(scope)
      } catch (error) {
        // The change may have switched provisioning off, or revoked a secret.
        this.#products = this.#products.filter((one) => one.scope.tenantId !== tenantId)
        this.#context.log.warn({ err: error }, 'changed products could not be read yet')
        this.#context.clock.after(retryMs, () => void this.#refresh(tenantId))
      }
    })
    return this.#turn
  }

  async #load({ tenantId, tenantNo }: Scope): Promise<void> {
    const scope = { tenantId, tenantNo }
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<Row>(sql`
        select id, settings->'provisioning' as settings, encode(provisioning_sha256, 'hex') as lookup from products
        where provisioning_sha256 is not null`),
    )
    const loaded = rows.map((row) => ({ scope, id: row.id, settings: row.settings ?? {}, lookup: Buffer.from(row.lookup, 'hex') }))
    this.#products = [...this.#products.filter((one) => one.scope.tenantId !== tenantId), ...loaded]
  }
}
