// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { EventBus } from '../events.ts'

/** A connection refused before a device was known [L-4]; no secrets in it. */
export type RefusedConnection = { at: string; address: string; clientId: string; reason: string; last4: string; count: number }

const kept = 500

/** The last refused connections, equal ones counted together. In memory only. */
export class RefusedConnections {
  readonly #clock: Clock
  readonly #events: EventBus
  readonly #byKey = new Map<string, RefusedConnection>()

  constructor(clock: Clock, events: EventBus) {
    this.#clock = clock
    this.#events = events
  }

  add(refusal: { address: string; clientId?: string; reason: string; last4?: string }): void {
    const { address, clientId = '', reason, last4 = '' } = refusal
    const key = `${address} ${clientId} ${reason} ${last4}`
    const at = this.#clock.now()
    const entry = { at: new Date(at).toISOString(), address, clientId, reason, last4, count: (this.#byKey.get(key)?.count ?? 0) + 1 }
    // Taken out first, so that the map stays in the order of the last refusal.
    this.#byKey.delete(key)
    this.#byKey.set(key, entry)
    if (this.#byKey.size > kept) this.#byKey.delete(this.#byKey.keys().next().value!)
    this.#events.emit('connection.refused', { at, address, clientId, reason, count: entry.count })
  }

  /** Newest first. */
  list(): RefusedConnection[] {
    return [...this.#byKey.values()].reverse()
  }
}
