// SPDX-License-Identifier: AGPL-3.0-only
import { hash } from 'node:crypto'
import type { X509Certificate } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import { certificateLookup, certificateProblem } from '../devices/certificates.ts'
import { isEqual, sha256 } from '../secrets.ts'
import { loadDeviceLimits } from '../products/device-limits.ts'
import type { StoredSettings } from '../products/schemas.ts'
import { completeSettings, defaultSettings, withExactReplies } from '../products/settings.ts'
import { chooseLimits, noRates } from './rate-limits.ts'
import type { ScopeRates } from './rate-limits.ts'
import type { Device } from './registry.ts'

/** What a device presents in CONNECT. */
export type PresentedCredentials = {
  clientId: string
  userName: string | undefined
  password: Buffer | undefined
  certificate?: { leaf: X509Certificate } | undefined
}

export type AuthResult =
  | { status: 'ok'; device: Device }
  | { status: 'refused'; reason: 'bad_credentials' | 'unknown_client_id' | 'nothing_given' | 'certificate' | 'disabled'; device?: Device }

type CredentialKind = 'access_token' | 'mqtt_basic' | 'x509'
type Credential = { device: Device; kind: CredentialKind; passwordHmac: Buffer | null; expiresAt: number | undefined }

type DeviceRow = {
  id: string
  number: number
  name: string
  disabled: boolean
  gateway: boolean
  gatewayId: string | null
  productId: string
  inactivityTimeoutMs: string
}
type ProductRow = { id: string; version: number; settings: StoredSettings; replies: string | null }
type CredentialRow = {
  deviceId: string
  kind: CredentialKind
  lookup: string
  hmac: string | null
  expiresAt: string | null
}

const retryMs = 1000
/** Changed devices that one reading takes in, and of these in a line of the log. */
const mostTogether = 5000
const mostLogged = 20

/** Look-up text of an access token, and of an MQTT-basic pair; absent parts are empty. */
export const tokenLookup = (token: string): Buffer => sha256(token)
export const basicLookup = (clientId: string, userName: string): Buffer => sha256(`basic\0${clientId}\0${userName}`)

/**
 * Every device that may connect, in memory with its credentials: a packet or a refused CONNECT costs
 * no query [M-8]. Changes are taken in by {@link refresh} before their request is answered.
 */
export class DeviceRegistry {
  readonly #context: Context
  readonly #devices = new Map<string, Device & { productId: string }>()
  readonly #products = new Map<string, { version: number; settings: Device['settings'] }>()
  readonly #credentials = new Map<string, Credential>()
  readonly #lookups = new Map<string, string[]>()
  #turn: Promise<void> = Promise.resolve()
  /** Devices whose rows wait to be read, by tenant, and the reading they wait for. */
  readonly #changes = new Map<string, { ids: Set<string>; read: Promise<void> }>()
  /** Rate limits of the installation, for what a product leaves open. */
  #rates: ScopeRates = noRates

  constructor(context: Context) {
    this.#context = context
  }

  get size(): number {
    return this.#devices.size
  }

  async start(): Promise<void> {
    this.#rates = await loadDeviceLimits(this.#context.db)
    for (const tenant of await listTenants(this.#context.db)) await this.#load(tenant, undefined)
  }

  get(deviceId: string): Device | undefined {
    return this.#devices.get(deviceId)
  }

  /**
   * The device of an access token; undefined when unknown, expired, or disabled. Called for each request,
   * twice: hashing in one call takes a fifth of the time of {@link tokenLookup}.
   */
  findByToken(token: string): Device | undefined {
    const credential = this.#findUnexpired(hash('sha256', token, 'hex'))
    return credential?.kind === 'access_token' && !credential.device.isDisabled ? credential.device : undefined
  }

  /** Device API §2.2 (without provisioning, which comes before it). */
  authenticate(presented: PresentedCredentials): AuthResult {
    const { clientId, userName, password, certificate } = presented
    if (certificate) return this.#checkCertificate(certificate.leaf)
    if (!userName) {
      const credential = clientId ? this.#find(basicLookup(clientId, '')) : undefined
      if (credential) return this.#checkPassword(credential, password)
      if (password?.length) return { status: 'refused', reason: 'bad_credentials' }
      return { status: 'refused', reason: clientId ? 'unknown_client_id' : 'nothing_given' }
    }
    const pair = clientId ? this.#find(basicLookup(clientId, userName)) : undefined
    if (pair) return this.#checkPassword(pair, password)
    const token = this.#find(tokenLookup(userName))
    if (token?.kind === 'access_token') {
      return token.device.isDisabled
        ? { status: 'refused', reason: 'disabled', device: token.device }
        : { status: 'ok', device: token.device }
    }
    const alone = this.#find(basicLookup('', userName))
    return alone ? this.#checkPassword(alone, password) : { status: 'refused', reason: 'bad_credentials' }
  }

  /**
   * Takes in what has changed about one or several devices; deleted ones are forgotten. One reading after the
   * other, so that the newest row is the last one read; whoever comes while one runs shares the next. Never fails:
   * while the rows cannot be read, the devices' credentials count as unknown, since the change may have revoked them.
   */
  refresh(scope: Scope, ...deviceIds: string[]): Promise<void> {
    const waiting = this.#changes.get(scope.tenantId)
    if (waiting !== undefined && waiting.ids.size < mostTogether) {
      for (const id of deviceIds) waiting.ids.add(id)
      return waiting.read
    }
    const ids = new Set(deviceIds)
    const read = this.#turn.then(() => {
      // What comes from now on may be newer than what is read.
      if (this.#changes.get(scope.tenantId)?.ids === ids) this.#changes.delete(scope.tenantId)
      return this.#readChanged(scope, [...ids])
    })
    this.#changes.set(scope.tenantId, { ids, read })
    this.#turn = read
    return read
  }

  async #readChanged(scope: Scope, deviceIds: readonly string[]): Promise<void> {
    try {
      await this.#load(scope, deviceIds)
    } catch (error) {
      for (const id of deviceIds) this.#forgetCredentials(id)
      this.#context.log.warn({ err: error, devices: deviceIds.slice(0, mostLogged) }, 'changed devices could not be read yet')
      this.#context.clock.after(retryMs, () => void this.refresh(scope, ...deviceIds))
    }
  }

  /** The devices of a product, whose settings changed; in one query, since they may be many. */
  async refreshProduct(scope: Scope, productId: string): Promise<void> {
    const { rows, products } = await this.#context.db.withTenant(scope, async (tx) => ({
      rows: await selectDevices(tx, sql`and d.product_id = ${productId}`),
      products: await selectProducts(tx, sql`where p.id = ${productId}`),
    }))
    for (const product of products) this.#takeProduct(product)
    for (const row of rows) if (this.#devices.has(row.id)) this.#take(scope, row)
  }

  /** The installation's rate limits have changed. */
  setRates(rates: ScopeRates): void {
    this.#rates = rates
    for (const device of this.#devices.values()) device.limits = this.#chooseLimits(device, device)
  }

  async #load(scope: Scope, deviceIds: readonly string[] | undefined): Promise<void> {
    const wanted = deviceIds && sql`any(${sql.param(deviceIds)}::uuid[])`
    const { rows, products, credentials } = await this.#context.db.withTenant(scope, async (tx) => ({
      rows: await selectDevices(tx, wanted ? sql`and d.id = ${wanted}` : sql``),
      products: await selectProducts(
        tx,
        wanted ? sql`where p.id in (select d.product_id from devices d where d.id = ${wanted} and d.deleted_at is null)` : sql``,
      ),
      credentials: await tx.execute<CredentialRow>(sql`
        select d.device_id as "deviceId", d.kind, encode(d.lookup_sha256, 'hex') as lookup, encode(d.password_hmac, 'hex') as hmac, d.expires_at as "expiresAt"
        from device_credentials d where d.is_active ${wanted ? sql`and d.device_id = ${wanted}` : sql``}`),
    }))
    const found = new Set(rows.map(({ id }) => id))
    for (const id of deviceIds ?? []) {
      this.#forgetCredentials(id)
      if (!found.has(id)) this.#devices.delete(id)
    }
    for (const product of products) this.#takeProduct(product)
    for (const row of rows) this.#take(scope, row)
    for (const row of credentials) this.#takeCredential(row)
  }

  /** An older version may be read after a newer one, by a change of one device that overlaps one of the product. */
  #takeProduct({ id, version, ...row }: ProductRow): void {
    if ((this.#products.get(id)?.version ?? 0) >= version) return
    const settings = withExactReplies(row)
    this.#products.set(id, { version, settings: Object.keys(settings).length > 0 ? completeSettings(settings) : defaultSettings })
  }

  /** Open sessions hold the object, so a known device is changed in place. */
  #take(scope: Scope, row: DeviceRow): void {
    const settings = this.#products.get(row.productId)?.settings ?? defaultSettings
    const changed = {
      name: row.name,
      isDisabled: row.disabled,
      isGateway: row.gateway,
      gatewayId: row.gatewayId ?? undefined,
      productId: row.productId,
      settings,
      rules: settings.payload,
      inactivityTimeoutMs: Number(row.inactivityTimeoutMs),
    }
    const known = this.#devices.get(row.id)
    const limits = this.#chooseLimits(known, changed)
    if (known) Object.assign(known, changed, { limits })
    else {
      this.#devices.set(row.id, {
        tenantId: scope.tenantId,
        tenantNo: scope.tenantNo,
        id: row.id,
        no: row.number,
        lastServerTs: 0,
        ...changed,
        limits,
      })
    }
  }

  #chooseLimits(known: Device | undefined, { settings, isGateway }: Pick<Device, 'settings' | 'isGateway'>): Device['limits'] {
    return chooseLimits(known?.limits, settings.limits, this.#rates, isGateway, () => this.#context.clock.monotonic())
  }

  #takeCredential(row: CredentialRow): void {
    const device = this.#devices.get(row.deviceId)
    if (!device) return
    this.#credentials.set(row.lookup, {
      device,
      kind: row.kind,
      passwordHmac: row.hmac ? Buffer.from(row.hmac, 'hex') : null,
      expiresAt: row.expiresAt ? Date.parse(row.expiresAt) : undefined,
    })
    this.#lookups.set(row.deviceId, [...(this.#lookups.get(row.deviceId) ?? []), row.lookup])
  }

  #forgetCredentials(deviceId: string): void {
    for (const lookup of this.#lookups.get(deviceId) ?? []) {
      // A token freed here may be another device's by now.
      if (this.#credentials.get(lookup)?.device.id === deviceId) this.#credentials.delete(lookup)
    }
    this.#lookups.delete(deviceId)
  }

  #find(lookup: Buffer): Credential | undefined {
    return this.#findUnexpired(lookup.toString('hex'))
  }

  #findUnexpired(lookup: string): Credential | undefined {
    const credential = this.#credentials.get(lookup)
    return credential?.expiresAt !== undefined && credential.expiresAt <= this.#context.clock.now() ? undefined : credential
  }

  /** A certificate decides alone: one that does not match is not made good by a password [§2.2]. */
  #checkCertificate(certificate: X509Certificate): AuthResult {
    const found = this.#find(certificateLookup(certificate.raw))
    if (found?.kind !== 'x509') return { status: 'refused', reason: 'certificate' }
    const { device } = found
    if (certificateProblem(certificate, this.#context.clock.now())) return { status: 'refused', reason: 'certificate', device }
    return device.isDisabled ? { status: 'refused', reason: 'disabled', device } : { status: 'ok', device }
  }

  #checkPassword(credential: Credential, password: Buffer | undefined): AuthResult {
    const { device, passwordHmac } = credential
    if (passwordHmac && !isEqual(passwordHmac, hmacPassword(this.#context.secrets, device.id, password?.toString('utf8') ?? ''))) {
      return { status: 'refused', reason: 'bad_credentials', device }
    }
    return device.isDisabled ? { status: 'refused', reason: 'disabled', device } : { status: 'ok', device }
  }
}

function selectDevices(tx: Tx, only: SQL) {
  return tx.execute<DeviceRow>(sql`
    select d.id, d.number, d.name, d.disabled_at is not null as disabled, d.is_gateway as gateway, d.gateway_id as "gatewayId", d.product_id as "productId",
      coalesce(d.inactivity_timeout_ms, p.inactivity_timeout_ms) as "inactivityTimeoutMs"
    from devices d join products p on p.tenant_id = d.tenant_id and p.id = d.product_id where d.deleted_at is null ${only}`)
}

function selectProducts(tx: Tx, only: SQL) {
  return tx.execute<ProductRow>(sql`select p.id, p.version, p.settings, p.settings->>'clientRpc' as replies from products p ${only}`)
}

/** How an MQTT-basic password is kept for comparison [M-9]. */
export function hmacPassword(secrets: Context['secrets'], deviceId: string, password: string): Buffer {
  return secrets.hmac('pepper', deviceId, password)
}
