// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import { ProblemError } from '../errors.ts'
import type { ProductSettings, Rates } from '../products/schemas.ts'
import { parseRate } from './rate-grammar.ts'
import type { RateEntry } from './rate-grammar.ts'
import type { Device } from './registry.ts'
import type { Reject } from './rejects.ts'

/** Whose messages a limit counts [§15.2]. */
export type RateScope = 'device' | 'gateway' | 'gatewayDevice'
/** The limits of each scope, as the installation or a product sets them. */
export type ScopeRates = Readonly<Record<RateScope, Rates | null>>

export const noRates: ScopeRates = { device: null, gateway: null, gatewayDevice: null }

const counters = ['messages', 'telemetryMessages', 'telemetryDataPoints'] as const
type Counter = (typeof counters)[number]

/** A message that fits within this time only waits. */
export const mostWaitMs = 5_000
/** HTTP requests of one device that wait for their turn; more are refused at once. */
const mostWaiting = 100
/** After so many refusals in so long a session is ended. */
const mostRefusals = 100
const refusalWindowMs = 60_000

/** A message that comes too fast: how long until it fits, and by which limit. */
export type Excess = { waitMs: number; limit: string }

/** A token bucket that may be overdrawn, so that a message larger than all of it passes once and is paid off. */
class Bucket {
  readonly #entry: RateEntry
  readonly #perMs: number
  #tokens: number
  #at: number

  constructor(entry: RateEntry, now: number) {
    this.#entry = entry
    this.#perMs = entry.count / (entry.seconds * 1000)
    this.#tokens = entry.count
    this.#at = now
  }

  get text(): string {
    return `${this.#entry.count}:${this.#entry.seconds}`
  }

  waitMs(now: number): number {
    this.#tokens = Math.min(this.#entry.count, this.#tokens + (now - this.#at) * this.#perMs)
    this.#at = now
    // A timer that is right to the millisecond must find the token it waited for.
    return this.#tokens > 1 - 1e-6 ? 0 : (1 - this.#tokens) / this.#perMs
  }

  take(cost: number): void {
    this.#tokens -= cost
  }
}

/** The buckets of one device, or of one child of a gateway. */
export class RateLimiter {
  readonly #scope: RateScope
  readonly #buckets: { counter: Counter; bucket: Bucket }[]
  /** HTTP requests that wait for their turn. */
  waiting = 0
  #refusals = 0
  #refusalsSince = 0

  constructor(scope: RateScope, rates: Rates, now: number) {
    this.#scope = scope
    this.#buckets = counters.flatMap((counter) => entriesOf(rates[counter]).map((entry) => ({ counter, bucket: new Bucket(entry, now) })))
  }

  /** Takes a message in, or tells how long it has to wait. Its points are counted once they are known. */
  admit(isTelemetry: boolean, now: number): Excess | undefined {
    let excess: Excess | undefined
    for (const { counter, bucket } of this.#buckets) {
      if (counter !== 'messages' && !isTelemetry) continue
      const waitMs = bucket.waitMs(now)
      if (waitMs > (excess?.waitMs ?? 0)) excess = { waitMs, limit: `${this.#scope}.${counter} ${bucket.text}` }
    }
    if (excess !== undefined) return excess
    for (const { counter, bucket } of this.#buckets) {
      if (counter === 'messages' || (counter === 'telemetryMessages' && isTelemetry)) bucket.take(1)
    }
    return undefined
  }

  takePoints(count: number): void {
    for (const { counter, bucket } of this.#buckets) if (counter === 'telemetryDataPoints') bucket.take(count)
  }

  /** Counts a refusal; true when it is one too many, then counting starts anew. */
  isOneTooMany(now: number): boolean {
    if (this.#refusals === 0 || now - this.#refusalsSince > refusalWindowMs) {
      this.#refusals = 0
      this.#refusalsSince = now
    }
    this.#refusals++
    if (this.#refusals <= mostRefusals) return false
    this.#refusals = 0
    return true
  }
}

/** What limits a device has: those of its own messages, and for a gateway those of each child. */
export class DeviceLimits {
  /** Limits of the device's own messages; undefined when only children are limited. */
  readonly own: RateLimiter | undefined
  readonly ownRates: Rates
  readonly childRates: Rates
  readonly #now: () => number
  readonly #children = new WeakMap<Device, RateLimiter>()

  constructor(scope: 'device' | 'gateway', rates: { own: Rates; child: Rates }, now: () => number) {
    this.own = isSet(rates.own) ? new RateLimiter(scope, rates.own, now()) : undefined
    this.ownRates = rates.own
    this.childRates = rates.child
    this.#now = now
  }

  /** The limiter of a child of this gateway; undefined when children are not limited. */
  childLimiter(child: Device): RateLimiter | undefined {
    if (!isSet(this.childRates)) return undefined
    const known = this.#children.get(child)
    if (known !== undefined) return known
    const limiter = new RateLimiter('gatewayDevice', this.childRates, this.#now())
    this.#children.set(child, limiter)
    return limiter
  }
}

/**
 * The limits of a device by its product and the installation; undefined when there are none, which is usual.
 * `before` is kept when nothing of it has changed, with the fill of its buckets.
 */
export function chooseLimits(
  before: DeviceLimits | undefined,
  product: ProductSettings['limits'],
  installation: ScopeRates,
  isGateway: boolean,
  now: () => number,
): DeviceLimits | undefined {
  const scope = isGateway ? 'gateway' : 'device'
  const own = mergeRates(product[scope], installation[scope])
  const child = isGateway ? mergeRates(product.gatewayDevice, installation.gatewayDevice) : unlimited
  if (!isSet(own) && !isSet(child)) return undefined
  const isSame = before !== undefined && isEqual(before.ownRates, own) && isEqual(before.childRates, child)
  return isSame ? before : new DeviceLimits(scope, { own, child }, now)
}

/** What a refused message is told, and the reject log, [Q-6]. */
export function rateReject({ limit, waitMs }: Excess): Reject {
  return { code: 'RATE_LIMITED', detail: `rate limit ${limit}, retry in ${Math.ceil(waitMs / 1000)} s` }
}

/**
 * Lets an HTTP request of a device wait for its turn.
 *
 * @throws {ProblemError} `RATE_LIMITED` when it would have to wait too long
 */
export async function admitRequest(
  device: Device,
  isTelemetry: boolean,
  { clock, refused }: { clock: Clock; refused: (reject: Reject) => void },
): Promise<void> {
  const limiter = device.limits?.own
  if (limiter === undefined) return
  const start = clock.monotonic()
  for (;;) {
    const now = clock.monotonic()
    const excess = limiter.admit(isTelemetry, now)
    if (excess === undefined) return
    if (now - start + excess.waitMs > mostWaitMs || limiter.waiting >= mostWaiting) {
      const reject = rateReject(excess)
      refused(reject)
      throw new ProblemError('RATE_LIMITED', {
        errors: [{ pointer: '', code: reject.code, detail: reject.detail }],
        retryAfterS: Math.ceil(excess.waitMs / 1000),
      })
    }
    limiter.waiting++
    await new Promise<void>((resolve) => clock.after(Math.ceil(excess.waitMs), resolve))
    limiter.waiting--
  }
}

type SessionLimits = {
  maxPayloadSize: number
  maxInflightMessages: number
  rateLimits: Rates
  gatewayRateLimits?: Rates
}

/** The answer to `getSessionLimits`. */
export function sessionLimits({ limits, isGateway }: Device, endpoint: { payloadBytes: number; inFlight: number }): SessionLimits {
  const common = { maxPayloadSize: endpoint.payloadBytes, maxInflightMessages: endpoint.inFlight }
  const own = limits?.ownRates ?? unlimited
  if (!isGateway) return { ...common, rateLimits: own }
  // Server and SDK disagree which of the two means the gateway itself, so both say the stricter.
  const stricter = Object.fromEntries(
    counters.map((counter) => [counter, stricterRate(own[counter], limits?.childRates[counter] ?? null)]),
  ) as Rates
  return { ...common, rateLimits: stricter, gatewayRateLimits: stricter }
}

const unlimited: Rates = { messages: null, telemetryMessages: null, telemetryDataPoints: null }

/** The product's limit of each counter, else the installation's; the empty text is none. */
function mergeRates(product: Rates | null, installation: Rates | null): Rates {
  const choose = (counter: Counter) => (product?.[counter] ?? installation?.[counter] ?? null) || null
  return {
    messages: choose('messages'),
    telemetryMessages: choose('telemetryMessages'),
    telemetryDataPoints: choose('telemetryDataPoints'),
  }
}

function isSet(rates: Rates): boolean {
  return counters.some((counter) => rates[counter] !== null)
}

function isEqual(a: Rates, b: Rates): boolean {
  return counters.every((counter) => a[counter] === b[counter])
}

/** What is stored has been checked. */
function entriesOf(rate: string | null): readonly RateEntry[] {
  const entries = parseRate(rate ?? '')
  return typeof entries === 'string' ? [] : entries
}

function stricterRate(a: string | null, b: string | null): string | null {
  if (a === null || b === null) return a ?? b
  const perSecond = (rate: string) => {
    const { count, seconds } = entriesOf(rate).reduce((longest, entry) => (entry.seconds > longest.seconds ? entry : longest))
    return count / seconds
  }
  return perSecond(b) < perSecond(a) ? b : a
}
