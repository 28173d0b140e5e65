// SPDX-License-Identifier: AGPL-3.0-only
import { compileComparison } from './comparisons.ts'
import { earliest, never, neverDue } from './moment.ts'
import type { Due, Moment } from './moment.ts'
import { durationIn, nameIn } from './operands.ts'
import type { Reads } from './operands.ts'
import { isObject, member } from './problems.ts'
import type { Findings } from './problems.ts'
import { isSame } from './values.ts'
import type { Truth } from './values.ts'

/** A compiled condition: pure but for the latches of the moment, which it keeps up. */
export type Condition = {
  evaluate: (moment: Moment) => Truth
  /** When its truth can change by itself; only instants still to come. */
  due: (moment: Moment) => Due
}

/** What one rule's conditions share while they are compiled. */
export type Compilation = { reads: Reads; findings: Findings; leafCount: number; latchCount: number }

export const maxDepth = 8
export const maxLeaves = 50
const shortestSilenceMs = 10_000
const longestMs = 2_592_000_000
/** How long after the start of the server silence is not yet silence, at most [3.4]. */
const startGraceMs = 120_000

/** Compiles a condition tree [3]; what is wrong with it goes to the findings. */
export function compileCondition(json: unknown, pointer: string, compilation: Compilation, depth = 1): Condition | undefined {
  const { findings } = compilation
  if (!isObject(json)) return findings.add(pointer, 'condition_invalid', 'a condition is an object')
  if (depth > maxDepth) return findings.add(pointer, 'too_deep', `a condition is nested at most ${maxDepth} deep`)
  for (const join of ['all', 'any'] as const) {
    if (Object.hasOwn(json, join)) return compileJoin(join, { json, pointer, compilation, depth })
  }
  if (Object.hasOwn(json, 'not')) {
    findings.checkMembers(pointer, json, ['not'])
    const inner = compileCondition(json['not'], member(pointer, 'not'), compilation, depth + 1)
    return inner && { due: inner.due, evaluate: (moment) => negate(inner.evaluate(moment)) }
  }
  if (++compilation.leafCount === maxLeaves + 1) findings.add(pointer, 'too_many_leaves', `a rule has at most ${maxLeaves} leaves`)
  return compileLeaf(json, pointer, compilation)
}

function negate(truth: Truth): Truth {
  return truth === undefined ? undefined : !truth
}

type Tree = { json: Record<string, unknown>; pointer: string; compilation: Compilation; depth: number }

function compileJoin(join: 'all' | 'any', { json, pointer, compilation, depth }: Tree): Condition | undefined {
  compilation.findings.checkMembers(pointer, json, [join])
  const place = member(pointer, join)
  const list = json[join]
  if (!Array.isArray(list) || list.length === 0) {
    return compilation.findings.add(place, 'condition_empty', `${join} has at least one condition`)
  }
  const found = list.map((one: unknown, index) => compileCondition(one, member(place, index), compilation, depth + 1))
  const children = found.filter((one) => one !== undefined)
  if (children.length < list.length) return undefined
  // One child of this truth decides; every child is evaluated, since each keeps its own latch.
  const deciding = join === 'any'
  return {
    due: (moment) => children.reduce((due, child) => earliest(due, child.due(moment)), neverDue),
    evaluate: (moment) => {
      let truth: Truth = !deciding
      for (const child of children) {
        const one = child.evaluate(moment)
        if (one === deciding) truth = deciding
        else if (one === undefined && truth !== deciding) truth = undefined
      }
      return truth
    },
  }
}

function compileLeaf(json: Record<string, unknown>, pointer: string, compilation: Compilation): Condition | undefined {
  if (Object.hasOwn(json, 'noData')) return compileNoData(json, pointer, compilation)
  if (Object.hasOwn(json, 'connection')) return compileConnection(json, pointer, compilation)
  if (Object.hasOwn(json, 'changed')) return compileChanged(json, pointer, compilation)
  if (Object.hasOwn(json, 'ext') || Object.hasOwn(json, 'within')) {
    const name = typeof json['ext'] === 'string' ? json['ext'].slice(0, 100) : 'within'
    return compilation.findings.add(pointer, 'leaf_unknown', `there is no leaf "${name}"`)
  }
  return compileComparison(json, pointer, compilation)
}

function compileNoData(json: Record<string, unknown>, pointer: string, { reads, findings }: Compilation): Condition | undefined {
  findings.checkMembers(pointer, json, ['noData'])
  const place = member(pointer, 'noData')
  const params = json['noData']
  if (!isObject(params)) return findings.add(place, 'condition_invalid', 'noData is an object with forMs')
  findings.checkMembers(place, params, ['key', 'forMs', 'includeNever'])
  const source = { json: params, pointer: place, findings }
  const forMs = durationIn(source, 'forMs', shortestSilenceMs, longestMs)
  const key = params['key'] === undefined ? undefined : nameIn(source, 'key')
  const includeNever = params['includeNever'] ?? true
  if (typeof includeNever !== 'boolean') {
    return findings.add(member(place, 'includeNever'), 'type_mismatch', 'includeNever is true or false')
  }
  if (forMs === undefined) return undefined
  reads.hasTimers = true
  if (key === undefined) reads.isAnyKey = true
  else reads.readKey(key)
  const silentFrom = ({ device, activeSince, readyAt }: Moment): number | undefined => {
    const { slots, lastReceivedAt } = device.values
    const received = key === undefined ? lastReceivedAt : slots.get(key)?.receivedAt
    if (received === undefined && !includeNever) return undefined
    const from = received ?? Math.max(activeSince, device.createdAt)
    return Math.max(from + forMs, readyAt + Math.min(forMs, startGraceMs))
  }
  return {
    evaluate: (moment) => {
      const from = silentFrom(moment)
      return from === undefined ? undefined : moment.serverNow >= from
    },
    due: (moment) => {
      const from = silentFrom(moment)
      return from !== undefined && from > moment.serverNow ? { event: never, server: from } : neverDue
    },
  }
}

function compileConnection(json: Record<string, unknown>, pointer: string, { reads, findings }: Compilation): Condition | undefined {
  findings.checkMembers(pointer, json, ['connection', 'forMs'])
  reads.hasTimers = true
  const wanted = json['connection']
  if (wanted !== 'offline' && wanted !== 'online') {
    return findings.add(member(pointer, 'connection'), 'condition_invalid', 'a connection is offline or online')
  }
  const forMs = json['forMs'] === undefined ? 0 : durationIn({ json, pointer, findings }, 'forMs', 0, longestMs)
  if (forMs === undefined) return undefined
  const isOnline = wanted === 'online'
  /** From when on it is true; undefined for a device that never was there. */
  const trueFrom = ({ device: { connection } }: Moment): number | undefined =>
    connection && (connection.isOnline === isOnline ? connection.since + forMs : never)
  return {
    evaluate: (moment) => {
      const from = trueFrom(moment)
      return from === undefined ? undefined : moment.serverNow >= from
    },
    due: (moment) => {
      const from = trueFrom(moment)
      return from !== undefined && from > moment.serverNow ? { event: never, server: from } : neverDue
    },
  }
}

function compileChanged(json: Record<string, unknown>, pointer: string, { reads, findings }: Compilation): Condition | undefined {
  findings.checkMembers(pointer, json, ['changed'])
  const key = nameIn({ json, pointer, findings }, 'changed')
  if (key === undefined) return undefined
  reads.readKey(key)
  return {
    due: () => neverDue,
    evaluate: ({ device, applied }) => {
      const slot = device.values.slots.get(key)
      if (slot?.previous === undefined) return undefined
      return applied.has(key) && !isSame(slot.value, slot.previous)
    },
  }
}
