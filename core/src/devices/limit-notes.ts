// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { Device } from '../ingest/registry.ts'
import type { DeviceLog } from './device-log.ts'

const pauseMs = 600_000
/** Whoever makes names up must not fill the memory; what comes after so many is told when the pause of others is over. */
const mostKept = 10_000

/** Tells operators of a limit that was met, but not for each message: each device and part of it once in ten minutes [G-8], [Q-6]. */
export class LimitNotes {
  readonly #clock: Clock
  readonly #log: DeviceLog
  readonly #event: 'child_limit' | 'rate_limited'
  /** By device and part, the last one at the end. */
  readonly #toldAt = new Map<string, number>()

  constructor(clock: Clock, log: DeviceLog, event: 'child_limit' | 'rate_limited') {
    this.#clock = clock
    this.#log = log
    this.#event = event
  }

  /** @param part what of the device met its limit, such as the name of a child; empty for the device itself */
  add(device: Device, part: string, detail: Record<string, string>): void {
    const now = this.#clock.monotonic()
    for (const [key, at] of this.#toldAt) {
      if (now - at < pauseMs) break
      this.#toldAt.delete(key)
    }
    const key = `${device.id} ${part}`
    if (this.#toldAt.has(key) || this.#toldAt.size >= mostKept) return
    this.#toldAt.set(key, now)
    this.#log.add(device, this.#event, detail)
  }
}
