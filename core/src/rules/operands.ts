// SPDX-License-Identifier: AGPL-3.0-only
import { evaluateExpression } from './evaluate-expression.ts'
import { parseExpression, walkExpression } from './expression.ts'
import { attributeScopes, deviceFields, never } from './moment.ts'
import type { AttributeScope, DeviceField, Moment } from './moment.ts'
import { isObject, member } from './problems.ts'
import type { Findings } from './problems.ts'
import { isNumeric, scalarTypeOf } from './values.ts'
import type { Known, ScalarType } from './values.ts'

/** What one rule reads, gathered while it is compiled. */
export class Reads {
  /** Telemetry keys, and for how long their samples are held (0: the newest value will do). */
  readonly keys = new Map<string, number>()
  /** `scope/name` */
  readonly attributes = new Set<string>()
  readonly fields = new Set<DeviceField>()

  /** Whether every telemetry concerns it: silence of the device as a whole. */
  isAnyKey = false
  /** Whether it can change without a point: by silence, connectivity or age of a value. */
  hasTimers = false

  readKey(key: string, windowMs = 0): void {
    this.keys.set(key, Math.max(this.keys.get(key) ?? 0, windowMs))
  }

  add(other: Reads): void {
    for (const [key, windowMs] of other.keys) this.readKey(key, windowMs)
    for (const name of other.attributes) this.attributes.add(name)
    for (const field of other.fields) this.fields.add(field)
    this.isAnyKey ||= other.isAnyKey
    this.hasTimers ||= other.hasTimers
  }
}

/** A compiled operand [3.3]. */
export type Operand = {
  read: (moment: Moment) => Known
  /** Its type as far as the document tells. */
  type?: ScalarType
  /** Set for a constant. */
  constant?: number | string | boolean
  /** The event-time instant at which it becomes unknown by itself. */
  due?: (moment: Moment) => number
}

const shortestWindowMs = 1000
const longestWindowMs = 86_400_000
const perMs = { second: 1000, minute: 60_000, hour: 3_600_000 } as const
const aggregates = ['avg', 'min', 'max', 'sum', 'count'] as const
/** The longest dwell, staleness and silence anywhere: 30 days. */
const longestMs = 2_592_000_000

/** Compiles an operand; what is wrong with it goes to `findings`. */
export function compileOperand(json: unknown, pointer: string, reads: Reads, findings: Findings): Operand | undefined {
  if (typeof json === 'number' || typeof json === 'string' || typeof json === 'boolean') {
    const type = scalarTypeOf(json)
    return { read: () => json, constant: json, ...(type && { type }) }
  }
  if (!isObject(json)) {
    return findings.add(pointer, 'operand_invalid', 'an operand is a constant or an object with key, attr or another source')
  }
  const compile = compilers.find(([name]) => Object.hasOwn(json, name))?.[1]
  if (!compile) return findings.add(pointer, 'operand_invalid', 'an operand has key, prev, attr, rate, delta, agg, field or expr')
  return compile({ json, pointer, reads, findings })
}

type Source = { json: Record<string, unknown>; pointer: string; reads: Reads; findings: Findings }

const compilers: readonly (readonly [string, (source: Source) => Operand | undefined])[] = [
  ['key', compileKey],
  ['prev', compilePrevious],
  ['attr', compileAttribute],
  ['rate', compileRate],
  ['delta', compileDelta],
  ['agg', compileAggregate],
  ['field', compileField],
  ['expr', compileExpression],
]

/** @returns a name that is not empty, as keys and attributes have */
export function nameIn({ json, pointer, findings }: Pick<Source, 'json' | 'pointer' | 'findings'>, name: string): string | undefined {
  const value = json[name]
  if (typeof value === 'string' && value.length >= 1 && value.length <= 255) return value
  return findings.add(member(pointer, name), 'name_invalid', 'a name has 1 to 255 characters')
}

/** @returns a whole number of ms within bounds */
export function durationIn(
  { json, pointer, findings }: Pick<Source, 'json' | 'pointer' | 'findings'>,
  name: string,
  least: number,
  most: number,
): number | undefined {
  const value = json[name]
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value
  return findings.add(member(pointer, name), 'out_of_range', `${name} is a whole number from ${least} to ${most}`)
}

function compileKey(source: Source): Operand | undefined {
  source.findings.checkMembers(source.pointer, source.json, ['key', 'staleAfterMs'])
  const key = nameIn(source, 'key')
  const isStaling = source.json['staleAfterMs'] !== undefined
  const staleAfterMs = isStaling ? durationIn(source, 'staleAfterMs', shortestWindowMs, longestMs) : never
  if (key === undefined || staleAfterMs === undefined) return undefined
  source.reads.readKey(key)
  const read = ({ device, at }: Moment): Known => {
    const slot = device.values.slots.get(key)
    return slot && at - slot.ts <= staleAfterMs ? slot.value : undefined
  }
  if (!isStaling) return { read }
  source.reads.hasTimers = true
  return {
    read,
    due: ({ device, at }) => {
      const slot = device.values.slots.get(key)
      return slot && at - slot.ts <= staleAfterMs ? slot.ts + staleAfterMs + 1 : never
    },
  }
}

function compilePrevious(source: Source): Operand | undefined {
  source.findings.checkMembers(source.pointer, source.json, ['prev'])
  const key = nameIn(source, 'prev')
  if (key === undefined) return undefined
  source.reads.readKey(key)
  return { read: ({ device }) => device.values.slots.get(key)?.previous }
}

function compileAttribute(source: Source): Operand | undefined {
  const { json, pointer, reads, findings } = source
  findings.checkMembers(pointer, json, ['attr', 'scope', 'default'])
  const name = nameIn(source, 'attr')
  const scope = (json['scope'] ?? 'server') as AttributeScope
  if (!attributeScopes.includes(scope)) {
    return findings.add(member(pointer, 'scope'), 'scope_invalid', 'a scope is server, shared or client')
  }
  const fallback = json['default'] as number | string | boolean | undefined
  if (fallback !== undefined && scalarTypeOf(fallback) === undefined) {
    return findings.add(member(pointer, 'default'), 'type_mismatch', 'a default is a number, a text or a boolean')
  }
  if (name === undefined) return undefined
  reads.attributes.add(`${scope}/${name}`)
  const type = scalarTypeOf(fallback)
  return { read: ({ device }) => device.readAttribute(scope, name) ?? fallback, ...(type && { type }) }
}

function windowIn(source: Source): number | undefined {
  return durationIn(source, 'windowMs', shortestWindowMs, longestWindowMs)
}

function compileRate(source: Source): Operand | undefined {
  const { json, pointer, reads, findings } = source
  findings.checkMembers(pointer, json, ['rate', 'windowMs', 'per'])
  const key = nameIn(source, 'rate')
  const windowMs = windowIn(source)
  const unit = json['per'] as keyof typeof perMs
  if (typeof unit !== 'string' || !Object.hasOwn(perMs, unit)) {
    return findings.add(member(pointer, 'per'), 'unit_invalid', 'a rate is per second, minute or hour')
  }
  if (key === undefined || windowMs === undefined) return undefined
  reads.readKey(key, windowMs)
  return {
    type: 'number',
    read: ({ device }) => {
      const change = device.values.samples.get(key)?.change(windowMs)
      return change && (change.delta / change.elapsedMs) * perMs[unit]
    },
  }
}

function compileDelta(source: Source): Operand | undefined {
  source.findings.checkMembers(source.pointer, source.json, ['delta', 'windowMs'])
  const key = nameIn(source, 'delta')
  const windowMs = windowIn(source)
  if (key === undefined || windowMs === undefined) return undefined
  source.reads.readKey(key, windowMs)
  return { type: 'number', read: ({ device }) => device.values.samples.get(key)?.change(windowMs)?.delta }
}

function compileAggregate(source: Source): Operand | undefined {
  const { json, pointer, reads, findings } = source
  findings.checkMembers(pointer, json, ['agg', 'over', 'windowMs', 'minCount'])
  const key = nameIn(source, 'over')
  const windowMs = windowIn(source)
  const minCount = json['minCount'] === undefined ? 1 : durationIn(source, 'minCount', 0, 2000)
  const aggregate = json['agg'] as (typeof aggregates)[number]
  if (!aggregates.includes(aggregate)) {
    return findings.add(member(pointer, 'agg'), 'aggregate_invalid', `an aggregate is one of ${aggregates.join(', ')}`)
  }
  if (key === undefined || windowMs === undefined || minCount === undefined) return undefined
  reads.readKey(key, windowMs)
  return {
    type: 'number',
    read: ({ device, clock }) => {
      const { numbers, count } = device.values.samples.get(key)?.within(clock, windowMs) ?? { numbers: [], count: 0 }
      if (aggregate === 'count') return count < minCount ? undefined : count
      return numbers.length < Math.max(minCount, 1) ? undefined : combine(aggregate, numbers)
    },
  }
}

function combine(aggregate: 'avg' | 'min' | 'max' | 'sum', numbers: readonly number[]): number | undefined {
  if (aggregate === 'min') return Math.min(...numbers)
  if (aggregate === 'max') return Math.max(...numbers)
  const sum = numbers.reduce((total, number) => total + number, 0)
  const result = aggregate === 'avg' ? sum / numbers.length : sum
  return Number.isFinite(result) ? result : undefined
}

function compileField({ json, pointer, reads, findings }: Source): Operand | undefined {
  findings.checkMembers(pointer, json, ['field'])
  const field = json['field'] as DeviceField
  if (!deviceFields.includes(field)) {
    return findings.add(member(pointer, 'field'), 'field_unknown', `a field is one of ${deviceFields.join(', ')}`)
  }
  reads.fields.add(field)
  return { type: field === 'device.online' ? 'boolean' : 'string', read: ({ device }) => device.readField(field) }
}

/** In a condition every name is a telemetry key, and attributes are those of scope server. */
function compileExpression({ json, pointer, reads, findings }: Source): Operand | undefined {
  findings.checkMembers(pointer, json, ['expr'])
  const place = member(pointer, 'expr')
  if (typeof json['expr'] !== 'string') return findings.add(place, 'operand_invalid', 'an expression is a text')
  const parsed = parseExpression(json['expr'])
  if ('code' in parsed) return findings.add(place, parsed.code, `${parsed.detail} (offset ${parsed.offset})`)
  walkExpression(parsed, (part) => {
    if (part.kind === 'name' || part.kind === 'previous') reads.readKey(part.name)
    if (part.kind === 'attribute') reads.attributes.add(`server/${part.name}`)
  })
  return {
    read: ({ device, at }) => {
      const { slots } = device.values
      return evaluateExpression(parsed, {
        read: (name) => slots.get(name)?.value,
        readPrevious: (name) => slots.get(name)?.previous,
        readAttribute: (name) => device.readAttribute('server', name),
        now: at,
      }).value
    },
  }
}

/** @returns an operand's number; undefined for anything else */
export function readNumber(operand: Operand, moment: Moment): number | bigint | undefined {
  const value = operand.read(moment)
  return isNumeric(value) ? value : undefined
}
