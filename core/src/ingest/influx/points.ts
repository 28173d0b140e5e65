// SPDX-License-Identifier: AGPL-3.0-only
import type { Point } from '../../telemetry/points.ts'
import { isValidKey, nextServerTs } from '../codecs.ts'
import type { Device } from '../registry.ts'
import type { Reject } from '../rejects.ts'
import { isStorable, maxValueBytes } from '../values.ts'
import type { InfluxLine } from './line-protocol.ts'

/** What a tick of each precision is: so many of them are one ms, or it is so many ms. */
const precisions = {
  ns: { perMs: 1_000_000n, ms: 1n },
  n: { perMs: 1_000_000n, ms: 1n },
  us: { perMs: 1000n, ms: 1n },
  u: { perMs: 1000n, ms: 1n },
  ms: { perMs: 1n, ms: 1n },
  s: { perMs: 1n, ms: 1000n },
  m: { perMs: 1n, ms: 60_000n },
  h: { perMs: 1n, ms: 3_600_000n },
} as const
export type Precision = keyof typeof precisions
export const precisionNames = Object.keys(precisions) as Precision[]

const maxTs = 8_640_000_000_000_000

/** Tags that name no series: whoever sends is known by its token. */
const hostTag = 'host'
export const childTag = 'device'

/** The device a line is about when a gateway sends it; undefined: the gateway itself. */
export function childOf({ tags }: InfluxLine, gateway: Device): string | undefined {
  return gateway.isGateway ? tags.find(([key]) => key === childTag)?.[1].trim() : undefined
}

/**
 * The points of a line: `measurement_field`, and behind it the tags in brackets, sorted by name, since lines that
 * differ in a tag are different series. `host` is left out, and for a gateway `device`.
 */
export function toPoints(
  line: InfluxLine,
  device: Device,
  { precision, receivedAt, isChild }: { precision: Precision; receivedAt: number; isChild: boolean },
): { points: Point[]; rejects: Reject[] } {
  const tags = line.tags
    .filter(([key]) => key !== hostTag && !(isChild && key === childTag))
    .toSorted(([one], [other]) => (one < other ? -1 : Number(one > other)))
  const suffix = tags.length === 0 ? '' : `[${tags.map(([key, value]) => `${key}=${value}`).join(';')}]`
  const time = line.time === undefined ? nextServerTs(device, receivedAt) : toMs(line.time, precision)
  const points: Point[] = []
  const rejects: Reject[] = []
  for (const [field, value] of line.fields) {
    const key = `${line.measurement}_${field}${suffix}`
    const refusal = judge(key, value, time, receivedAt + device.rules.maxFutureMs)
    if (refusal) rejects.push({ ...refusal, detail: `line ${line.no}: ${refusal.detail}` })
    else points.push({ ...value, key, ts: time })
  }
  return { points, rejects }
}

/** Exact down to the ms; what is finer is cut off. */
function toMs(time: bigint, precision: Precision): number {
  const { perMs, ms } = precisions[precision]
  const scaled = time * ms
  return Number(scaled >= 0n ? scaled / perMs : (scaled - perMs + 1n) / perMs)
}

function judge(key: string, value: { kind: string; value: unknown }, ts: number, latest: number): Reject | undefined {
  if (!isValidKey(key)) {
    const detail = 'measurement, field and tags together are a key of 1–255 characters, none of them a control'
    return { code: 'KEY_INVALID', detail, key: key.toWellFormed().slice(0, 100) }
  }
  if (typeof value.value === 'string') {
    if (!isStorable(value.value)) return { code: 'STRING_INVALID', detail: 'U+0000 in a text', key, ts }
    if (Buffer.byteLength(value.value) > maxValueBytes) {
      return { code: 'VALUE_TOO_LARGE', detail: `longer than ${maxValueBytes} bytes`, key, ts }
    }
  }
  if (!(ts >= 1 && ts <= maxTs)) return { code: 'TS_INVALID', detail: 'the timestamp lies before 1970 or too far ahead', key }
  if (ts <= latest) return undefined
  return { code: 'TS_FUTURE', detail: 'the timestamp lies ahead of the server: is the precision right?', key, ts }
}
