// SPDX-License-Identifier: AGPL-3.0-only
import { JsonReader } from '../ingest/json.ts'
import type { PayloadRules } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import { isStorable, maxValueBytes, readPoint } from '../ingest/values.ts'
import type { Point, TypedValue } from '../telemetry/points.ts'
import type { Rule, Selection } from './schemas.ts'
import type { TreeNode } from './tree.ts'

const details = {
  VALUE_NOT_FINITE: 'the number is too large for a double',
  STRING_INVALID: 'U+0000 or a lone surrogate in a text',
  VALUE_TOO_LARGE: `longer than ${maxValueBytes} bytes`,
} as const

/** The value of a node, by the same rules as one in a message of a device (device API §4.4). */
export function readValue(payload: Buffer, node: TreeNode, rules: PayloadRules): TypedValue | Reject {
  const point = readPoint(new JsonReader(payload.subarray(node.start, node.end), rules), '', rules.castNumericStrings)
  if (typeof point === 'string') return { code: point, detail: details[point] }
  if (point === null) return { code: 'SHAPE_INVALID', detail: 'null is no value' }
  return valueOf(point)
}

/** The value alone, without the place that the reader gave it. */
function valueOf(point: Point): TypedValue {
  const value: TypedValue & { key?: string; ts?: number } = { ...point }
  delete value.key
  delete value.ts
  return value
}

const words: Readonly<Record<string, boolean>> = Object.assign(Object.create(null) as Record<string, boolean>, {
  true: true,
  on: true,
  yes: true,
  '1': true,
  false: false,
  off: false,
  no: false,
  '0': false,
})
/** Longest text that is looked at as a number or a word. */
const maxWord = 40

/** @returns the value as a number, text or boolean; undefined when it is none */
export function castValue(value: TypedValue, as: NonNullable<Selection['as']>): TypedValue | undefined {
  switch (as) {
    case 'number':
      return toNumber(value)
    case 'text': {
      const text = String(value.value)
      if (!isStorable(text) || Buffer.byteLength(text) > maxValueBytes) return undefined
      return { kind: 'string', value: text }
    }
    case 'boolean': {
      const word = String(value.value).slice(0, maxWord).trim().toLowerCase()
      const known = words[word]
      return known === undefined ? undefined : { kind: 'boolean', value: known }
    }
  }
}

function toNumber(value: TypedValue): TypedValue | undefined {
  if (value.kind === 'double' || value.kind === 'integer') return value
  if (value.kind === 'boolean') return { kind: 'integer', value: Number(value.value) }
  const text = value.value.trim()
  // `+21.5` and `.5`, which no JSON number is, are common among plain sensors.
  const [, sign, digits] = /^([+-]?)(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)$/i.exec(text) ?? []
  if (value.kind !== 'string' || text.length > maxWord || digits === undefined) return undefined
  const literal = `${sign === '-' ? '-' : ''}${digits
    .replace(/^0+(?=\d)/, '')
    .replace(/^\./, '0.')
    .replace(/\.(?=e|$)/i, '')}`
  const bytes = Buffer.from(literal)
  const point = readPoint(new JsonReader(bytes, { json: 'strict', duplicateKeys: 'last' }), '', false)
  return point === null || typeof point === 'string' || (point.kind !== 'double' && point.kind !== 'integer') ? undefined : valueOf(point)
}

type TimeUnit = NonNullable<Rule['time']>['unit']

/** Largest instant of ECMAScript. */
const maxTs = 8_640_000_000_000_000
const perMs: Partial<Record<TimeUnit, bigint>> = { us: 1000n, ns: 1_000_000n }

/** ms since 1970, what is finer cut off; undefined when the text is no time of the unit. ISO times without a zone are in UTC. */
export function readTime(text: string, unit: TimeUnit): number | undefined {
  const ts = unit === 'iso' ? readIso(text) : readNumber(text, unit)
  return ts !== undefined && ts >= 1 && ts <= maxTs ? ts : undefined
}

function readIso(text: string): number | undefined {
  const [, day, time, fraction = '', zone = 'Z'] =
    /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,12}))?(Z|[+-]\d\d:?\d\d)?$/i.exec(text.trim()) ?? []
  if (day === undefined) return undefined
  const ms = fraction.slice(0, 3).padEnd(3, '0')
  const offset = /^z$/i.test(zone) ? 'Z' : zone.replace(/^(...):?/, '$1:')
  const ts = Date.parse(`${day}T${time!.length === 5 ? `${time}:00` : time}.${ms}${offset}`)
  return Number.isNaN(ts) ? undefined : ts
}

function readNumber(text: string, unit: TimeUnit): number | undefined {
  const [, whole, fraction = ''] = /^(\d{1,20})(?:\.(\d{1,9}))?$/.exec(text.trim()) ?? []
  if (whole === undefined) return undefined
  if (unit === 's') return Number(whole) * 1000 + Number(fraction.slice(0, 3).padEnd(3, '0'))
  return Number(BigInt(whole) / (perMs[unit] ?? 1n))
}
