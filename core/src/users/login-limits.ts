// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'

const minuteMs = 60_000
const hourMs = 60 * minuteMs

/** The thresholds of [SC-32]. */
const account = { failures: 5, windowMs: 15 * minuteMs, maxDelayMs: minuteMs }
const strangers = { failures: 30, windowMs: hourMs, delayMs: minuteMs }
const address = { failures: 100, windowMs: hourMs, blockMs: 15 * minuteMs }
const installation = { failures: 1000, windowMs: hourMs }
/** Entries of each counter; the one touched longest ago goes first. */
const maxEntries = 20_000

export type LoginTry = {
  /** What the person typed, folded: limits are the same for accounts that do not exist. */
  account: string
  address: string
  /** Id inside a valid known-device cookie of this very account. */
  deviceId: string | undefined
}

/** A try that may be evaluated. It counts as failed until told otherwise, so that parallel guesses cannot slip through. */
export type AdmittedTry = {
  succeed(): void
  /** It was not evaluated after all (server busy). */
  cancel(): void
}

/** Counts failed logins in memory. Nobody is ever locked out: a known device has its own counter [SC-32]. */
export class LoginLimits {
  readonly #clock: Clock
  readonly #onFlood: () => void
  readonly #accounts = new FailureTable(account.windowMs, 12)
  readonly #strangers = new FailureTable(strangers.windowMs, strangers.failures)
  readonly #addresses = new FailureTable(address.windowMs, address.failures)
  readonly #blockedUntil = new Map<string, number>()
  readonly #installation = new FailureTable(installation.windowMs, installation.failures)
  #floodToldAt = -Infinity

  /** @param onFlood called at most once an hour when the whole installation passes 1,000 failures per hour */
  constructor(clock: Clock, onFlood: () => void) {
    this.#clock = clock
    this.#onFlood = onFlood
  }

  /** @returns the admitted try, or the milliseconds to wait before the next one is looked at */
  begin(one: LoginTry): AdmittedTry | { waitMs: number } {
    const now = this.#clock.monotonic()
    const counter = `${one.account} ${one.deviceId ?? networkOf(one.address)}`
    const host = hostOf(one.address)
    const waitMs = Math.max(this.#accountWait(counter, now), one.deviceId ? 0 : this.#strangerWait(one.account, host, now))
    if (waitMs > 0) return { waitMs }

    const tables: [FailureTable, string][] = [[this.#accounts, counter]]
    // A known device is counted apart, or a stranger's failures would slow its owner down, and the reverse.
    if (!one.deviceId) tables.push([this.#strangers, one.account], [this.#addresses, host])
    tables.push([this.#installation, ''])
    for (const [table, key] of tables) table.add(key, now)
    const cancel = () => {
      for (const [table, key] of tables) table.remove(key, now)
    }
    this.#noteThresholds(one, host, now)
    return {
      succeed: () => {
        cancel()
        this.#accounts.clear(counter)
      },
      cancel,
    }
  }

  #accountWait(counter: string, now: number): number {
    const failures = this.#accounts.list(counter, now)
    if (failures.length < account.failures) return 0
    const delayMs = Math.min(account.maxDelayMs, 1000 * 2 ** (failures.length - account.failures))
    return failures.at(-1)! + delayMs - now
  }

  #strangerWait(name: string, host: string, now: number): number {
    const failures = this.#strangers.list(name, now)
    const slow = failures.length >= strangers.failures ? failures.at(-1)! + strangers.delayMs - now : 0
    return Math.max(slow, (this.#blockedUntil.get(host) ?? -Infinity) - now)
  }

  #noteThresholds(one: LoginTry, host: string, now: number): void {
    if (!one.deviceId && this.#addresses.list(host, now).length >= address.failures) {
      this.#blockedUntil.delete(host)
      this.#blockedUntil.set(host, now + address.blockMs)
      this.#addresses.clear(host)
      if (this.#blockedUntil.size > maxEntries) this.#blockedUntil.delete(this.#blockedUntil.keys().next().value!)
    }
    if (this.#installation.list('', now).length >= installation.failures && now - this.#floodToldAt >= installation.windowMs) {
      this.#floodToldAt = now
      this.#onFlood()
    }
  }
}

/** Times of the newest `keep` failures per key within a window. */
class FailureTable {
  readonly #windowMs: number
  readonly #keep: number
  readonly #times = new Map<string, number[]>()

  constructor(windowMs: number, keep: number) {
    this.#windowMs = windowMs
    this.#keep = keep
  }

  list(key: string, now: number): number[] {
    return (this.#times.get(key) ?? []).filter((at) => at > now - this.#windowMs)
  }

  add(key: string, now: number): void {
    const times = [...this.list(key, now), now].slice(-this.#keep)
    this.#times.delete(key)
    this.#times.set(key, times)
    if (this.#times.size > maxEntries) this.#times.delete(this.#times.keys().next().value!)
  }

  remove(key: string, at: number): void {
    const times = this.#times.get(key) ?? []
    const index = times.lastIndexOf(at)
    if (index >= 0) times.splice(index, 1)
    if (times.length === 0) this.#times.delete(key)
  }

  clear(key: string): void {
    this.#times.delete(key)
  }
}

/** IPv4 /24 or IPv6 /56. */
export function networkOf(text: string): string {
  if (!text.includes(':')) return text.split('.').slice(0, 3).join('.')
  const groups = expandIpv6(text)
  return [...groups.slice(0, 3), groups[3]!.slice(0, 2)].join(':')
}

/** One subscriber: an IPv4 address, or the IPv6 /64 inside which anybody can pick addresses at will. */
function hostOf(text: string): string {
  return text.includes(':') ? expandIpv6(text).slice(0, 4).join(':') : text
}

function expandIpv6(text: string): string[] {
  const [head = '', tail] = text.replace(/%.*$/, '').split('::')
  const before = head.split(':').filter(Boolean)
  const after = (tail ?? '').split(':').filter(Boolean)
  const middle = tail === undefined ? [] : Array.from({ length: Math.max(0, 8 - before.length - after.length) }, () => '0')
  const groups = [...before, ...middle, ...after].map((group) => group.padStart(4, '0').toLowerCase())
  // What a proxy passes on need not be an address at all.
  return [...groups, ...Array.from({ length: 8 }, () => '0000')].slice(0, 8)
}
