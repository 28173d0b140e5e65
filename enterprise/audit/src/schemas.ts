// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { Id, Instant, Nullable, pageQuery } from '@iot-pms/core'
import { Type } from 'typebox'
import type { Static } from 'typebox'

const closed = { additionalProperties: false } as const
const OutcomeName = Type.String({ enum: ['success', 'failure', 'denied'] })

/** Which chain is asked for; that of the platform is for its own administrators. */
export const ChainQuery = { chain: Type.Optional(Type.Union([Type.Literal('own'), Type.Literal('platform')])) }

const FilterFields = {
  type: Type.Optional(Type.String({ pattern: '^[a-z][a-z0-9_]*(\\.[a-z0-9_]+)*\\.?$', maxLength: 60 })),
  actor: Type.Optional(Type.String({ maxLength: 200 })),
  subject: Type.Optional(Type.String({ maxLength: 200 })),
  outcome: Type.Optional(OutcomeName),
  from: Type.Optional(Instant),
  to: Type.Optional(Instant),
  q: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
  ip: Type.Optional(Type.String({ maxLength: 64 })),
  requestId: Type.Optional(Type.String({ maxLength: 64 })),
}
export const EventQuery = Type.Object({ ...FilterFields, ...ChainQuery, ...pageQuery }, closed)
export type EventQuery = Static<typeof EventQuery>

/** As it was hashed; `data` holds outcome, actor, target, changes and context. */
export const AuditEvent = Type.Object(
  {
    v: Type.Integer(),
    stream: Type.String(),
    seq: Type.Integer(),
    ts: Type.String(),
    type: Type.String(),
    actor: Type.String(),
    subject: Type.String(),
    data: Type.Unknown(),
    hash: Type.String(),
  },
  { $id: 'Audit.Event' },
)
export const AuditEventRef = Type.Unsafe<Record<string, unknown>>({ $ref: 'Audit.Event#' })
export const OneEvent = Type.Object({
  event: AuditEventRef,
  prev: Type.String(),
  /** Undefined where retention has taken neighbours away, or no checkpoint covers it yet. */
  proof: Nullable(Type.Object({ size: Type.Integer(), root: Type.String(), path: Type.Array(Type.String()), checkpoint: Type.Unknown() })),
})

export const ExportBody = Type.Object(
  {
    format: Type.Union([Type.Literal('jsonl'), Type.Literal('cef'), Type.Literal('ocsf'), Type.Literal('csv'), Type.Literal('bundle')]),
    ...ChainQuery,
    from: Type.Optional(Instant),
    to: Type.Optional(Instant),
    filter: Type.Optional(Type.Object({ ...FilterFields, from: Type.Optional(Type.Never()), to: Type.Optional(Type.Never()) }, closed)),
  },
  closed,
)
export type ExportBody = Static<typeof ExportBody>

export const VerifyBody = Type.Object({ ...ChainQuery }, closed)
export const Verification = Type.Object({
  stream: Type.String(),
  ok: Type.Boolean(),
  findings: Type.Array(Type.Unknown()),
  firstSeq: Type.Integer(),
  lastSeq: Type.Integer(),
  anchoredTo: Type.Integer(),
  unanchored: Type.Integer(),
})
export const ChainView = Type.Object({
  stream: Type.String(),
  chain: Type.String(),
  firstSeq: Type.Integer(),
  headSeq: Type.Integer(),
  headHash: Type.String(),
  checkpointSize: Type.Integer(),
  checkpointAt: Nullable(Instant),
  /** Covered by a checkpoint that has left the database. */
  anchoredTo: Type.Integer(),
  /** `machine`: only files of this server have it; `elsewhere`: another system, too. */
  anchoredAt: Type.String({ enum: ['nowhere', 'machine', 'elsewhere'] }),
})
export const KeyView = Type.Object({ id: Type.String(), publicKey: Type.String(), createdAt: Instant })

const SettingsFields = {
  auditDays: Type.Integer({ minimum: 0, maximum: 36_500 }),
  maskNames: Type.Array(Type.String({ minLength: 1, maxLength: 60 }), { maxItems: 100 }),
}
export const SettingsView = Type.Object({
  ...SettingsFields,
  pendingDays: Nullable(Type.Integer()),
  pendingAt: Nullable(Instant),
  /** Events that the shorter time will take away. */
  toDelete: Type.Integer(),
})
export const SettingsBody = Type.Object(
  { auditDays: Type.Optional(SettingsFields.auditDays), maskNames: Type.Optional(SettingsFields.maskNames) },
  { ...closed, minProperties: 1 },
)

const Port = Type.Integer({ minimum: 1, maximum: 65_535 })
const Ca = Type.Optional(Type.String({ maxLength: 20_000 }))
const FileTarget = Type.Object({ kind: Type.Literal('file') }, closed)
const HttpTarget = Type.Object(
  {
    kind: Type.Literal('http'),
    url: Type.String({ minLength: 8, maxLength: 2000 }),
    secret: Type.String({ minLength: 16, maxLength: 200 }),
    headers: Type.Optional(
      Type.Record(Type.String({ pattern: '^[A-Za-z0-9-]{1,60}$' }), Type.String({ maxLength: 1000, pattern: '^[\\x20-\\x7e]*$' }), {
        maxProperties: 20,
      }),
    ),
    ca: Ca,
  },
  closed,
)
const SyslogTarget = Type.Object(
  {
    kind: Type.Literal('syslog'),
    host: Type.String({ minLength: 1, maxLength: 253 }),
    port: Port,
    tls: Type.Boolean(),
    format: Type.Union([Type.Literal('cef'), Type.Literal('json')]),
    ca: Ca,
  },
  closed,
)
export const SinkTarget = Type.Union([FileTarget, HttpTarget, SyslogTarget])
export type SinkTarget = Static<typeof SinkTarget>
export type HttpTarget = Static<typeof HttpTarget>
export type SyslogTarget = Static<typeof SyslogTarget>
export type SinkKind = SinkTarget['kind']

const Chains = Type.Union([Type.Literal('own'), Type.Literal('platform'), Type.Literal('both')])
const SinkName = Type.String({ minLength: 1, maxLength: 100 })
export const SinkCreate = Type.Object(
  { name: SinkName, target: SinkTarget, enabled: Type.Optional(Type.Boolean()), chains: Type.Optional(Chains) },
  closed,
)
export type SinkCreate = Static<typeof SinkCreate>
export const SinkPatch = Type.Object(
  {
    name: Type.Optional(SinkName),
    target: Type.Optional(SinkTarget),
    enabled: Type.Optional(Type.Boolean()),
    chains: Type.Optional(Chains),
  },
  { ...closed, minProperties: 1 },
)
export type SinkPatch = Static<typeof SinkPatch>
export const SinkView = Type.Object({
  id: Id,
  name: Type.String(),
  kind: Type.String({ enum: ['file', 'http', 'syslog'] }),
  enabled: Type.Boolean(),
  chains: Type.String({ enum: ['own', 'platform', 'both'] }),
  updatedAt: Instant,
  failingSince: Nullable(Instant),
  /** Of the chain that is furthest behind. */
  deliveredSeq: Type.Integer(),
})
export type SinkView = Static<typeof SinkView>
