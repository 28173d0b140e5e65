// SPDX-License-Identifier: AGPL-3.0-only
import type { Duplex } from 'node:stream'
import type { Clock } from '../../clock.ts'
import type { MqttLimits } from './limits.ts'

/** Addresses whose refusals are remembered; the one refused longest ago is forgotten first. */
const maxAddresses = 4_096
/** How soon the connect rate is asked again for the next that waits. */
const drainMs = 10
/** How often all that wait are looked through for those whose time is over. */
const sweepMs = 100
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

type Waiting = { socket: Duplex; since: number; isHeldByOthers: boolean }

/** Reads a socket from now on; `since` is when its time for a CONNECT began. */
type Begin = (socket: Duplex, address: string, since: number) => void

/**
 * Decides when a new socket is read for the first time. Sockets beyond the connect rate or the
 * number of unauthenticated ones wait unread, as if still in the accept queue, so that a storm of
 * honest devices gets through and a flood of silent sockets costs little (security §8).
 * Addresses take turns, and where there is no room left the one with most waiting loses its newest.
 */
export class Admission {
  readonly #clock: Clock
  readonly #limits: MqttLimits
  readonly #begin: Begin
  readonly #bucket: TokenBucket
  readonly #perAddress = new Map<string, number>()
  #unauthenticated = 0
  /** What waits, oldest first, by address; never an empty list. */
  readonly #queues = new Map<string, Waiting[]>()
  /** Addresses with something waiting that are below their own limit, next turn first. */
  readonly #ready = new Set<string>()
  /** The address with most waiting, as far as known. */
  #longest = ''
  #waiting = 0
  #cancelDrain: (() => void) | undefined
  #cancelSweep: (() => void) | undefined

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
    return this.#waiting
  }

  /** Takes a fresh, paused socket. */
  add(socket: Duplex, address: string): void {
    const now = this.#clock.monotonic()
    const isHeldByOthers = this.#isHeldByOthers(address)
    const isFirst = this.#ready.size === 0 && !this.#queues.has(address)
    if (isFirst && !isHeldByOthers && this.#bucket.take(now)) return this.#start(socket, address, now)
    if (!this.#makeRoom(address)) {
      socket.destroy()
      return
    }
    const queue = this.#queues.get(address) ?? []
    queue.push({ socket, since: now, isHeldByOthers })
    this.#queues.set(address, queue)
    this.#waiting++
    if (queue.length >= this.#lengthOf(this.#longest)) this.#longest = address
    if (this.#hasOwnRoom(address)) this.#ready.add(address)
    this.#scheduleDrain()
    this.#scheduleSweep()
  }

  /** The socket has sent its CONNECT or is gone: another may begin. Once per begun socket. */
  release(address: string): void {
    this.#unauthenticated--
    const count = (this.#perAddress.get(address) ?? 1) - 1
    if (count > 0) this.#perAddress.set(address, count)
    else this.#perAddress.delete(address)
    if (this.#queues.has(address)) this.#ready.add(address)
    this.#scheduleDrain()
  }

  /** Closes everything that waits. */
  stop(): void {
    this.#cancelDrain?.()
    this.#cancelSweep?.()
    this.#cancelDrain = this.#cancelSweep = undefined
    for (const queue of this.#queues.values()) for (const { socket } of queue) socket.destroy()
    this.#queues.clear()
    this.#ready.clear()
    this.#waiting = 0
  }

  #lengthOf(address: string): number {
    return this.#queues.get(address)?.length ?? 0
  }

  #hasOwnRoom(address: string): boolean {
    return (this.#perAddress.get(address) ?? 0) < this.#limits.unauthenticatedPerAddress
  }

  #isHeldByOthers(address: string): boolean {
    return this.#unauthenticated >= this.#limits.unauthenticated || !this.#hasOwnRoom(address)
  }

  #makeRoom(address: string): boolean {
    if (this.#lengthOf(address) >= this.#limits.waitingPerAddress) return false
    if (this.#waiting < this.#limits.waiting) return true
    const longest = this.#queues.get(this.#longest)
    if (!longest || longest.length <= this.#lengthOf(address) + 1) return false
    longest.pop()!.socket.destroy()
    this.#waiting--
    return true
  }

  #start(socket: Duplex, address: string, since: number): void {
    this.#unauthenticated++
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1)
    this.#begin(socket, address, since)
  }

  /** Only while somebody could begin: where all are held by others, the next release looks again. */
  #scheduleDrain(): void {
    if (this.#ready.size === 0 || this.#unauthenticated >= this.#limits.unauthenticated) return
    this.#cancelDrain ??= this.#clock.after(drainMs, () => {
      this.#cancelDrain = undefined
      this.#drain()
      this.#scheduleDrain()
    })
  }

  #drain(): void {
    const now = this.#clock.monotonic()
    for (const address of this.#ready) {
      if (this.#unauthenticated >= this.#limits.unauthenticated) return
      const queue = this.#queues.get(address)
      const one = queue?.[0]
      if (one && !one.socket.destroyed && !this.#bucket.take(now)) return
      this.#ready.delete(address)
      if (!queue || !one) continue
      queue.shift()
      this.#waiting--
      if (queue.length === 0) this.#queues.delete(address)
      // Its CONNECT is mostly here already, unread: enough time for that is left in any case.
      const since = one.isHeldByOthers ? Math.max(one.since, now - this.#limits.connectMs + readMs) : now
      if (!one.socket.destroyed) this.#start(one.socket, address, since)
      // Back at the end of the line, where this loop comes to it again.
      if (queue.length > 0 && this.#hasOwnRoom(address)) this.#ready.add(address)
    }
  }

  #scheduleSweep(): void {
    if (this.#waiting === 0) return
    this.#cancelSweep ??= this.#clock.after(sweepMs, () => {
      this.#cancelSweep = undefined
      this.#sweep()
      this.#scheduleSweep()
    })
  }

  /** Closes what has waited too long. */
  #sweep(): void {
    const now = this.#clock.monotonic()
    this.#waiting = 0
    for (const [address, queue] of this.#queues) {
      // Behind silent sockets its time for a CONNECT runs as theirs does [M-2]; the rate may hold it longer.
      const isHeld = this.#isHeldByOthers(address)
      const patienceMs = isHeld ? this.#limits.connectMs + readMs : this.#limits.waitingMs
      const kept = queue.filter((one) => {
        if (isHeld) one.isHeldByOthers = true
        if (now - one.since > patienceMs) one.socket.destroy()
        return !one.socket.destroyed
      })
      this.#waiting += kept.length
      if (kept.length > 0) this.#queues.set(address, kept)
      else {
        this.#queues.delete(address)
        this.#ready.delete(address)
      }
      if (kept.length > this.#lengthOf(this.#longest)) this.#longest = address
    }
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
