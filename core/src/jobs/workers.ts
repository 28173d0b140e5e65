// SPDX-License-Identifier: AGPL-3.0-only
import { HealthWindow } from './health.ts'

/** Anything with a life: consumers of queues, connectors, pollers, loops [jobs 6.1]. */
export type WorkerDef = {
  name: string
  /** Workers that must run before this one starts, and stop after it. */
  dependsOn?: readonly string[]
  start: () => Promise<void>
  stop: () => Promise<void>
  /** Throws, or takes longer than 5 s, when the worker is not well. */
  health?: () => Promise<void>
  /** A server that cannot start it does not start. */
  critical?: boolean
  /** Runs are reported at least this often; three times as long without one is a warning. */
  expectedEveryMs?: number
}

export type WorkerState = 'stopped' | 'starting' | 'running' | 'warning' | 'unhealthy' | 'restarting' | 'broken' | 'stopping'

export type WorkerView = {
  name: string
  state: WorkerState
  score: number
  runs: number
  errors: number
  restarts: number
  since: Date
  lastRunAt: Date | null
  lastError: string | null
  reason: string | null
}

/** What the supervisor keeps of one. */
export type Worker = {
  def: WorkerDef
  state: WorkerState
  since: number
  window: HealthWindow
  lastRunAt: number | undefined
  lastError: string | undefined
  reason: string | undefined
  restarts: number
  /** Restarts of the last ten minutes. */
  recent: number[]
  cancel: (() => void) | undefined
  checking: boolean
}

/** It does its work, well or not. */
export const isUp = (state: WorkerState | undefined) => state === 'running' || state === 'warning' || state === 'unhealthy'

export function newWorker(def: WorkerDef, now: number): Worker {
  return {
    def,
    state: 'stopped',
    since: now,
    window: new HealthWindow(),
    lastRunAt: undefined,
    lastError: undefined,
    reason: undefined,
    restarts: 0,
    recent: [],
    cancel: undefined,
    checking: false,
  }
}

/** Those first that others need. Members of a cycle come last, where what they need does not run yet. */
export function inOrder(defs: readonly WorkerDef[]): WorkerDef[] {
  const left = new Map(defs.map((def) => [def.name, def]))
  const ordered: WorkerDef[] = []
  while (left.size > 0) {
    const free = [...left.values()].filter((def) => !(def.dependsOn ?? []).some((name) => left.has(name)))
    if (free.length === 0) return [...ordered, ...left.values()]
    for (const def of free) {
      ordered.push(def)
      left.delete(def.name)
    }
  }
  return ordered
}
