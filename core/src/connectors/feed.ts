// SPDX-License-Identifier: AGPL-3.0-only
import type { Context } from '../context.ts'
import { nextServerTs } from '../ingest/codecs.ts'
import { rateReject } from '../ingest/rate-limits.ts'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import type { Ingest } from '../ingest/start-ingest.ts'
import type { Outcome, UplinkSource } from '../ingest/uplink.ts'
import type { Point } from '../telemetry/points.ts'
import { mapMessage } from './mapping.ts'
import type { CompiledRule, MappedItem } from './mapping.ts'

export type FeedParts = Pick<Ingest, 'registry' | 'sessions' | 'rejects' | 'pipeline' | 'children'>
/** A message of a broker. */
export type Message = { topic: string; payload: Buffer; receivedAt: number; source: UplinkSource }
/** What became of a message; `unavailable` when the server stops before it could be committed. */
export type Fed = { points: number; refused: number } | 'unavailable'

type Refusal = { reject: Reject; until: number }

/** A refused name is asked for again after this time, not with each message. */
const refusedMs = 10_000
/** Names of devices kept at most; beyond it all are looked up anew. */
const maxKnown = 100_000
/** Names asked for in one go. */
const maxAsked = 500
/** Of a payload, as devices may send it. */
export const maxPayloadBytes = 1_048_576

/** The way of a message from a broker to its commit: map, find or make its devices, store, count what is refused. */
export class Feed {
  readonly #context: Context
  readonly #parts: FeedParts
  /** The connector's own device: the gateway of those it brings. */
  readonly #gateway: Device
  readonly #rules: readonly CompiledRule[]
  readonly #known = new Map<string, Device | Refusal>()
  readonly #asked = new Map<string, { product: string | undefined; waiting: (() => void)[] }>()
  #isAsking = false
  #isGivenUp = false

  constructor(context: Context, parts: FeedParts, gateway: Device, rules: readonly CompiledRule[]) {
    this.#context = context
    this.#parts = parts
    this.#gateway = gateway
    this.#rules = rules
  }

  /** Calls `settle` once, never before the commit of all that is to be stored. */
  take(message: Message, settle: (fed: Fed) => void): void {
    const { payload, topic } = message
    if (payload.length > maxPayloadBytes) {
      this.#refuse(message, { code: 'PACKET_TOO_LARGE', detail: `${payload.length} bytes; a payload may have ${maxPayloadBytes}` })
      return settle({ points: 0, refused: 1 })
    }
    const mapped = mapMessage(this.#rules, this.#gateway.rules, topic, payload)
    if (mapped.refused) {
      this.#refuse(message, mapped.refused)
      return settle({ points: 0, refused: 1 })
    }
    const { items } = mapped
    const unknown = items.filter((item) => this.#find(item.name) === undefined)
    if (unknown.length === 0) return this.#store(message, items, settle)
    let missing = unknown.length
    for (const item of unknown) {
      this.#ask(item, () => {
        if (--missing > 0) return
        if (this.#isGivenUp) settle('unavailable')
        else this.#store(message, items, settle)
      })
    }
  }

  #store(message: Message, items: readonly MappedItem[], settle: (fed: Fed) => void): void {
    let open = items.length
    let points = 0
    let refused = 0
    let isLost = false
    if (open === 0) return settle({ points, refused })
    for (const item of items) {
      this.#storeItem(message, item, (outcome) => {
        if (outcome.status === 'unavailable') isLost = true
        else if (outcome.status === 'refused') refused++
        else {
          refused += outcome.rejects.length
          if (outcome.status === 'stored') points += outcome.accepted
          for (const reject of outcome.rejects) this.#refuse(message, reject)
        }
        if (--open === 0) settle(isLost ? 'unavailable' : { points, refused })
      })
    }
  }

  #storeItem(message: Message, item: MappedItem, settle: (outcome: Outcome) => void): void {
    const device = this.#find(item.name)
    const reject = this.#admit(device, item)
    if (reject || !device || 'reject' in device) {
      const refusal = reject ?? { code: 'CHILD_FORBIDDEN', detail: 'the device was taken away at this moment' }
      this.#refuse(message, { ...refusal, key: item.name.slice(0, 100) })
      if (device && !('reject' in device)) {
        this.#parts.rejects.record({ device, source: message.source, reject: refusal, payload: message.payload })
      }
      return settle({ status: 'refused', reject: refusal })
    }
    const { payload, source, receivedAt } = message
    const decoded = toPoints(item, device, receivedAt)
    const count = decoded.points.length + decoded.rejects.length
    this.#gateway.limits?.own?.takePoints(count)
    this.#gateway.limits?.childLimiter(device)?.takePoints(count)
    this.#parts.pipeline.take({ device, kind: item.kind, payload, transport: 'connector', source, receivedAt }, decoded, settle)
  }

  /** [G-8] A child that comes too fast is refused at once and holds nobody else up. */
  #admit(device: Device | Refusal | undefined, item: MappedItem): Reject | undefined {
    if (!device) return undefined
    if ('reject' in device) return device.reject
    const excess = this.#gateway.limits?.childLimiter(device)?.admit(item.kind === 'telemetry', this.#context.clock.monotonic())
    return excess && rateReject(excess)
  }

  /** What is known of a name and still true. */
  #find(name: string): Device | Refusal | undefined {
    const known = this.#known.get(name)
    if (known === undefined) return undefined
    if ('reject' in known) return known.until > this.#context.clock.monotonic() ? known : undefined
    const { registry, sessions } = this.#parts
    const isOurs = registry.get(known.id) === known && known.name === name && known.gatewayId === this.#gateway.id
    // [G-3] A device that speaks for itself now is not spoken for.
    return isOurs && !known.isDisabled && !sessions.get(known.id) ? known : undefined
  }

  #ask({ name, product }: MappedItem, done: () => void): void {
    const asked = this.#asked.get(name)
    if (asked) return void asked.waiting.push(done)
    this.#asked.set(name, { product, waiting: [done] })
    if (!this.#isAsking) void this.#answer()
  }

  /** One question to the database at a time, for all names that came up meanwhile. */
  async #answer(): Promise<void> {
    this.#isAsking = true
    // What arrived together is asked for together.
    await Promise.resolve()
    while (this.#asked.size > 0) {
      const asked = [...this.#asked].slice(0, maxAsked)
      const found = await this.#ensure(asked.map(([name, { product }]) => ({ name, type: product })))
      if (found === 'unavailable') this.#isGivenUp = true
      else {
        if (this.#known.size + found.size > maxKnown) this.#known.clear()
        const until = this.#context.clock.monotonic() + refusedMs
        for (const [name, device] of found) this.#known.set(name, 'code' in device ? { reject: device, until } : device)
      }
      for (const [name, { waiting }] of asked) {
        this.#asked.delete(name)
        for (const done of waiting) done()
      }
    }
    this.#isAsking = false
  }

  async #ensure(wanted: readonly { name: string; type: string | undefined }[]): Promise<Map<string, Device | Reject> | 'unavailable'> {
    try {
      return await this.#parts.children.ensure(this.#gateway, wanted)
    } catch (error) {
      this.#context.log.error({ err: error, gateway: this.#gateway.id }, 'devices of a connector could not be found or made')
      const reject: Reject = { code: 'STORE_FAILED', detail: 'the device could not be found or made; the log of the server says why' }
      return new Map(wanted.map(({ name }) => [name, reject]))
    }
  }

  /** Every refusal shows at the connector; the pipeline shows it at the device as well. */
  #refuse({ source, payload }: Message, reject: Reject): void {
    this.#parts.rejects.record({ device: this.#gateway, source, reject, payload })
  }
}

/** The points of an item, as soon as its device is known: by when they were measured, or in the order they came. */
export function toPoints(
  { kind, ts, values, rejects }: MappedItem,
  device: Pick<Device, 'lastServerTs' | 'rules'>,
  receivedAt: number,
): { points: Point[]; rejects: readonly Reject[] } {
  if (values.length === 0) return { points: [], rejects }
  if (kind === 'attributes') return { points: values.map((value) => ({ ...value, ts: receivedAt })), rejects }
  if (ts === undefined) {
    const own = nextServerTs(device, receivedAt)
    return { points: values.map((value) => ({ ...value, ts: own })), rejects }
  }
  const { maxFutureMs } = device.rules
  if (ts <= receivedAt + maxFutureMs) return { points: values.map((value) => ({ ...value, ts })), rejects }
  const detail = `the time is more than ${maxFutureMs} ms ahead of the server (payload.maxFutureMs of the product)`
  return { points: [], rejects: [...rejects, ...values.map(({ key }): Reject => ({ code: 'TS_FUTURE', detail, key, ts }))] }
}
