// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant, Nullable, pageQuery } from '../http/schemas.ts'

const Name = Type.String({ minLength: 1, maxLength: 255 })
const Tags = Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { maxItems: 50, uniqueItems: true })
const TimeZone = Type.String({ maxLength: 64 })
/** 10 s to 30 days. */
const InactivityTimeout = Type.Integer({ minimum: 10_000, maximum: 2_592_000_000 })

export const LatestValue = Type.Object({ key: Type.String(), ts: Type.Number(), value: Type.Unknown(), kind: Type.String() })

export const Device = Type.Object({
  id: Id,
  name: Type.String(),
  label: Nullable(Type.String()),
  description: Nullable(Type.String()),
  productId: Id,
  productName: Type.String(),
  state: Type.Union([Type.Literal('never'), Type.Literal('online'), Type.Literal('offline')]),
  disabled: Type.Boolean(),
  gateway: Type.Boolean(),
  /** The gateway that speaks for it; null for a device that speaks for itself. */
  gatewayId: Nullable(Id),
  gatewayName: Nullable(Type.String()),
  tags: Type.Array(Type.String()),
  timeZone: Nullable(Type.String()),
  inactivityTimeoutMs: Nullable(Type.Integer()),
  createdAt: Instant,
  updatedAt: Instant,
  lastActivityAt: Nullable(Instant),
  lastConnectAt: Nullable(Instant),
  lastDisconnectAt: Nullable(Instant),
  disconnectReason: Nullable(Type.String()),
  isDemo: Type.Boolean(),
  primary: Nullable(LatestValue),
})
export type Device = Static<typeof Device>

export const DeviceCreate = Type.Object(
  {
    name: Name,
    label: Type.Optional(Type.String({ maxLength: 255 })),
    description: Type.Optional(Type.String({ maxLength: 2000 })),
    productId: Type.Optional(Id),
    gateway: Type.Optional(Type.Boolean()),
    tags: Type.Optional(Tags),
    timeZone: Type.Optional(TimeZone),
  },
  { additionalProperties: false },
)
export type DeviceCreate = Static<typeof DeviceCreate>

/** Merge patch (RFC 7396): null clears. */
export const DevicePatch = Type.Object(
  {
    name: Type.Optional(Name),
    label: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
    description: Type.Optional(Nullable(Type.String({ maxLength: 2000 }))),
    productId: Type.Optional(Id),
    tags: Type.Optional(Tags),
    timeZone: Type.Optional(Nullable(TimeZone)),
    inactivityTimeoutMs: Type.Optional(Nullable(InactivityTimeout)),
    disabled: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false, minProperties: 1 },
)
export type DevicePatch = Static<typeof DevicePatch>

export const filterQuery = {
  q: Type.Optional(Type.String({ maxLength: 255 })),
  state: Type.Optional(Type.Union([Type.Literal('never'), Type.Literal('online'), Type.Literal('offline')])),
  productId: Type.Optional(Id),
  gatewayId: Type.Optional(Id),
  tag: Type.Optional(Type.String({ maxLength: 64 })),
  firmware: Type.Optional(
    Type.String({ maxLength: 511, description: 'Title and version, with a blank between them, as the device reports them.' }),
  ),
  lastSeenBefore: Type.Optional(Instant),
  disabled: Type.Optional(Type.Boolean()),
}
export const DeviceFilter = Type.Object(filterQuery, { additionalProperties: false })
export type DeviceFilter = Static<typeof DeviceFilter>

export const deviceSorts = ['name', '-name', 'createdAt', '-createdAt', 'lastActivityAt', '-lastActivityAt'] as const
export type DeviceSort = (typeof deviceSorts)[number]

export const DeviceListQuery = Type.Object(
  {
    ...filterQuery,
    ...pageQuery,
    sort: Type.Optional(
      Type.Union(
        deviceSorts.map((sort) => Type.Literal(sort)),
        { default: '-createdAt' },
      ),
    ),
    count: Type.Optional(Type.Literal('exact')),
  },
  { additionalProperties: false },
)
export type DeviceListQuery = Static<typeof DeviceListQuery>

export const DeviceList = Type.Object({
  items: Type.Array(Device),
  nextCursor: Nullable(Type.String()),
  total: Type.Optional(Type.Integer()),
})

const Facet = Type.Array(Type.Object({ value: Type.String(), label: Type.Optional(Type.String()), count: Type.Integer() }))
export const DeviceFacets = Type.Object({ state: Facet, product: Facet, tag: Facet, firmware: Facet, total: Type.Integer() })
export type DeviceFacets = Static<typeof DeviceFacets>

/** 1–128 of the unreserved characters of RFC 3986 [M-10]. */
export const Token = Type.String({ pattern: '^[A-Za-z0-9_.~-]{1,128}$' })
export const MqttText = Type.String({ maxLength: 256 })
/** A certificate as PEM, or the base64 of its DER. */
export const Pem = Type.String({ minLength: 1, maxLength: 16_384 })

export const Credentials = Type.Union([
  Type.Object({ type: Type.Literal('access_token'), token: Token, graceUntil: Type.Optional(Instant) }, { additionalProperties: false }),
  Type.Object(
    {
      type: Type.Literal('mqtt_basic'),
      clientId: Type.Optional(MqttText),
      userName: Type.Optional(MqttText),
      password: Type.Optional(MqttText),
    },
    { additionalProperties: false },
  ),
  Type.Object({ type: Type.Literal('x509'), pem: Pem }, { additionalProperties: false }),
])
export type Credentials = Static<typeof Credentials>

export const CreatedDevice = Type.Object({ ...Device.properties, credentials: Credentials })
export const Rotate = Type.Object(
  { graceSeconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 604_800, default: 0 })) },
  { additionalProperties: false },
)

export const LogEntry = Type.Object({ id: Id, at: Instant, event: Type.String(), detail: Type.Record(Type.String(), Type.Unknown()) })
export type LogEntry = Static<typeof LogEntry>

export const Reject = Type.Object({
  id: Id,
  code: Type.String(),
  detail: Type.String(),
  transport: Type.String(),
  topic: Type.String(),
  key: Nullable(Type.String()),
  ts: Nullable(Type.Number()),
  sample: Type.String(),
  packetId: Nullable(Type.Integer()),
  clientId: Nullable(Type.String()),
  address: Type.String(),
  count: Type.Integer(),
  firstAt: Instant,
  lastAt: Instant,
})

export const SessionView = Type.Object({
  session: Nullable(
    Type.Object({
      protocol: Type.Integer(),
      clientId: Type.String(),
      address: Type.String(),
      tls: Type.Boolean(),
      keepAliveS: Type.Integer(),
      connectedAt: Instant,
      messagesIn: Type.Integer(),
      pointsIn: Type.Integer(),
      inFlight: Type.Integer(),
      subscriptions: Type.Array(Type.String()),
    }),
  ),
  /** The session of a child, inside that of its gateway. */
  gateway: Nullable(Type.Object({ id: Id, name: Type.String(), connectedAt: Instant, lastActivityAt: Instant })),
  events: Type.Array(LogEntry),
})

export const BinItem = Type.Object({
  kind: Type.Literal('device'),
  id: Id,
  name: Type.String(),
  deletedAt: Instant,
  deletedBy: Type.String(),
  daysLeft: Type.Integer(),
})
export const BinIds = Type.Object({ ids: Type.Array(Id, { minItems: 1, maxItems: 500 }) }, { additionalProperties: false })
