// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static, TSchema } from 'typebox'
import { Id, Instant, Nullable } from '../http/schemas.ts'

const Name = Type.String({ minLength: 1, maxLength: 255, pattern: '\\S' })
const Description = Type.String({ maxLength: 2000 })
/** 10 s to 30 days. */
const InactivityTimeout = Type.Integer({ minimum: 10_000, maximum: 2_592_000_000 })
/** Telemetry keys [V-14]. */
const Key = Type.String({ pattern: '^[^\\u0000-\\u001f\\u007f\\ud800-\\udfff]{1,255}$' })
const Label = Type.String({ maxLength: 255 })

const tenYearsMs = 315_576_000_000

/** A merge patch of an object with fixed members: each may be absent, or null for its default. */
function Patch<T extends Record<string, TSchema>>(members: T) {
  type Members = { [K in keyof T]: ReturnType<typeof Type.Optional<ReturnType<typeof Nullable<T[K]>>>> }
  const optional = Object.fromEntries(Object.entries(members).map(([name, schema]) => [name, Type.Optional(Nullable(schema))]))
  return Type.Object(optional as Members, { additionalProperties: false })
}

/** How devices' payloads are read (device API §17.1). */
const payload = {
  json: Type.Union([Type.Literal('relaxed'), Type.Literal('strict')]),
  duplicateKeys: Type.Union([Type.Literal('last'), Type.Literal('reject')]),
  castNumericStrings: Type.Boolean(),
  timestampUnit: Type.Union([Type.Literal('ms'), Type.Literal('s'), Type.Literal('auto')]),
  maxFutureMs: Type.Integer({ minimum: 0, maximum: tenYearsMs }),
  ackInvalidPayload: Type.Boolean(),
}

/** Filters and topics are looked at closer where they are merged. */
const Filter = Type.String({ minLength: 1, maxLength: 512 })
const transport = {
  telemetryTopics: Type.Array(Filter, { maxItems: 8, uniqueItems: true }),
  attributesTopics: Type.Array(Filter, { maxItems: 8, uniqueItems: true }),
  attributesPushTopic: Filter,
}

const strategies = Type.Union([Type.Literal('disabled'), Type.Literal('create'), Type.Literal('preregistered'), Type.Literal('x509-chain')])
/** Key and secret of provisioning: 8 to 64 characters, none of them a control character. */
const Shared = Type.String({ pattern: '^[^\\u0000-\\u001f\\u007f\\ud800-\\udfff]{8,64}$' })
/** Of strategy `x509-chain`: the certificate of the authority, and what becomes of the names it signs. */
const chain = {
  certificate: Type.String({ minLength: 1, maxLength: 16_384 }),
  namePattern: Type.String({ minLength: 1, maxLength: 256 }),
  allowCreate: Type.Boolean(),
  /** SHA-256 of certificates that are no longer good, in hex. */
  revoked: Type.Array(Type.String({ pattern: '^[0-9a-f]{64}$' }), { maxItems: 1000, uniqueItems: true }),
}
const provisioning = { strategy: strategies, key: Shared, secret: Shared, ...chain }

const gateway = { autoCreate: Type.Boolean() }

/** Whether devices announce themselves and name their own topics; `home-assistant`: as its MQTT discovery has it. */
const Discovery = Type.Union([Type.Literal('off'), Type.Literal('home-assistant')])

/** A rate by the grammar of device API §15; empty for no limit whatever the installation says. */
const Rate = Type.String({ maxLength: 200 })
const rateCounters = { messages: Rate, telemetryMessages: Rate, telemetryDataPoints: Rate }
/** The limits of one scope; a counter that is null has the installation's limit, or none. */
export const Rates = Type.Object({
  messages: Nullable(Rate),
  telemetryMessages: Nullable(Rate),
  telemetryDataPoints: Nullable(Rate),
})
export type Rates = Static<typeof Rates>
/** Limits of devices by their scope: of the installation, for what products leave open. */
export const DeviceRates = Type.Object({ device: Nullable(Rates), gateway: Nullable(Rates), gatewayDevice: Nullable(Rates) })
const scopeRates = { device: Patch(rateCounters), gateway: Patch(rateCounters), gatewayDevice: Patch(rateCounters) }
export const DeviceRatesPatch = Patch(scopeRates)
export type DeviceRatesPatch = Static<typeof DeviceRatesPatch>
const MaxChildDevices = Type.Integer({ minimum: 0, maximum: 1_000_000 })

/** Device API §6.2 and §6.3. */
const rpc = {
  submit: Type.Union([Type.Literal('burst'), Type.Literal('sequential-ack'), Type.Literal('sequential-response')]),
  retries: Type.Integer({ minimum: 0, maximum: 20 }),
  ackTimeoutMs: Type.Integer({ minimum: 500, maximum: 60_000 }),
  responseTimeoutMs: Type.Integer({ minimum: 500, maximum: 300_000 }),
  closeOnAckTimeout: Type.Boolean(),
  clientTimeoutMs: Type.Integer({ minimum: 500, maximum: 300_000 }),
}

/** The ready answer to a request of a device: any JSON, `null` too. */
const ClientRpc = Type.Object({ reply: Type.Unknown() }, { additionalProperties: false })
const Method = Type.String({ pattern: '^[^\\u0000\\ud800-\\udfff]{1,255}$' })

const ota = { firmwareId: Id, softwareId: Id }

const title = { zh: Label, en: Label }
const keyModel = {
  unit: Type.String({ maxLength: 32 }),
  decimals: Type.Integer({ minimum: 0, maximum: 15 }),
  min: Type.Number(),
  max: Type.Number(),
}

/** How people see a key; what is not set is left to the page. */
export const KeyModel = Type.Object({
  title: Type.Optional(Type.Partial(Type.Object(title))),
  ...Type.Partial(Type.Object(keyModel)).properties,
})
export type KeyModel = Static<typeof KeyModel>

const KeyModelPatch = Patch({ title: Patch(title), ...keyModel })
const ModelPatch = Patch({
  keys: Type.Record(Key, Nullable(KeyModelPatch), { additionalProperties: false, maxProperties: 1000 }),
  primaryKey: Key,
})

export const Product = Type.Object({
  id: Id,
  name: Type.String(),
  description: Type.String(),
  model: Type.Object({ keys: Type.Record(Type.String(), KeyModel), primaryKey: Nullable(Type.String()) }),
  transport: Type.Object({ ...transport, attributesPushTopic: Nullable(Filter) }),
  payload: Type.Object(payload),
  /** The secret is shown by the answer that made it, and never again. */
  provisioning: Type.Object({
    strategy: strategies,
    key: Nullable(Type.String()),
    secret: Nullable(Type.String()),
    ...Type.Partial(Type.Object(chain)).properties,
  }),
  gateway: Type.Object(gateway),
  discovery: Discovery,
  limits: Type.Object({ ...DeviceRates.properties, maxChildDevices: MaxChildDevices }),
  rpc: Type.Object(rpc),
  clientRpc: Type.Record(Type.String(), Type.Object({ reply: Type.Unknown() })),
  inactivityTimeoutMs: Type.Integer(),
  ota: Type.Object({ firmwareId: Nullable(Id), softwareId: Nullable(Id) }),
  deviceCount: Type.Integer(),
  isDefault: Type.Boolean(),
  createdAt: Instant,
  updatedAt: Instant,
})
export type Product = Static<typeof Product>

const changeable = {
  description: Type.Optional(Nullable(Description)),
  model: Type.Optional(Nullable(ModelPatch)),
  transport: Type.Optional(Nullable(Patch(transport))),
  payload: Type.Optional(Nullable(Patch(payload))),
  provisioning: Type.Optional(Nullable(Patch(provisioning))),
  gateway: Type.Optional(Nullable(Patch(gateway))),
  discovery: Type.Optional(Nullable(Discovery)),
  limits: Type.Optional(Nullable(Patch({ ...scopeRates, maxChildDevices: MaxChildDevices }))),
  rpc: Type.Optional(Nullable(Patch(rpc))),
  clientRpc: Type.Optional(Nullable(Type.Record(Method, Nullable(ClientRpc), { additionalProperties: false, maxProperties: 100 }))),
  ota: Type.Optional(Nullable(Patch(ota))),
  inactivityTimeoutMs: Type.Optional(Nullable(InactivityTimeout)),
}

/** Any subset of the members; the rest get defaults. */
export const ProductCreate = Type.Object({ name: Name, ...changeable }, { additionalProperties: false })
export type ProductCreate = Static<typeof ProductCreate>

/** Merge patch (RFC 7396) in depth: null brings a default back, or takes a key out of the model. */
export const ProductPatch = Type.Object({ name: Type.Optional(Name), ...changeable }, { additionalProperties: false, minProperties: 1 })
export type ProductPatch = Static<typeof ProductPatch>

/**
 * What a product says about its devices, complete: what the ingest path holds once per product and never changes
 * in place. Neither the model, which is for pages, nor the secrets of provisioning are in it.
 */
export type ProductSettings = Readonly<
  Pick<Product, 'transport' | 'payload' | 'gateway' | 'discovery' | 'limits' | 'rpc' | 'clientRpc' | 'ota'>
>

/** What a product changes of the defaults, as it is stored. */
export type StoredSettings = {
  model?: { keys?: Record<string, KeyModel>; primaryKey?: string }
  transport?: { telemetryTopics?: string[]; attributesTopics?: string[]; attributesPushTopic?: string }
  payload?: Partial<Product['payload']>
  provisioning?: {
    strategy?: Product['provisioning']['strategy']
    key?: string
    sealedSecret?: string
    certificate?: string
    namePattern?: string
    allowCreate?: boolean
    revoked?: string[]
  }
  gateway?: Partial<Product['gateway']>
  discovery?: Product['discovery']
  limits?: { device?: Partial<Rates>; gateway?: Partial<Rates>; gatewayDevice?: Partial<Rates>; maxChildDevices?: number }
  rpc?: Partial<Product['rpc']>
  clientRpc?: Product['clientRpc']
  ota?: { firmwareId?: string; softwareId?: string }
}
