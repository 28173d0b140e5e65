// SPDX-License-Identifier: AGPL-3.0-only
import type { Actor } from '../http/actor.ts'
import type { Topic, TopicParams } from './topics.ts'

/** Items a client gets at once; beyond it only the newest of each series is kept. */
const maxWaiting = 500
/** So many may wait before that is done, so that a burst is looked through rarely. */
const maxHeld = 1000
const defaultHz = 4

type Waiting = { item: unknown; series: string | undefined; ts: number }
type Wanted = { [T in Topic]: { topic: T; params: TopicParams[T] } }[Topic]

export type Subscription = Wanted & {
  readonly id: string
  readonly actor: Actor
  /** Nothing is sent before the client has been told that the subscription stands. */
  isOpen: boolean
  wants(key: string): boolean
  /**
   * Adds an item. When the client cannot keep up, only the newest of each `series` is kept:
   * the one with the greatest `ts`, else and among equals the one that came last.
   */
  push(item: unknown, series?: string, ts?: number): void
  /** The items due now, or undefined when there are none or the client wants them less often. */
  take(now: number): { seq: number; items: unknown[] } | undefined
}

/** A subscription of one client with the items that wait for it. */
export function createSubscription(id: string, actor: Actor, wanted: Wanted): Subscription {
  const keys = wanted.topic === 'telemetry' && wanted.params.keys ? new Set(wanted.params.keys) : undefined
  const pauseMs = 1000 / ((wanted.topic === 'telemetry' && wanted.params.maxHz) || defaultHz)
  let waiting: Waiting[] = []
  let nextAt = 0
  let seq = 0
  return {
    ...wanted,
    id,
    actor,
    isOpen: false,
    wants: (key) => !keys || keys.has(key),
    push(item, series, ts = Number.POSITIVE_INFINITY) {
      waiting.push({ item, series, ts })
      if (waiting.length > maxHeld) waiting = newestOfEach(waiting)
    },
    take(now) {
      if (waiting.length === 0 || now < nextAt) return undefined
      nextAt = now + pauseMs
      const items = (waiting.length > maxWaiting ? newestOfEach(waiting) : waiting).map((one) => one.item)
      waiting = []
      return { seq: seq++, items }
    },
  }
}

function newestOfEach(waiting: Waiting[]): Waiting[] {
  const kept = new Map<unknown, Waiting>()
  for (const one of waiting) {
    const key = one.series ?? one
    const other = kept.get(key)
    if (other && other.ts > one.ts) continue
    kept.delete(key)
    kept.set(key, one)
  }
  return [...kept.values()].slice(-maxWaiting)
}
