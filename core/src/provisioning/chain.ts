// SPDX-License-Identifier: AGPL-3.0-only
import type { X509Certificate } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import { certificateProblem, dateProblem } from '../devices/certificates.ts'
import { setCredentials } from '../devices/credentials.ts'
import { addLog } from '../devices/devices.ts'
import type { Devices } from '../devices/devices.ts'
import { ProblemError } from '../errors.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import type { Authentication, ClientCertificate, Credentials } from '../ingest/mqtt/connect.ts'
import { matchName } from './name-pattern.ts'
import type { ProvisioningProduct, ProvisioningProducts } from './provisioning-products.ts'

export type ChainParts = { registry: DeviceRegistry; products: ProvisioningProducts; devices: Devices }

/** Certificates between that of the device and the authority, the latter included. */
const longestChain = 5
const anyName = '(.+)'
const refused: Authentication = { status: 'refused', reason: 'certificate' }

/**
 * Looks up who connects (device API §2.2). A certificate that is unknown but signed by the authority of a product
 * gives its device the certificate for its credentials; all else needs no query.
 */
export class ChainProvisioning {
  readonly #context: Context
  readonly #parts: ChainParts

  constructor(context: Context, parts: ChainParts) {
    this.#context = context
    this.#parts = parts
  }

  authenticate(presented: Credentials): Authentication | Promise<Authentication> {
    const { registry, products } = this.#parts
    const { certificate } = presented
    if (!certificate) return registry.authenticate(presented)
    const { leaf } = certificate
    if (products.isRevoked(leaf)) return refused
    const found = registry.authenticate(presented)
    // Of a device we know it is refused for good.
    if (found.status === 'ok' || found.device) return found
    if (certificateProblem(leaf, this.#context.clock.now())) return refused
    return this.#findIssuer(certificate).then((product) => (product ? this.#provision(product, leaf) : refused))
  }

  /** The product whose authority has signed the certificate, over others the client has shown or not. */
  async #findIssuer({ leaf, others }: ClientCertificate): Promise<ProvisioningProduct | undefined> {
    const authorities = await this.#parts.products.listAuthorities()
    const now = this.#context.clock.now()
    let current = leaf
    for (let length = 0; length < longestChain; length++) {
      for (const { product, authority } of authorities) {
        if (isIssuedBy(current, authority) && !dateProblem(authority, now)) return product
      }
      const next = others.find((one) => one.ca && isIssuedBy(current, one) && !dateProblem(one, now))
      if (!next || next.fingerprint256 === current.fingerprint256 || this.#parts.products.isRevoked(next)) return undefined
      current = next
    }
    return undefined
  }

  async #provision(product: ProvisioningProduct, leaf: X509Certificate): Promise<Authentication> {
    const { clock, log } = this.#context
    const commonName: unknown = leaf.toLegacyObject().subject?.CN
    const name = typeof commonName === 'string' ? matchName(product.settings.namePattern ?? anyName, commonName) : undefined
    if (!name || !name.isWellFormed() || /\p{Cc}/u.test(name)) return refused
    try {
      const isKnown = await this.#updateCertificate(product, name, leaf)
      if (isKnown === 'elsewhere' || (isKnown === 'absent' && !product.settings.allowCreate)) return refused
      if (isKnown === 'absent') {
        const wanted = { name, productId: product.id, isProvisioned: true }
        await this.#parts.devices.create({ scope: product.scope }, wanted, { type: 'x509', pem: leaf.toString() })
      }
      log.info({ productId: product.id, isNew: isKnown === 'absent' }, 'a device was provisioned by its certificate')
      return this.#parts.registry.authenticate({ clientId: '', userName: undefined, password: undefined, certificate: { leaf } })
    } catch (error) {
      if (error instanceof ProblemError && error.status < 500) return refused
      log.warn({ err: error, at: clock.now() }, 'a device could not be provisioned by its certificate yet')
      return { status: 'refused', reason: 'starting' }
    }
  }

  /** Gives a device of the product the certificate in place of its credentials. */
  async #updateCertificate(
    { scope, id }: ProvisioningProduct,
    name: string,
    leaf: X509Certificate,
  ): Promise<'done' | 'absent' | 'elsewhere'> {
    const { db, events } = this.#context
    const deviceId = await db.withTenant(scope, async (tx) => {
      const [device] = await tx.execute<{ id: string; productId: string }>(
        sql`select id, product_id as "productId" from devices where name = ${name} and deleted_at is null for update`,
      )
      if (!device) return 'absent'
      if (device.productId !== id) return 'elsewhere'
      await setCredentials(this.#context, tx, scope.tenantId, device.id, { type: 'x509', pem: leaf.toString() })
      await addLog(tx, scope, device.id, 'credentials', { type: 'x509', by: 'x509-chain' })
      return { id: device.id }
    })
    if (typeof deviceId === 'string') return deviceId
    await this.#parts.registry.refresh(scope, deviceId.id)
    events.emit('device.changed', { tenantId: scope.tenantId, deviceId: deviceId.id, change: 'credentials' })
    return 'done'
  }
}

/** By name, key ids and allowed use, then by the signature itself. */
function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}
