// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'

const lookMs = 2000
/** Below it any plan is good enough. */
const fewDevices = 100

/**
 * Tells the planner when the number of devices has doubled. PostgreSQL's own daemon does so only after a
 * minute, and until then plans made for an empty table stay: those of foreign keys read the whole table for
 * each row, so that the first connections of 5,000 new devices keep the database busy for many seconds.
 */
export class PlannerStatistics {
  readonly #context: Context
  readonly #countDevices: () => number
  #analyzedAt = 0
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()

  constructor(context: Context, countDevices: () => number) {
    this.#context = context
    this.#countDevices = countDevices
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      this.#running = this.#running.then(() => this.refresh())
    }, lookMs).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#running
  }

  /** Never fails: without statistics everything works, only slower. */
  async refresh(): Promise<void> {
    const count = this.#countDevices()
    if (count < Math.max(fewDevices, 2 * this.#analyzedAt)) return
    try {
      await this.#context.db.withRole('pms_jobs', (tx) => tx.execute(sql`select analyze_device_tables()`))
      this.#analyzedAt = count
    } catch (error) {
      this.#context.log.debug({ err: error }, 'the tables of devices could not be analyzed')
    }
  }
}
