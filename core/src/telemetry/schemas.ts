// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { aggregations } from './aggregate.ts'
import { calendarUnits } from './buckets.ts'
import { downsampleModes } from './downsample.ts'
import { valueKinds } from './points.ts'

function oneOf<T extends string>(values: readonly T[]) {
  return Type.Unsafe<T>({ type: 'string', enum: [...values] })
}

/** `keys=a,b`, or `key=` once for each, taken literally; `key` wins. */
export const keyQuery = {
  keys: Type.Optional(Type.String({ description: 'Keys separated by commas.' })),
  key: Type.Optional(
    Type.Union([Type.String(), Type.Array(Type.String())], {
      description: 'A key as it is, also with commas; may be repeated. Wins over `keys`.',
    }),
  ),
}

const Time = Type.String({ maxLength: 40, description: 'ms since 1970 UTC, or RFC 3339.' })
const agg = aggregations.join('|')

const historyMembers = {
  ...keyQuery,
  from: Time,
  to: Time,
  agg: Type.Optional(
    Type.String({
      pattern: `^(NONE|(${agg})(,(${agg})){0,4})$`,
      default: 'NONE',
      description: 'NONE, or up to five aggregations separated by commas.',
    }),
  ),
  intervalType: Type.Optional(oneOf(['fixed', ...calendarUnits])),
  interval: Type.Optional(Type.Integer({ minimum: 1, description: 'ms for `fixed` (at least 1,000), else how many units (default 1).' })),
  timeZone: Type.Optional(Type.String({ description: "IANA name; default the device's, else the installation's." })),
  weekStart: Type.Optional(oneOf(['MON', 'SUN'])),
  counter: Type.Optional(oneOf(['monotonic', 'signed'])),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000, description: 'Raw points per key.' })),
  order: Type.Optional(oneOf(['asc', 'desc'])),
  downsample: Type.Optional(oneOf(downsampleModes)),
  points: Type.Optional(
    Type.Integer({ minimum: 10, maximum: 10_000, description: 'Most points per key after downsampling (default 1,000).' }),
  ),
}

export const HistoryQuery = Type.Object(
  { ...historyMembers, cursor: Type.Optional(Type.String({ maxLength: 2000 })) },
  { additionalProperties: false },
)
export type HistoryQuery = Static<typeof HistoryQuery>

export const ExportQuery = Type.Object(
  { ...historyMembers, format: oneOf(['csv']), layout: Type.Optional(oneOf(['long', 'wide'])), lang: Type.Optional(oneOf(['zh', 'en'])) },
  { additionalProperties: false },
)
export type ExportQuery = Static<typeof ExportQuery>

/** A value of any kind; integers beyond ±(2⁵³−1) as strings of their digits. */
const AnyValue = Type.Unknown()

export const History = Type.Object({
  from: Type.Integer(),
  to: Type.Integer(),
  timeZone: Type.String(),
  series: Type.Array(
    Type.Object({
      key: Type.String(),
      agg: oneOf(['NONE', ...aggregations]),
      points: Type.Array(Type.Array(AnyValue), { description: 'Pairs of time (ms) and value.' }),
      int64: Type.Optional(Type.Literal(true, { description: 'Some integers are strings of their digits.' })),
    }),
  ),
  sourcePoints: Type.Integer(),
  downsampled: Type.Boolean(),
  nextCursor: Type.Union([Type.String(), Type.Null()]),
})

export const LatestQuery = Type.Object(keyQuery, { additionalProperties: false })
export const LatestValues = Type.Object({
  items: Type.Array(Type.Object({ key: Type.String(), ts: Type.Integer(), value: AnyValue, kind: oneOf(valueKinds) })),
})
export const TelemetryKeys = Type.Object({
  items: Type.Array(Type.Object({ key: Type.String(), kind: oneOf(valueKinds), lastTs: Type.Integer() })),
})

export const DeleteQuery = Type.Object({ ...keyQuery, from: Time, to: Time }, { additionalProperties: false })
export const Deleted = Type.Object({ deleted: Type.Integer({ description: 'How many points are gone.' }) })

export const Written = Type.Object({
  accepted: Type.Integer(),
  rejected: Type.Array(
    Type.Object({ code: Type.String(), detail: Type.String(), key: Type.Optional(Type.String()), ts: Type.Optional(Type.Number()) }),
  ),
})

/** Ids are checked by hand: a malformed one is no device's, and each API says so in its own way. */
export const DeviceParams = Type.Object({ id: Type.String() })
/** Queries of routes without parameters. */
export const NoQuery = Type.Object({}, { additionalProperties: false })
