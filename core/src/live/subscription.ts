// SPDX-License-Identifier: AGPL-3.0-only
import type { Actor } from '../http/actor.ts'
import type { Topic, TopicParams } from './topics.ts'

/** Items a subscription may hold back; beyond it only the newest of each series is kept. */
const maxWaiting = 500
const defaultHz = 4

type Wanted = { [T in Topic]: { topic: T; params: TopicParams[T] } }[Topic]

export type Subscription = Wanted & {
  readonly id: string
  readonly actor: Actor
  /** Nothing is sent before the client has been told that the subscription stands. */
  isOpen: boolean
  wants(key: string): boolean
  /** Adds an item; `series` names what a newer item replaces when the client cannot keep up. */
  push(item: unknown, series?: string): void
  /** The items due now, or undefined when there are none or the client wants them less often. */
  take(now: number): { seq: number; items: unknown[] } | undefined
}

/** A subscription of one client with the items that wait for it. */
export function createSubscription(id: string, actor: Actor, wanted: Wanted): Subscription {
  const keys = wanted.topic === 'telemetry' && wanted.params.keys ? new Set(wanted.params.keys) : undefined
  const pauseMs = 1000 / ((wanted.topic === 'telemetry' && wanted.params.maxHz) || defaultHz)
  let waiting: { item: unknown; series: string | undefined }[] = []
  let nextAt = 0
  let seq = 0
  return {
    ...wanted,
    id,
    actor,
    isOpen: false,
    wants: (key) => !keys || keys.has(key),
    push(item, series) {
      waiting.push({ item, series })
      if (waiting.length > maxWaiting) waiting = newestOfEach(waiting)
    },
    take(now) {
      if (waiting.length === 0 || now < nextAt) return undefined
      nextAt = now + pauseMs
      const items = waiting.map((one) => one.item)
      waiting = []
      return { seq: seq++, items }
    },
  }
}

function newestOfEach(waiting: { item: unknown; series: string | undefined }[]): typeof waiting {
  const kept = new Map<unknown, (typeof waiting)[number]>()
  for (const one of waiting) {
    const key = one.series ?? one
    kept.delete(key)
    kept.set(key, one)
  }
  return [...kept.values()].slice(-maxWaiting)
}
