// SPDX-License-Identifier: AGPL-3.0-only
import type { Reject } from '../ingest/rejects.ts'
import type { DeviceRequest } from '../ingest/requests.ts'
import type { Session } from '../ingest/sessions.ts'
import type { Outcome, UplinkSource } from '../ingest/uplink.ts'
import type { ChildSession } from './child-session.ts'
import { GatewayMetrics } from './gateway-metrics.ts'

/** A message that is taken: what was to be done in its turn is done, its outcome may come later. */
export type Taken = { outcome: Outcome | Promise<Outcome> }

/** The session of a gateway with those of its children. */
export class GatewayLink {
  readonly session: Session
  /** By the name the gateway uses, blanks around it removed. */
  readonly children = new Map<string, ChildSession>()
  /** Ids of the devices the gateway had when it was first asked for, by name; those it got since are added. */
  owned: Map<string, string> | undefined
  readonly metrics = new GatewayMetrics()
  cancelMetrics: (() => void) | undefined
  isEnded = false
  /** The last message that waits for a child to be found; later ones wait for it in turn [M-23]. */
  #turn: Promise<void> | undefined

  constructor(session: Session) {
    this.session = session
  }

  find(name: string): ChildSession | undefined {
    return this.children.get(name) ?? this.children.get(name.trim())
  }

  /** Does the work of a message at once, or after that of the messages before it that still wait. */
  inTurn(work: () => Taken | Promise<Taken>): Outcome | Promise<Outcome> {
    if (this.#turn !== undefined) return this.#queue(this.#turn.then(work))
    const taken = work()
    return taken instanceof Promise ? this.#queue(taken) : taken.outcome
  }

  #queue(taken: Promise<Taken>): Promise<Outcome> {
    const turn: Promise<void> = taken.then(
      () => this.#leave(turn),
      () => this.#leave(turn),
    )
    this.#turn = turn
    return taken.then(({ outcome }) => outcome)
  }

  #leave(turn: Promise<void>): void {
    if (this.#turn === turn) this.#turn = undefined
  }
}

/** What is known of a message when something of it is refused for one child. */
export type ChildReject = { request: DeviceRequest; child: ChildSession | undefined; name: string; reject: Reject; payload: Buffer }

/** Where a message of a child came in: at its gateway. */
export function sourceOfChild({ source }: DeviceRequest): UplinkSource {
  return { ...source, transport: 'gateway' }
}
