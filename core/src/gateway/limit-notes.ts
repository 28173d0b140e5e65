// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { DeviceLog } from '../devices/device-log.ts'
import type { Device } from '../ingest/registry.ts'

/** [G-8] */
const pauseMs = 600_000
const mostKept = 1_000

/** Tells operators which children found no room: each one once in ten minutes. */
export class LimitNotes {
  readonly #clock: Clock
  readonly #log: DeviceLog
  /** By gateway and name, the last one at the end. */
  readonly #toldAt = new Map<string, number>()

  constructor(clock: Clock, log: DeviceLog) {
    this.#clock = clock
    this.#log = log
  }

  add(gateway: Device, name: string): void {
    const now = this.#clock.monotonic()
    for (const [key, at] of this.#toldAt) {
      if (now - at < pauseMs) break
      this.#toldAt.delete(key)
    }
    const key = `${gateway.id} ${name}`
    if (this.#toldAt.has(key) || this.#toldAt.size >= mostKept) return
    this.#toldAt.set(key, now)
    this.#log.add(gateway, 'child_limit', { child: name })
  }
}
