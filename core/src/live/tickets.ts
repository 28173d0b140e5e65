// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import type { Clock } from '../clock.ts'
import type { Actor } from '../http/actor.ts'
import { sha256 } from '../secrets.ts'

export const ticketLifeMs = 30_000
const maxOpen = 10_000

/** One-time tickets that let a browser open a socket, since it cannot send a header there [SC-55]. */
export class Tickets {
  readonly #clock: Clock
  readonly #open = new Map<string, { actor: Actor; expiresAt: number }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  create(actor: Actor): string {
    const now = this.#clock.monotonic()
    // Insertion order is age order: the expired ones stand in front.
    for (const [key, ticket] of this.#open) {
      if (ticket.expiresAt > now && this.#open.size < maxOpen) break
      this.#open.delete(key)
    }
    const ticket = randomBytes(32).toString('base64url')
    this.#open.set(sha256(ticket).toString('hex'), { actor, expiresAt: now + ticketLifeMs })
    return ticket
  }

  /** The actor of a ticket, once. */
  take(ticket: string): Actor | undefined {
    const key = sha256(ticket).toString('hex')
    const found = this.#open.get(key)
    this.#open.delete(key)
    return found && found.expiresAt > this.#clock.monotonic() ? found.actor : undefined
  }
}
