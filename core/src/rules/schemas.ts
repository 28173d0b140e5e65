// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant, Nullable, pageQuery } from '../http/schemas.ts'
import { weekdays } from './schedule.ts'

function Choice<const T extends readonly string[]>(...values: T) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: values })
}
const closed = { additionalProperties: false }

/** Highest first. */
export const severities = ['critical', 'major', 'minor', 'warning'] as const
export const Severity = Choice(...severities)
export type Severity = (typeof severities)[number]

/** A tree of `all`, `any` and `not` over leaves. It is read by the condition compiler, which names what is wrong with which member. */
const Condition = Type.Unsafe<Readonly<Record<string, unknown>>>({
  type: 'object',
  description: 'A tree of all, any and not over leaves: comparisons, noData, connection, changed.',
})

export const RuleLevel = Type.Object(
  {
    severity: Type.Optional(Severity),
    when: Condition,
    forMs: Type.Optional(Type.Number()),
    repeat: Type.Optional(
      Type.Object({ count: Type.Number(), withinMs: Type.Number(), consecutive: Type.Optional(Type.Boolean()) }, closed),
    ),
  },
  closed,
)
export type RuleLevel = Static<typeof RuleLevel>

/** `from` after `to` crosses midnight and belongs to the day it starts on. */
export const RuleSchedule = Type.Object(
  {
    zone: Type.String({ maxLength: 100 }),
    windows: Type.Array(
      Type.Object(
        {
          days: Type.Array(Choice(...weekdays), { minItems: 1, maxItems: 7, uniqueItems: true }),
          from: Type.String({ pattern: '^([01][0-9]|2[0-3]):[0-5][0-9]$' }),
          to: Type.String({ pattern: '^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$' }),
        },
        closed,
      ),
      { maxItems: 20 },
    ),
    outside: Type.Optional(Choice('hold', 'clear')),
  },
  closed,
)
export type RuleSchedule = Static<typeof RuleSchedule>

/** What decides whether and when an alarm is: all that a preview needs. */
const logic = {
  levels: Type.Array(RuleLevel, { minItems: 1, maxItems: 4 }),
  clear: Type.Optional(Type.Object({ when: Type.Optional(Nullable(Condition)), forMs: Type.Optional(Type.Number()) }, closed)),
  schedule: Type.Optional(Nullable(RuleSchedule)),
  manualClear: Type.Optional(Choice('untilFalse', 'rearm')),
}
export const RuleLogic = Type.Object(logic, closed)
export type RuleLogic = Static<typeof RuleLogic>

const Ids = Type.Array(Id, { maxItems: 500, uniqueItems: true })
const Tags = Type.Array(Type.String({ minLength: 1, maxLength: 100 }), { maxItems: 100, uniqueItems: true })

/** The union of its lists without what is excluded; `all` stands alone. */
export const RuleTarget = Type.Object(
  {
    productIds: Type.Optional(Ids),
    groupIds: Type.Optional(Ids),
    deviceIds: Type.Optional(Ids),
    tags: Type.Optional(Tags),
    all: Type.Optional(Type.Boolean()),
    exclude: Type.Optional(Type.Object({ deviceIds: Type.Optional(Ids), groupIds: Type.Optional(Ids), tags: Type.Optional(Tags) }, closed)),
  },
  closed,
)
export type RuleTarget = Static<typeof RuleTarget>

/** An alarm rule as it is written [2]. */
export const AlarmRule = Type.Object(
  {
    kind: Type.Literal('alarm'),
    name: Type.String({ minLength: 1, maxLength: 100, pattern: '\\S' }),
    mode: Type.Optional(Choice('on', 'dryRun', 'off')),
    target: RuleTarget,
    ...logic,
    reopenWithinMs: Type.Optional(Type.Number()),
    lateActions: Type.Optional(Choice('notify', 'all', 'none')),
    onDisable: Type.Optional(Choice('clear', 'keep')),
    title: Type.Optional(
      Type.Object({ zh: Type.Optional(Type.String({ maxLength: 500 })), en: Type.Optional(Type.String({ maxLength: 500 })) }, closed),
    ),
    labels: Type.Optional(Type.Record(Type.String(), Type.String({ maxLength: 256 }), { maxProperties: 20 })),
    /** Each is read by its own schema, which names what is wrong with which member. */
    actions: Type.Optional(Type.Array(Type.Unsafe<Readonly<Record<string, unknown>>>({ type: 'object' }), { maxItems: 20 })),
  },
  closed,
)
export type AlarmRule = Static<typeof AlarmRule>

/** A document as it comes: what is wrong with it is told by the compiler, all of it at once. */
export const RuleDocument = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  additionalProperties: true,
  description: 'A rule: kind alarm with target, levels, clear, schedule, title, labels and actions.',
})

/** A rule as it is saved; `state` is failing while it rests because it threw again and again. */
export const RuleView = Type.Object({
  id: Id,
  kind: Choice('alarm', 'calculated'),
  name: Type.String(),
  mode: Choice('on', 'dryRun', 'off'),
  version: Type.Integer(),
  state: Choice('ok', 'failing'),
  failure: Nullable(Type.String()),
  rule: RuleDocument,
  createdAt: Instant,
  updatedAt: Instant,
  updatedBy: Type.String(),
})
export type RuleView = Static<typeof RuleView>

export const RuleListQuery = Type.Object(
  {
    ...pageQuery,
    kind: Type.Optional(Choice('alarm', 'calculated')),
    mode: Type.Optional(Choice('on', 'dryRun', 'off')),
    state: Type.Optional(Choice('ok', 'failing')),
    deviceId: Type.Optional(Id),
    q: Type.Optional(Type.String({ maxLength: 255 })),
  },
  closed,
)
export type RuleListQuery = Static<typeof RuleListQuery>

export const RuleVersion = Type.Object({
  version: Type.Integer(),
  rule: RuleDocument,
  author: Type.String(),
  note: Type.String(),
  createdAt: Instant,
})
export type RuleVersion = Static<typeof RuleVersion>

export const RuleRestore = Type.Object({ version: Type.Integer({ minimum: 1 }) }, closed)
/** A note about the change, for the list of versions. */
export const RuleNote = Type.Object({ note: Type.Optional(Type.String({ maxLength: 500 })) }, closed)

export const RuleDryRun = Type.Object({
  id: Id,
  deviceId: Id,
  deviceName: Type.String(),
  at: Instant,
  kind: Type.String(),
  data: Type.Record(Type.String(), Type.Unknown()),
})
export type RuleDryRun = Static<typeof RuleDryRun>

export const ruleBulkActions = ['enable', 'disable', 'dryRun', 'delete'] as const
export const RuleBulk = Type.Object(
  { ids: Type.Array(Id, { minItems: 1, maxItems: 500, uniqueItems: true }), action: Choice(...ruleBulkActions) },
  closed,
)
export type RuleBulk = Static<typeof RuleBulk>
export const RuleBulkResult = Type.Object({
  items: Type.Array(Type.Object({ id: Id, ok: Type.Boolean(), code: Nullable(Type.String()) })),
})

export const RuleRun = Type.Object({
  id: Id,
  alarmId: Id,
  deviceId: Nullable(Id),
  type: Type.String(),
  outcome: Choice('done', 'failed', 'suppressed'),
  detail: Nullable(Type.String()),
  at: Instant,
})
export type RuleRun = Static<typeof RuleRun>

const PreviewValue = Type.Union([Type.Number(), Type.String(), Type.Boolean(), Type.Null()])
/** Either points that are sent along, or the history of these devices, or of some that the rule is for. */
export const RulePreview = Type.Object(
  {
    rule: Type.Unsafe<Record<string, unknown>>({ type: 'object', additionalProperties: true }),
    from: Type.Integer({ minimum: 0 }),
    to: Type.Integer({ minimum: 0 }),
    deviceIds: Type.Optional(Type.Array(Id, { minItems: 1, maxItems: 20, uniqueItems: true })),
    sample: Type.Optional(Type.Integer({ minimum: 1, maximum: 20 })),
    /** [key, ts, value] or [key, ts, value, receivedAt]. */
    points: Type.Optional(
      Type.Array(
        Type.Unsafe<[key: string, ts: number, value: Static<typeof PreviewValue>, receivedAt?: number]>({
          type: 'array',
          minItems: 3,
          maxItems: 4,
          prefixItems: [{ type: 'string' }, { type: 'integer' }, PreviewValue, { type: 'integer' }],
        }),
        { maxItems: 10_000 },
      ),
    ),
    attributes: Type.Optional(Type.Record(Type.String(), PreviewValue)),
    /** [at, name, value] */
    attributeChanges: Type.Optional(
      Type.Array(
        Type.Unsafe<[at: number, name: string, value: Static<typeof PreviewValue>]>({
          type: 'array',
          minItems: 3,
          maxItems: 3,
          prefixItems: [{ type: 'integer' }, { type: 'string' }, PreviewValue],
        }),
        { maxItems: 1000 },
      ),
    ),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
  },
  closed,
)
export type RulePreview = Static<typeof RulePreview>

export const RulePreviewed = Type.Object({
  episodes: Type.Array(
    Type.Object({
      deviceId: Nullable(Id),
      startTs: Type.Number(),
      confirmedTs: Type.Number(),
      endTs: Nullable(Type.Number()),
      clearedTs: Nullable(Type.Number()),
      severities: Type.Array(Type.Object({ ts: Type.Number(), severity: Severity })),
    }),
  ),
  evaluations: Type.Integer(),
  points: Type.Integer(),
  late: Type.Integer(),
  /** Not all of it: too many episodes, a window that holds too much, or ten seconds were over. */
  truncated: Type.Boolean(),
  tookMs: Type.Integer(),
})
export type RulePreviewed = Static<typeof RulePreviewed>
