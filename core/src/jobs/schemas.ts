// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant, Nullable, pageQuery } from '../http/schemas.ts'

const Title = Type.Object({ zh: Type.String(), en: Type.String() })
const Data = Type.Record(Type.String(), Type.Unknown())
export const QueueName = Type.String({ pattern: '^[a-z][a-z0-9.-]{0,67}$' })
export const QueueParams = Type.Object({ queue: QueueName })
export const QueueJobParams = Type.Object({ queue: QueueName, id: Id })

export const QueueView = Type.Object({
  name: Type.String(),
  title: Nullable(Title),
  /** False: left from an older release, and kept. */
  hasHandler: Type.Boolean(),
  ready: Type.Integer(),
  deferred: Type.Integer(),
  active: Type.Integer(),
  failed: Type.Integer(),
  dead: Type.Integer(),
  oldestReadyMs: Nullable(Type.Integer()),
  completedPerMinute: Nullable(Type.Number()),
  failedPerMinute: Nullable(Type.Number()),
})
export type QueueView = Static<typeof QueueView>

export const QueuePoint = Type.Object({
  at: Instant,
  ready: Type.Integer(),
  active: Type.Integer(),
  completed: Nullable(Type.Integer()),
  failed: Nullable(Type.Integer()),
})

export const JobSummary = Type.Object({
  id: Id,
  state: Type.String(),
  priority: Type.Integer(),
  group: Nullable(Type.String()),
  attempt: Type.Integer(),
  retryLimit: Type.Integer(),
  createdAt: Instant,
  startAfter: Instant,
  startedAt: Nullable(Instant),
  completedAt: Nullable(Instant),
})

export const JobDetail = Type.Object({
  ...JobSummary.properties,
  queue: Type.String(),
  data: Type.Unknown(),
  output: Type.Unknown(),
  source: Nullable(Type.Object({ queue: Type.String(), id: Nullable(Type.String()), attempts: Nullable(Type.Integer()) })),
})
export type JobDetail = Static<typeof JobDetail>

export const JobsQuery = Type.Object(
  {
    ...pageQuery,
    state: Type.Optional(
      Type.Union(['created', 'retry', 'active', 'completed', 'cancelled', 'failed'].map((state) => Type.Literal(state))),
    ),
    group: Type.Optional(Type.String({ maxLength: 200 })),
    from: Type.Optional(Instant),
    to: Type.Optional(Instant),
  },
  { additionalProperties: false },
)

export const Redrive = Type.Object(
  {
    ids: Type.Optional(Type.Array(Id, { minItems: 1, maxItems: 1000 })),
    sourceName: Type.Optional(QueueName),
    createdBefore: Type.Optional(Instant),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
    dryRun: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)
export const Redriven = Type.Object({
  total: Type.Integer(),
  destinations: Type.Array(Type.Object({ name: Type.String(), count: Type.Integer() })),
  unroutable: Type.Integer(),
  moved: Type.Integer(),
})

export const WorkerView = Type.Object({
  name: Type.String(),
  state: Type.String(),
  score: Type.Integer(),
  runs: Type.Integer(),
  errors: Type.Integer(),
  restarts: Type.Integer(),
  since: Instant,
  lastRunAt: Nullable(Instant),
  lastError: Nullable(Type.String()),
  reason: Nullable(Type.String()),
})

const Zone = Type.String({ minLength: 1, maxLength: 64 })
const Cron = Type.String({ minLength: 9, maxLength: 200 })
const schedule = {
  name: Type.String({ pattern: '\\S', minLength: 1, maxLength: 100 }),
  queue: QueueName,
  cron: Cron,
  zone: Zone,
  data: Data,
  missed: Type.Union([Type.Literal('once'), Type.Literal('skip')]),
  overlap: Type.Union([Type.Literal('allow'), Type.Literal('skip')]),
  jitterMs: Type.Integer({ minimum: 0, maximum: 3_600_000 }),
  enabled: Type.Boolean(),
}
export const Schedule = Type.Object({
  id: Id,
  ...schedule,
  ownerId: Nullable(Id),
  nextAt: Nullable(Instant),
  /** The next three instants. */
  next: Type.Array(Instant),
  lastAt: Nullable(Instant),
  lastOutcome: Nullable(Type.String()),
  createdAt: Instant,
  updatedAt: Instant,
})
export type ScheduleView = Static<typeof Schedule>
const { name, queue, cron, ...optional } = schedule
export const ScheduleCreate = Type.Object(
  { name, queue, cron, ...Type.Partial(Type.Object(optional)).properties },
  { additionalProperties: false },
)
export const SchedulePatch = Type.Partial(Type.Object(schedule, { additionalProperties: false }), { minProperties: 1 })
export const PreviewQuery = Type.Object(
  { cron: Cron, zone: Type.Optional(Zone), count: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 10 })) },
  { additionalProperties: false },
)

export const Quarantined = Type.Object({ queue: Type.String(), hash: Type.String(), failures: Type.Integer(), since: Instant })
export const Release = Type.Object({ queue: QueueName, hash: Type.String({ pattern: '^[0-9a-f]{64}$' }) }, { additionalProperties: false })

export const MachineView = Type.Object({
  machine: Type.String(),
  key: Type.String(),
  state: Type.String(),
  version: Type.Integer(),
  updatedAt: Instant,
  events: Type.Array(
    Type.Object({
      id: Id,
      version: Type.Integer(),
      event: Type.String(),
      fromState: Type.String(),
      toState: Type.String(),
      actor: Type.String(),
      outcome: Type.String(),
      at: Instant,
    }),
  ),
})
