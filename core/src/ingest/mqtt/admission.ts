// SPDX-License-Identifier: AGPL-3.0-only
import type { Socket } from 'node:net'
import type { Clock } from '../../clock.ts'
import type { MqttLimits } from './limits.ts'

/** Addresses whose refusals are remembered; the one refused longest ago is forgotten first. */
const maxAddresses = 4_096
/** How soon the waiting sockets are looked through again. */
const drainMs = 10
/**
 * A socket that waited behind silent ones gets this much longer than they, so that it sees them go,
 * and this much to be read.
 */
const readMs = 300

/** Refilled continuously, full at the start. */
export class TokenBucket {
  readonly #capacity: number
  readonly #perMs: number
  #tokens: number
  #at: number

  constructor(capacity: number, perSecond: number, now: number) {
    this.#capacity = capacity
    this.#perMs = perSecond / 1000
    this.#tokens = capacity
    this.#at = now
  }

  take(now: number): boolean {
    this.#tokens = Math.min(this.#capacity, this.#tokens + (now - this.#at) * this.#perMs)
    this.#at = now
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}

type Waiting = { socket: Socket; address: string; since: number; isHeldByOthers: boolean }

/** Reads a socket from now on; `since` is when its time for a CONNECT began. */
type Begin = (socket: Socket, address: string, since: number) => void

/**
 * Decides when a new socket is read for the first time. Sockets beyond the connect rate or the
 * number of unauthenticated ones wait unread, as if still in the accept queue, so that a storm of
 * honest devices gets through and a flood of silent sockets costs little (security §8).
 */
export class Admission {
  readonly #clock: Clock
  readonly #limits: MqttLimits
  readonly #begin: Begin
  readonly #bucket: TokenBucket
  readonly #perAddress = new Map<string, number>()
  #unauthenticated = 0
  #waiting: Waiting[] = []
  #cancelDrain: (() => void) | undefined

  constructor(clock: Clock, limits: MqttLimits, begin: Begin) {
    this.#clock = clock
    this.#limits = limits
    this.#begin = begin
    this.#bucket = new TokenBucket(2 * limits.connectRate, limits.connectRate, clock.monotonic())
  }

  get unauthenticated(): number {
    return this.#unauthenticated
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /** Takes a fresh, paused socket. */
  add(socket: Socket, address: string): void {
    const now = this.#clock.monotonic()
    if (this.#waiting.length === 0 && this.#tryBegin(socket, address, now) === 'begun') return
    if (this.#waiting.length >= this.#limits.waiting) {
      socket.destroy()
      return
    }
    this.#waiting.push({ socket, address, since: now, isHeldByOthers: false })
    this.#scheduleDrain()
  }

  /** The socket has sent its CONNECT or is gone: another may begin. Once per begun socket. */
  release(address: string): void {
    this.#unauthenticated--
    const count = (this.#perAddress.get(address) ?? 1) - 1
    if (count > 0) this.#perAddress.set(address, count)
    else this.#perAddress.delete(address)
    if (this.#waiting.length > 0) this.#scheduleDrain()
  }

  /** Closes everything that waits. */
  stop(): void {
    this.#cancelDrain?.()
    this.#cancelDrain = undefined
    for (const { socket } of this.#waiting) socket.destroy()
    this.#waiting = []
  }

  #tryBegin(socket: Socket, address: string, since: number): 'begun' | 'held_by_others' | 'held_by_rate' {
    const count = this.#perAddress.get(address) ?? 0
    if (this.#unauthenticated >= this.#limits.unauthenticated || count >= this.#limits.unauthenticatedPerAddress) return 'held_by_others'
    if (!this.#bucket.take(this.#clock.monotonic())) return 'held_by_rate'
    this.#unauthenticated++
    this.#perAddress.set(address, count + 1)
    this.#begin(socket, address, since)
    return 'begun'
  }

  #scheduleDrain(): void {
    this.#cancelDrain ??= this.#clock.after(drainMs, () => {
      this.#cancelDrain = undefined
      this.#drain()
    })
  }

  #drain(): void {
    const waiting = this.#waiting
    const now = this.#clock.monotonic()
    this.#waiting = []
    const stillWaiting: Waiting[] = []
    let hasTokens = true
    for (const one of waiting) {
      if (one.socket.destroyed) continue
      // Its CONNECT is mostly here already, unread: enough time for that is left in any case.
      const since = one.isHeldByOthers ? Math.max(one.since, now - this.#limits.connectMs + readMs) : now
      const result = hasTokens ? this.#tryBegin(one.socket, one.address, since) : 'held_by_rate'
      if (result === 'begun') continue
      if (result === 'held_by_rate') hasTokens = false
      // Behind silent sockets its time for a CONNECT runs as theirs does [M-2]; the rate may hold it longer.
      if (result === 'held_by_others') one.isHeldByOthers = true
      const patienceMs = result === 'held_by_others' ? this.#limits.connectMs + readMs : this.#limits.waitingMs
      if (now - one.since > patienceMs) one.socket.destroy()
      else stillWaiting.push(one)
    }
    this.#waiting = [...stillWaiting, ...this.#waiting]
    if (this.#waiting.length > 0) this.#scheduleDrain()
  }
}

/** Refused CONNECTs of the last minute per address, to slow down guessing [M-11]. */
export class Refusals {
  readonly #limits: MqttLimits
  readonly #times = new Map<string, number[]>()

  constructor(limits: MqttLimits) {
    this.#limits = limits
  }

  get addresses(): number {
    return this.#times.size
  }

  /** Counts a refusal; true when its answer has to wait. */
  add(address: string, now: number): boolean {
    const recent = (this.#times.get(address) ?? []).filter((time) => time > now - this.#limits.refusalWindowMs)
    const isDelayed = recent.length >= this.#limits.refusals
    this.#times.delete(address)
    this.#times.set(address, [...recent.slice(-this.#limits.refusals + 1), now])
    const oldest = this.#times.keys().next()
    if (this.#times.size > maxAddresses && oldest.done === false) this.#times.delete(oldest.value)
    return isDelayed
  }
}
