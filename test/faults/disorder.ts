// SPDX-License-Identifier: AGPL-3.0-only
import type { Outgoing } from './load-devices.ts'
import { monotonicMs } from './processes.ts'

const repeatShare = 0.1
const lateShare = 0.1
/** How late: within the same segment, or after its points are in chunks. */
const lateMs = { least: 50, most: 2500 }
const remembered = 300

/** Repeats and delays messages, so that the store gets the same point again and points between older ones. */
export class Disorder {
  readonly #random: () => number
  readonly #sent = new Map<number, Outgoing>()
  readonly #acked: Outgoing[][]
  readonly #held: { message: Outgoing; due: number }[][]

  constructor(devices: number, random: () => number) {
    this.#random = random
    this.#acked = Array.from({ length: devices }, () => [])
    this.#held = Array.from({ length: devices }, () => [])
  }

  /** What a device sends next: a message whose time has come, one that was acknowledged before, or a new one. */
  next(device: number, make: () => Outgoing): Outgoing {
    const held = this.#held[device]!
    const acked = this.#acked[device]!
    const choice = this.#random()
    let message = held[0] && held[0].due <= monotonicMs() ? held.shift()!.message : undefined
    if (!message && choice < repeatShare) message = acked[Math.floor(this.#random() * acked.length)]
    if (!message && choice < repeatShare + lateShare) {
      held.push({ message: make(), due: monotonicMs() + lateMs.least + this.#random() * (lateMs.most - lateMs.least) })
    }
    message ??= make()
    this.#sent.set(message.n, message)
    return message
  }

  /** Only what was acknowledged is sent again: how the first try ended is known then. */
  acknowledged(device: number, n: number): void {
    const message = this.#sent.get(n)
    if (!message) return
    this.#sent.delete(n)
    const acked = this.#acked[device]!
    if (acked.length < remembered) acked.push(message)
    else acked[Math.floor(this.#random() * remembered)] = message
  }
}
