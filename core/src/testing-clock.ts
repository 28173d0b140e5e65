// SPDX-License-Identifier: AGPL-3.0-only
import { systemClock } from './clock.ts'
import type { Clock } from './clock.ts'

/** A clock whose timers wait until the test lets them go; its time is the real one. */
export class HeldClock implements Clock {
  readonly timers: { ms: number; callback: () => void }[] = []
  readonly now = (): number => systemClock.now()
  readonly monotonic = (): number => systemClock.monotonic()

  after(ms: number, callback: () => void): () => void {
    const timer = { ms, callback }
    this.timers.push(timer)
    return () => {
      const at = this.timers.indexOf(timer)
      if (at !== -1) this.timers.splice(at, 1)
    }
  }

  /** Lets those of this length go. */
  pass(ms: number): void {
    const due = this.timers.filter((timer) => timer.ms === ms)
    this.timers.splice(0, this.timers.length, ...this.timers.filter((timer) => timer.ms !== ms))
    for (const { callback } of due) callback()
  }
}
