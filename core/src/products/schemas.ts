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
  payload: Type.Object(payload),
  inactivityTimeoutMs: Type.Integer(),
  deviceCount: Type.Integer(),
  isDefault: Type.Boolean(),
  createdAt: Instant,
  updatedAt: Instant,
})
export type Product = Static<typeof Product>

const changeable = {
  description: Type.Optional(Nullable(Description)),
  model: Type.Optional(Nullable(ModelPatch)),
  payload: Type.Optional(Nullable(Patch(payload))),
  inactivityTimeoutMs: Type.Optional(Nullable(InactivityTimeout)),
}

/** Any subset of the members; the rest get defaults. */
export const ProductCreate = Type.Object({ name: Name, ...changeable }, { additionalProperties: false })
export type ProductCreate = Static<typeof ProductCreate>

/** Merge patch (RFC 7396) in depth: null brings a default back, or takes a key out of the model. */
export const ProductPatch = Type.Object({ name: Type.Optional(Name), ...changeable }, { additionalProperties: false, minProperties: 1 })
export type ProductPatch = Static<typeof ProductPatch>

/** What a product changes of the defaults, as it is stored. */
export type ProductSettings = {
  model?: { keys?: Record<string, KeyModel>; primaryKey?: string }
  payload?: Partial<Product['payload']>
}
