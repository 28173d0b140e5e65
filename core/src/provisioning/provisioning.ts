// SPDX-License-Identifier: AGPL-3.0-only
import { randomInt } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { Value } from 'typebox/value'
import type { Context } from '../context.ts'
import { findCredentials, createToken } from '../devices/credentials.ts'
import { addLog } from '../devices/devices.ts'
import type { Devices } from '../devices/devices.ts'
import { Credentials } from '../devices/schemas.ts'
import { ProblemError } from '../errors.ts'
import { Refusals } from '../ingest/mqtt/admission.ts'
import { defaultMqttLimits } from '../ingest/mqtt/limits.ts'
import type { ProvisioningProduct, ProvisioningProducts } from './provisioning-products.ts'
import type { ProvisionRequest } from './requests.ts'

/** The body of an answer [P-2]. */
export type ProvisionAnswer =
  | { status: 'SUCCESS'; credentialsType: ProvisionRequest['credentialsType']; credentialsValue: unknown }
  | { status: 'NOT_FOUND' | 'FAILURE'; errorMsg: string }

/** An answer, and how long it has to wait since its address guesses too much [P-6]. */
export type Provisioned = { answer: ProvisionAnswer; delayMs: number }

const notFound: ProvisionAnswer = { status: 'NOT_FOUND', errorMsg: 'Provision data was not found!' }
const failure: ProvisionAnswer = { status: 'FAILURE', errorMsg: 'Failed to provision device!' }

/** [P-6] */
const guesses = 10
const guessWindowMs = 60_000
const guessDelayMs = 5000

const nameLetters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const generatedNameLength = 20
const maxNameLength = 255

export type ProvisioningParts = {
  products: ProvisioningProducts
  devices: Pick<Devices, 'create'>
  /** Notes wrong keys for the list of refused connections; nothing in it is a secret. */
  refused: (refusal: { address: string; reason: string }) => void
}

/** Gives devices that know the key and the secret of a product their credentials (device API §7). */
export class Provisioning {
  readonly #context: Context
  readonly #parts: ProvisioningParts
  readonly #refusals = new Refusals({ ...defaultMqttLimits, refusals: guesses, refusalWindowMs: guessWindowMs })

  constructor(context: Context, parts: ProvisioningParts) {
    this.#context = context
    this.#parts = parts
  }

  /** @throws when the database cannot be reached; then the device may ask again */
  async provision(request: ProvisionRequest, address: string): Promise<Provisioned> {
    const { provisionDeviceKey: key, provisionDeviceSecret: secret } = request
    const product = key && secret ? await this.#parts.products.find(key, secret) : undefined
    if (!product) {
      const isTooMany = this.#refusals.add(address, this.#context.clock.monotonic())
      this.#parts.refused({ address, reason: 'unknown provisioning key or secret' })
      return { answer: notFound, delayMs: isTooMany ? guessDelayMs : 0 }
    }
    const credentials = await this.#serve(product, request)
    return { answer: credentials ? formatSuccess(credentials) : failure, delayMs: 0 }
  }

  async #serve(product: ProvisioningProduct, request: ProvisionRequest): Promise<Credentials | undefined> {
    const { log } = this.#context
    try {
      const isCreated = product.settings.strategy === 'create'
      const credentials = isCreated ? await this.#create(product, request) : await this.#handOver(product, request)
      log.info({ productId: product.id, isProvisioned: credentials !== undefined }, 'a device asked to be provisioned')
      return credentials
    } catch (error) {
      // [P-3] A taken name or credential, a device-count limit.
      if (!(error instanceof ProblemError) || error.status >= 500) throw error
      log.info({ productId: product.id, code: error.code }, 'a device could not be provisioned')
      return undefined
    }
  }

  async #create(product: ProvisioningProduct, request: ProvisionRequest): Promise<Credentials | undefined> {
    const name = request.deviceName?.trim() || makeName()
    const credentials = chooseCredentials(request)
    if (!isNameUsable(name) || !Value.Check(Credentials, credentials)) return undefined
    const wanted = { name, productId: product.id, gateway: request.gateway, isProvisioned: true }
    return (await this.#parts.devices.create({ scope: product.scope }, wanted, credentials)).credentials
  }

  /** The credentials a device was registered with, once. */
  async #handOver({ scope, id }: ProvisioningProduct, { deviceName }: ProvisionRequest): Promise<Credentials | undefined> {
    const name = deviceName?.trim()
    if (!name || !isNameUsable(name)) return undefined
    const { db, clock } = this.#context
    return db.withTenant(scope, async (tx) => {
      const [device] = await tx.execute<{ id: string }>(sql`
        update devices set provisioned_at = ${new Date(clock.now()).toISOString()}
        where name = ${name} and product_id = ${id} and deleted_at is null and provisioned_at is null returning id`)
      if (!device) return undefined
      await addLog(tx, scope, device.id, 'provisioned', {})
      return findCredentials(this.#context, tx, scope.tenantId, device.id)
    })
  }
}

/** The credentials a new device asks for; a token is made for one that asks for nothing. */
function chooseCredentials({ credentialsType, token, clientId, username, password, hash }: ProvisionRequest): Credentials {
  switch (credentialsType) {
    case 'ACCESS_TOKEN':
      return { type: 'access_token', token: token || createToken() }
    case 'MQTT_BASIC':
      return {
        type: 'mqtt_basic',
        ...(clientId ? { clientId } : {}),
        ...(username ? { userName: username } : {}),
        ...(password ? { password } : {}),
      }
    case 'X509_CERTIFICATE':
      return { type: 'x509', pem: hash ?? '' }
  }
}

function formatSuccess(credentials: Credentials): ProvisionAnswer {
  const status = 'SUCCESS'
  switch (credentials.type) {
    case 'access_token':
      return { status, credentialsType: 'ACCESS_TOKEN', credentialsValue: credentials.token }
    case 'mqtt_basic': {
      const { clientId = null, userName = null, password = null } = credentials
      return { status, credentialsType: 'MQTT_BASIC', credentialsValue: { clientId, userName, password } }
    }
    case 'x509':
      return { status, credentialsType: 'X509_CERTIFICATE', credentialsValue: credentials.pem }
  }
}

function isNameUsable(name: string): boolean {
  return name.length <= maxNameLength && name.isWellFormed() && !/\p{Cc}/u.test(name)
}

function makeName(): string {
  return Array.from({ length: generatedNameLength }, () => nameLetters[randomInt(nameLetters.length)]).join('')
}
