// SPDX-License-Identifier: AGPL-3.0-only
import type { X509Certificate } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import { parseCertificate } from '../devices/certificates.ts'
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
  /** Authorities whose certificates provision devices, and what they have revoked. */
  #authorities: readonly { product: ProvisioningProduct; authority: X509Certificate }[] = []
  #revoked: ReadonlySet<string> = new Set()
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

  /** Authorities with their products. */
  async listAuthorities(): Promise<readonly { product: ProvisioningProduct; authority: X509Certificate }[]> {
    await this.#turn
    return this.#authorities
  }

  /** Whether a product has the certificate on its list. */
  isRevoked(certificate: X509Certificate): boolean {
    return this.#revoked.size > 0 && this.#revoked.has(certificate.fingerprint256.replaceAll(':', '').toLowerCase())
  }

  /** The product of a key and its secret; each candidate is compared in constant time [P-6]. */
  async find(key: string, secret: string): Promise<ProvisioningProduct | undefined> {
    await this.#turn
    const lookup = provisioningLookup(key, secret)
    let found: ProvisioningProduct | undefined
    for (const product of this.#products) if (isEqual(product.lookup, lookup)) found = product
    return found?.settings.strategy === 'x509-chain' ? undefined : found
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
        this.#take(this.#products.filter((one) => one.scope.tenantId !== tenantId))
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
    this.#take([...this.#products.filter((one) => one.scope.tenantId !== tenantId), ...loaded])
  }

  #take(products: readonly ProvisioningProduct[]): void {
    this.#products = products
    this.#revoked = new Set(products.flatMap(({ settings }) => settings.revoked ?? []))
    this.#authorities = products.flatMap((product) => {
      const { strategy, certificate } = product.settings
      const authority = strategy === 'x509-chain' && certificate ? parseCertificate(certificate) : undefined
      return authority ? [{ product, authority }] : []
    })
  }
}
