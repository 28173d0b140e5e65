// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static, TSchema } from 'typebox'
import { Id, Instant, Nullable } from '../http/schemas.ts'

const Name = Type.String({ minLength: 1, maxLength: 255, pattern: '\\S' })
/** Filters, paths and templates are looked at closer where they are compiled. */
const Filter = Type.String({ minLength: 1, maxLength: 512 })
const Path = Type.String({ maxLength: 256 })
const Template = Type.String({ maxLength: 512 })

function Choice<const T extends readonly string[]>(...values: T) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: values })
}

export const timeUnits = ['ms', 's', 'us', 'ns', 'iso'] as const
const casts = ['number', 'text', 'boolean'] as const

/** One value that is picked out of a payload. Without `key` it has the last name of its path. */
export const Selection = Type.Object(
  {
    path: Type.String({ minLength: 1, maxLength: 256 }),
    key: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    as: Type.Optional(Choice(...casts)),
    scale: Type.Optional(Type.Number()),
    offset: Type.Optional(Type.Number()),
  },
  { additionalProperties: false },
)
export type Selection = Static<typeof Selection>

/** What becomes of the messages on the topics of one filter. The first rule whose filter matches decides. */
const rule = {
  kind: Choice('telemetry', 'attributes', 'ignore'),
  /** Names the device: text with `{topic.2}`, `{topic.2-}` and `{payload.a.b}`. */
  name: Template,
  /** Names the product of a device that is new; empty for the default one. */
  product: Template,
  decoder: Choice('json', 'number', 'text'),
  /** Key of a payload that is one value. */
  key: Template,
  /** The object all members of which are values; empty for the payload itself, null for none. */
  members: Nullable(Path),
  /** Whether members of inner objects become values of their own, `a.b`, or the object one JSON value. */
  flatten: Type.Boolean(),
  /** Keys that are left out of the members. */
  omit: Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { maxItems: 100 }),
  values: Type.Array(Selection, { maxItems: 200 }),
  /** Where the time of measurement stands; null for the time of receipt. */
  time: Nullable(
    Type.Object({ path: Type.String({ minLength: 1, maxLength: 256 }), unit: Choice(...timeUnits) }, { additionalProperties: false }),
  ),
}
export const Rule = Type.Object({ topic: Filter, ...rule }, { additionalProperties: false })
export type Rule = Static<typeof Rule>
/** A rule as it may be given: what is left out has its default. */
export const RuleInput = Type.Object({ topic: Filter, ...Type.Partial(Type.Object(rule)).properties }, { additionalProperties: false })
export type RuleInput = Static<typeof RuleInput>

/** @returns the rule with every default filled in */
export function completeRule(input: RuleInput): Rule {
  return {
    kind: 'telemetry',
    name: '',
    product: '',
    decoder: 'json',
    key: 'value',
    members: '',
    flatten: false,
    omit: [],
    values: [],
    time: null,
    ...input,
  }
}

const settings = {
  url: Type.String({ minLength: 1, maxLength: 512 }),
  protocolVersion: Type.Union([Type.Literal(5), Type.Literal(4)]),
  clientId: Type.String({ maxLength: 128, pattern: '^[^\\u0000-\\u001f\\u007f]*$' }),
  username: Type.String({ maxLength: 256 }),
  /** PEM of the authority that signed the broker's certificate; empty for the public ones. */
  caCertificate: Type.String({ maxLength: 65_536 }),
  /** Whether the broker keeps what comes while we are away. */
  persistent: Type.Boolean(),
  topics: Type.Array(Filter, { minItems: 1, maxItems: 100, uniqueItems: true }),
}
const Rules = Type.Array(RuleInput, { minItems: 1, maxItems: 100 })
const Password = Type.String({ maxLength: 512 })

/** How a broker is reached, and what of it is wanted. */
export type Settings = Static<ReturnType<typeof connection>>
const connection = () => Type.Object(settings)

function optional<T extends Record<string, TSchema>>(members: T) {
  return Type.Partial(Type.Object(members)).properties
}
const { url, topics, ...defaulted } = settings

export const ConnectorCreate = Type.Object(
  {
    name: Name,
    enabled: Type.Optional(Type.Boolean()),
    url,
    topics,
    ...optional(defaulted),
    password: Type.Optional(Password),
    rules: Rules,
  },
  { additionalProperties: false },
)
export type ConnectorCreate = Static<typeof ConnectorCreate>

/** `password: null` takes it away; left out it stays. */
export const ConnectorPatch = Type.Object(
  {
    ...optional({ name: Name, enabled: Type.Boolean(), ...settings, rules: Rules }),
    password: Type.Optional(Nullable(Password)),
  },
  { additionalProperties: false, minProperties: 1 },
)
export type ConnectorPatch = Static<typeof ConnectorPatch>

/** A connection to try out. `id` names the connector whose stored password is used when none is given. */
export const ConnectorTest = Type.Object(
  {
    id: Type.Optional(Id),
    url,
    topics,
    ...optional(defaulted),
    password: Type.Optional(Nullable(Password)),
    seconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 10 })),
  },
  { additionalProperties: false },
)
export type ConnectorTest = Static<typeof ConnectorTest>

/** Why a connection does not work; stable. */
export const failureCodes = [
  'DNS_FAILED',
  'CONNECTION_REFUSED',
  'CONNECTION_TIMEOUT',
  'UNREACHABLE',
  'TLS_FAILED',
  'ADDRESS_BLOCKED',
  'AUTH_FAILED',
  'NOT_AUTHORIZED',
  'REFUSED',
  'SUBSCRIBE_REFUSED',
  'PROTOCOL_ERROR',
  'CLOSED',
  'DEVICE_MISSING',
  'SEAL_BROKEN',
  'INTERNAL',
] as const
export type FailureCode = (typeof failureCodes)[number]
const Failure = Type.Object({ code: Choice(...failureCodes), detail: Type.String() })
export type Failure = Static<typeof Failure>

/** A message as the broker sent it; `payload` is cut, and base64 when it is no text. */
export const Sample = Type.Object({
  topic: Type.String(),
  payload: Type.String(),
  encoding: Choice('text', 'base64'),
  size: Type.Integer(),
  isCut: Type.Boolean(),
  qos: Type.Integer(),
  retain: Type.Boolean(),
  at: Instant,
})
export type Sample = Static<typeof Sample>

export const TestResult = Type.Object({ ok: Type.Boolean(), error: Nullable(Failure), messages: Type.Array(Sample) })
export type TestResult = Static<typeof TestResult>

export const PreviewRequest = Type.Object(
  {
    topic: Type.String({ minLength: 1, maxLength: 1024 }),
    payload: Type.String({ maxLength: 262_144 }),
    encoding: Type.Optional(Choice('text', 'base64')),
    rules: Rules,
  },
  { additionalProperties: false },
)
export type PreviewRequest = Static<typeof PreviewRequest>

const RejectView = Type.Object({ code: Type.String(), detail: Type.String(), key: Type.Optional(Type.String()) })
/** What would be stored: one item per device, values as JSON text. */
export const Preview = Type.Object({
  /** Index of the rule that decides; null when no filter matches. */
  rule: Nullable(Type.Integer()),
  ignored: Type.Boolean(),
  refused: Nullable(RejectView),
  items: Type.Array(
    Type.Object({
      device: Type.String(),
      product: Nullable(Type.String()),
      kind: Choice('telemetry', 'attributes'),
      /** Null for the time of receipt. */
      ts: Nullable(Instant),
      values: Type.Array(Type.Object({ key: Type.String(), kind: Type.String(), value: Type.String() })),
      rejects: Type.Array(RejectView),
    }),
  ),
})
export type Preview = Static<typeof Preview>

export const ConnectorStatus = Type.Object({
  state: Choice('off', 'connecting', 'connected', 'failing'),
  since: Instant,
  lastError: Nullable(Type.Object({ ...Failure.properties, at: Instant })),
  /** Set while it waits for the next attempt. */
  nextAttemptAt: Nullable(Instant),
  messagesPerMinute: Type.Integer(),
  /** Since the server started. */
  received: Type.Integer(),
  points: Type.Integer(),
  refused: Type.Integer(),
  /** Received and not yet acknowledged to the broker, and how long the oldest of them waits. */
  inFlight: Type.Integer(),
  oldestMs: Type.Integer(),
  lastMessageAt: Nullable(Instant),
})
export type ConnectorStatus = Static<typeof ConnectorStatus>

export const Connector = Type.Object({
  id: Id,
  name: Type.String(),
  enabled: Type.Boolean(),
  /** The device that stands for the connector: the gateway of its devices, where its refusals are listed. */
  deviceId: Nullable(Id),
  ...settings,
  hasPassword: Type.Boolean(),
  rules: Type.Array(Rule),
  status: ConnectorStatus,
  createdAt: Instant,
  updatedAt: Instant,
})
export type Connector = Static<typeof Connector>

export const Preset = Type.Object({
  id: Type.String(),
  topics: Type.Array(Type.String()),
  rules: Type.Array(Rule),
  example: Type.Object({ topic: Type.String(), payload: Type.String() }),
})
export type Preset = Static<typeof Preset>
