// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { aggregations } from './aggregate.ts'
import { calendarUnits } from './buckets.ts'
import { downsampleModes } from './downsample.ts'
import { fillModes } from './fill.ts'
import { valueKinds } from './points.ts'

function oneOf<T extends string>(values: readonly T[], more: { default?: T; description?: string } = {}) {
  return Type.Unsafe<T>({ type: 'string', enum: [...values], ...more })
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

/** Members that queries and bodies of history have in common. */
const historyMembers = {
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
  fill: Type.Optional(
    oneOf(fillModes, {
      default: 'none',
      description: 'What stands for an empty bucket: nothing, null, or the value before it in the range. Only with `agg`.',
    }),
  ),
  counter: Type.Optional(oneOf(['monotonic', 'signed'])),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000, description: 'Raw points per key.' })),
  order: Type.Optional(oneOf(['asc', 'desc'])),
  downsample: Type.Optional(oneOf(downsampleModes)),
  points: Type.Optional(
    Type.Integer({ minimum: 10, maximum: 10_000, description: 'Most points per key after downsampling (default 1,000).' }),
  ),
}

const historyQuery = { ...keyQuery, from: Time, to: Time, ...historyMembers }

export const HistoryQuery = Type.Object(
  { ...historyQuery, cursor: Type.Optional(Type.String({ maxLength: 2000 })) },
  { additionalProperties: false },
)
export type HistoryQuery = Static<typeof HistoryQuery>

const exportMembers = {
  format: oneOf(['csv', 'xlsx', 'ndjson']),
  layout: Type.Optional(
    oneOf(['long', 'wide'], { default: 'long', description: 'A row per value, or a row per time; wide not with `ndjson`.' }),
  ),
  lang: Type.Optional(oneOf(['zh', 'en'])),
}
export const ExportQuery = Type.Object({ ...historyQuery, ...exportMembers }, { additionalProperties: false })
export type ExportQuery = Static<typeof ExportQuery>

/** A file in the format that was asked for. */
export const ExportFiles = {
  description: 'CSV: UTF-8 with byte order mark, CRLF. NDJSON: an object `{"ts","device","key","value"}` per line, of buckets also `agg`.',
  content: {
    'text/csv': { schema: Type.String() },
    'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet': { schema: Type.String({ format: 'binary' }) },
    'application/x-ndjson': { schema: Type.String() },
  },
}

/** Most devices of one question about newest values, and about history. */
export const maxLatestDevices = 500
export const maxHistoryDevices = 50
const Uuid = Type.String({ format: 'uuid' })
const BodyTime = Type.Union([Type.Integer({ minimum: 0 }), Type.String({ maxLength: 40 })], {
  description: 'ms since 1970 UTC, or RFC 3339.',
})
const Keys = Type.Array(Type.String(), { minItems: 1, maxItems: 50 })
const manyMembers = {
  deviceIds: Type.Array(Uuid, { minItems: 1, maxItems: maxHistoryDevices, description: 'Unknown ones are left out.' }),
  keys: Keys,
  from: BodyTime,
  to: BodyTime,
  ...historyMembers,
  timeZone: Type.Optional(Type.String({ description: 'IANA name; default that of the first device.' })),
}

export const ManyHistoryBody = Type.Object(manyMembers, { additionalProperties: false })
export type ManyHistoryBody = Static<typeof ManyHistoryBody>
export const ManyExportBody = Type.Object({ ...manyMembers, ...exportMembers }, { additionalProperties: false })
export type ManyExportBody = Static<typeof ManyExportBody>

export const ManyLatestQuery = Type.Object(
  {
    deviceIds: Type.String({
      description: `Up to ${maxLatestDevices} ids separated by commas, as far as an address can be long; else POST.`,
    }),
    ...keyQuery,
  },
  { additionalProperties: false },
)
export const ManyLatestBody = Type.Object(
  { deviceIds: Type.Array(Uuid, { minItems: 1, maxItems: maxLatestDevices }), keys: Type.Optional(Keys) },
  { additionalProperties: false },
)

/** A value of any kind; integers beyond ±(2⁵³−1) as strings of their digits. */
const AnyValue = Type.Unknown()

const seriesMembers = {
  key: Type.String(),
  agg: oneOf(['NONE', ...aggregations]),
  points: Type.Array(Type.Array(AnyValue), { description: 'Pairs of time (ms) and value.' }),
  int64: Type.Optional(Type.Literal(true, { description: 'Some integers are strings of their digits.' })),
}
const damaged = Type.Optional(
  Type.Array(Type.Object({ key: Type.String(), from: Type.Integer(), to: Type.Integer() }), {
    description: 'Stretches (both ends included) whose stored points can no longer be read; they are missing here.',
  }),
)

export const History = Type.Object({
  from: Type.Integer(),
  to: Type.Integer(),
  timeZone: Type.String(),
  series: Type.Array(Type.Object(seriesMembers)),
  sourcePoints: Type.Integer(),
  downsampled: Type.Boolean(),
  nextCursor: Type.Union([Type.String(), Type.Null()]),
  damaged,
})

export const ManyHistory = Type.Object({
  from: Type.Integer(),
  to: Type.Integer(),
  timeZone: Type.String(),
  devices: Type.Array(
    Type.Object({
      deviceId: Type.String(),
      series: Type.Array(Type.Object(seriesMembers)),
      truncated: Type.Optional(Type.Array(Type.String(), { description: 'Keys with more raw points in the range than `limit`.' })),
      damaged,
    }),
  ),
  sourcePoints: Type.Integer(),
  downsampled: Type.Boolean(),
})

export const LatestQuery = Type.Object(keyQuery, { additionalProperties: false })
export const LatestValues = Type.Object({
  items: Type.Array(Type.Object({ key: Type.String(), ts: Type.Integer(), value: AnyValue, kind: oneOf(valueKinds) })),
})
export const ManyLatestValues = Type.Object(
  { items: Type.Array(Type.Object({ deviceId: Type.String(), values: LatestValues.properties.items })) },
  { description: 'Devices in the order of the question. Those without values and unknown ones are left out.' },
)
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
