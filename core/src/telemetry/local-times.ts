// SPDX-License-Identifier: AGPL-3.0-only
import { ZoneOffsets } from './buckets.ts'
import { maxTs } from './history.ts'

/** Times of a zone's wall clock, with the offset that tells a repeated hour apart [N-8]. */
export class LocalTimes {
  readonly #offsets: ZoneOffsets
  #offsetMs = Number.NaN
  #offsetText = ''

  constructor(timeZone: string) {
    this.#offsets = new ZoneOffsets(timeZone)
  }

  /** What the wall clock shows, as ms as if it were UTC. */
  toLocalMs(ts: number): number {
    return Math.min(ts + this.#offsets.at(ts).offsetMs, maxTs)
  }

  /** `YYYY-MM-DD HH:mm:ss.SSS` */
  format(ts: number): string {
    const text = new Date(this.toLocalMs(ts)).toISOString()
    return `${text.slice(0, -14)} ${text.slice(-13, -1)}`
  }

  /** `+08:00`; zones of long ago also have seconds. */
  formatOffset(ts: number): string {
    const { offsetMs } = this.#offsets.at(ts)
    if (offsetMs !== this.#offsetMs) {
      const text = new Date(Math.abs(offsetMs)).toISOString()
      this.#offsetMs = offsetMs
      this.#offsetText = `${offsetMs < 0 ? '-' : '+'}${text.slice(11, offsetMs % 60_000 === 0 ? 16 : 19)}`
    }
    return this.#offsetText
  }
}
