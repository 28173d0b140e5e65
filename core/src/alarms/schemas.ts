// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant, Nullable, pageQuery } from '../http/schemas.ts'
import { severities } from '../rules/schemas.ts'

function Choice<const T extends readonly string[]>(...values: T) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: values })
}
const closed = { additionalProperties: false }

const AlarmSeverity = Choice(...severities)
export type AlarmSeverity = (typeof severities)[number]
/** ms since 1970 UTC. */
const Ts = Type.Integer()
const Comment = Type.String({ maxLength: 2000 })

/** An alarm; members ending in Ts are ms since 1970 on the clock of events. */
export const Alarm = Type.Object({
  id: Id,
  deviceId: Nullable(Id),
  deviceName: Nullable(Type.String()),
  source: Type.String(),
  ruleId: Nullable(Id),
  ruleVersion: Nullable(Type.Integer()),
  type: Type.String(),
  instance: Type.String(),
  severity: AlarmSeverity,
  highestSeverity: AlarmSeverity,
  status: Choice('active', 'cleared'),
  startTs: Ts,
  confirmedTs: Ts,
  endTs: Nullable(Ts),
  clearedTs: Nullable(Ts),
  clearReason: Nullable(Type.String()),
  acked: Type.Boolean(),
  ackedAt: Nullable(Instant),
  ackedBy: Nullable(Type.String()),
  assigneeId: Nullable(Id),
  assigneeName: Nullable(Type.String()),
  title: Type.String(),
  labels: Type.Record(Type.String(), Type.String()),
  trigger: Type.Record(Type.String(), Type.Unknown()),
  episodes: Type.Integer(),
  lastEventAt: Instant,
})
export type Alarm = Static<typeof Alarm>

export const AlarmEvent = Type.Object({
  id: Id,
  at: Instant,
  /** Who it was; null for the system. */
  actor: Nullable(Type.String()),
  kind: Type.String(),
  data: Type.Record(Type.String(), Type.Unknown()),
})
export type AlarmEvent = Static<typeof AlarmEvent>

const filter = {
  status: Type.Optional(Choice('active', 'cleared')),
  acked: Type.Optional(Type.Boolean()),
  severity: Type.Optional(AlarmSeverity),
  deviceId: Type.Optional(Id),
  ruleId: Type.Optional(Id),
  assigneeId: Type.Optional(Id),
  type: Type.Optional(Type.String({ maxLength: 255 })),
  from: Type.Optional(Ts),
  to: Type.Optional(Ts),
  q: Type.Optional(Type.String({ maxLength: 255 })),
}
export const AlarmFilter = Type.Object(filter, closed)
export type AlarmFilter = Static<typeof AlarmFilter>

/** Without `sort`, what is active and not acknowledged comes first. */
export const AlarmListQuery = Type.Object(
  { ...filter, ...pageQuery, sort: Type.Optional(Choice('desk', '-startTs')), count: Type.Optional(Choice('exact')) },
  closed,
)
export type AlarmListQuery = Static<typeof AlarmListQuery>

export const AlarmCreate = Type.Object(
  {
    deviceId: Id,
    type: Type.String({ minLength: 1, maxLength: 255, pattern: '\\S' }),
    severity: AlarmSeverity,
    title: Type.String({ minLength: 1, maxLength: 500 }),
    instance: Type.Optional(Type.String({ maxLength: 255 })),
    labels: Type.Optional(
      Type.Record(Type.String({ pattern: '^[a-z_][a-z0-9_]{0,62}$' }), Type.String({ maxLength: 256 }), { maxProperties: 20 }),
    ),
    startTs: Type.Optional(Type.Integer({ minimum: 1 })),
  },
  closed,
)
export type AlarmCreate = Static<typeof AlarmCreate>

export const AlarmAction = Type.Object({ comment: Type.Optional(Comment) }, closed)
/** Without an assignee nobody has it any more. */
export const AlarmAssign = Type.Object({ assigneeId: Type.Optional(Nullable(Id)), comment: Type.Optional(Comment) }, closed)
export const AlarmComment = Type.Object({ comment: Type.String({ minLength: 1, maxLength: 2000, pattern: '\\S' }) }, closed)

export const bulkActions = ['ack', 'unack', 'clear', 'delete'] as const
export const AlarmBulk = Type.Object(
  {
    ids: Type.Array(Id, { minItems: 1, maxItems: 200, uniqueItems: true }),
    action: Choice(...bulkActions),
    comment: Type.Optional(Comment),
  },
  closed,
)
export type AlarmBulk = Static<typeof AlarmBulk>
export const AlarmBulkResult = Type.Object({
  items: Type.Array(Type.Object({ id: Id, ok: Type.Boolean(), code: Nullable(Type.String()) })),
})
export type AlarmBulkResult = Static<typeof AlarmBulkResult>

const Counts = Type.Object({
  active: Type.Integer(),
  activeUnacked: Type.Integer(),
  cleared: Type.Integer(),
  clearedUnacked: Type.Integer(),
})
export const AlarmSummary = Type.Object({
  bySeverity: Type.Object({ critical: Counts, major: Counts, minor: Counts, warning: Counts }),
  /** Highest severity of what is active at each device asked for; devices without are left out. */
  devices: Type.Record(Type.String(), AlarmSeverity),
})
export type AlarmSummary = Static<typeof AlarmSummary>
