// SPDX-License-Identifier: AGPL-3.0-only
import type { Context } from '../context.ts'
import { listTenants } from '../db/installation.ts'
import { expireCommands, nextExpiry } from './command-table.ts'
import type { Moved } from './command-table.ts'

const retryMs = 1_000
/** Expiry is looked for at least this often, since another server may have added commands. */
const sweepMs = 60_000

/** Ends the commands whose time is over, with one timer for all of them. */
export class Expiry {
  readonly #context: Context
  readonly #expired: (command: Moved) => void
  #nextAt = Number.POSITIVE_INFINITY
  #cancel: (() => void) | undefined
  #isStopped = false

  /** @param expired hears of each command that has ended */
  constructor(context: Context, expired: (command: Moved) => void) {
    this.#context = context
    this.#expired = expired
  }

  async start(): Promise<void> {
    await this.#sweep()
  }

  stop(): void {
    this.#isStopped = true
    this.#cancel?.()
  }

  /** A command was added that expires at this time, ms since 1970. */
  note(at: number): void {
    if (at >= this.#nextAt || this.#isStopped) return
    this.#nextAt = at
    this.#cancel?.()
    const waitMs = Math.min(Math.max(at - this.#context.clock.now(), 0), sweepMs)
    this.#cancel = this.#context.clock.after(waitMs, () => void this.#sweep())
  }

  async #sweep(): Promise<void> {
    const { clock, db, log } = this.#context
    this.#nextAt = Number.POSITIVE_INFINITY
    let next = clock.now() + sweepMs
    try {
      for (const tenant of await listTenants(db)) {
        const { expired, at } = await db.withTenant(tenant, async (tx) => ({
          expired: await expireCommands(tx, clock.now()),
          at: await nextExpiry(tx),
        }))
        next = Math.min(next, at ?? next)
        for (const command of expired) this.#expired(command)
      }
    } catch (error) {
      if (this.#isStopped) return
      next = clock.now() + retryMs
      log.warn({ err: error }, 'expired commands could not be looked for')
    }
    this.note(next)
  }
}
