// SPDX-License-Identifier: AGPL-3.0-only
import type { AttributeReads } from '../attributes/attribute-reads.ts'
import { answerTooLarge } from '../attributes/questions.ts'
import type { ClaimOffer, Claims } from '../claims/claims.ts'
import { stale } from '../commands/mqtt-commands.ts'
import type { Context } from '../context.ts'
import { LimitNotes } from '../devices/limit-notes.ts'
import type { Pipeline } from '../ingest/pipeline.ts'
import { rateReject } from '../ingest/rate-limits.ts'
import type { RejectLog } from '../ingest/reject-log.ts'
import type { Reject } from '../ingest/rejects.ts'
import { served } from '../ingest/requests.ts'
import type { DeviceRequest, RequestHandler } from '../ingest/requests.ts'
import type { Outcome } from '../ingest/uplink.ts'
import { ChildData } from './child-data.ts'
import type { WantedChild } from './child-devices.ts'
import { formatAnswer, parseAnswer, parseClaims, parseConnect, parseQuestion } from './child-requests.ts'
import type { ChildSession } from './child-session.ts'
import { ChildSessions } from './child-sessions.ts'
import type { ChildSessionParts } from './child-sessions.ts'
import { sourceOfChild } from './gateway-link.ts'
import type { ChildReject, GatewayLink, Taken } from './gateway-link.ts'

export type GatewayParts = ChildSessionParts & { rejects: RejectLog; pipeline: Pipeline; reads: AttributeReads; claims: Claims }

type Serve = (link: GatewayLink, request: DeviceRequest) => Outcome | Promise<Outcome>

/** Why a gateway is told that a child is not served: the MQTT 5 reason code of a message rate that is too high [G-8]. */
const tooFast = 150
/** A gateway that goes on too fast is told about each child this often. */
const limitToldMs = 1_000
/** [G-4] */
const metricsMs = 60_000

const unknownTopic: Reject = { code: 'TOPIC_UNKNOWN', detail: 'no gateway topic has this name' }

/**
 * Gateways and the devices behind them (device API §9). A child has a session inside that of its gateway: it is
 * online as long as both are, takes commands and attribute pushes through it, and has limits of its own.
 */
export class Gateways {
  readonly #context: Context
  readonly #parts: GatewayParts
  /** The sessions of the children. */
  readonly children: ChildSessions
  readonly #data: ChildData
  readonly #limitNotes: LimitNotes

  constructor(context: Context, parts: GatewayParts) {
    this.#context = context
    this.#parts = parts
    this.children = new ChildSessions(context, parts, (link) => this.#writeMetrics(link))
    this.#limitNotes = new LimitNotes(context.clock, parts.log, 'child_limit')
    this.#data = new ChildData({
      pipeline: parts.pipeline,
      connect: (link, names) =>
        this.children.connect(
          link,
          names.map((name) => ({ name })),
        ),
      admit: (link, child, isTelemetry) => this.#admit(link, child, isTelemetry),
      refuse: (refusal) => this.#refuse(refusal),
      measure: (link, text, receivedAt) => this.#measure(link, text, receivedAt),
    })
  }

  /** ms since 1970 of the last message that named a child which is connected. */
  activityOf(deviceId: string): number | undefined {
    return this.children.get(deviceId)?.lastActivityAt
  }

  /** Serves what gateways publish. */
  readonly serve: RequestHandler = (request) => {
    const serve = this.#topics.get(request.topic)
    if (serve === undefined) return { status: 'refused', reject: unknownTopic }
    return serve(this.children.linkOf(request.session), request)
  }

  readonly #topics: ReadonlyMap<string, Serve> = new Map<string, Serve>([
    ['v1/gateway/telemetry', (link, request) => link.inTurn(() => this.#data.take(link, request, 'telemetry'))],
    ['v1/gateway/attributes', (link, request) => link.inTurn(() => this.#data.take(link, request, 'attributes'))],
    ['v1/gateway/connect', (link, request) => this.#serveConnect(link, request)],
    ['v1/gateway/disconnect', (link, request) => this.#serveDisconnect(link, request)],
    ['v1/gateway/attributes/request', (link, request) => this.#serveQuestion(link, request)],
    ['v1/gateway/rpc', (link, request) => this.#serveAnswer(link, request)],
    ['v1/gateway/claim', (link, request) => this.#serveClaims(link, request)],
  ])

  /** [G-1] */
  #serveConnect(link: GatewayLink, request: DeviceRequest): Outcome | Promise<Outcome> {
    const wanted = parseConnect(request.payload, request.device.rules)
    if ('code' in wanted) return { status: 'refused', reject: wanted }
    return this.#withChild(link, request, wanted, () => served)
  }

  #serveDisconnect(link: GatewayLink, request: DeviceRequest): Outcome | Promise<Outcome> {
    const wanted = parseConnect(request.payload, request.device.rules)
    if ('code' in wanted) return { status: 'refused', reject: wanted }
    return link.inTurn(() => {
      const child = link.children.get(wanted.name)
      if (child) this.children.end(child, 'client')
      return { outcome: served }
    })
  }

  /** [G-6] */
  #serveQuestion(link: GatewayLink, request: DeviceRequest): Outcome | Promise<Outcome> {
    const asked = parseQuestion(request.payload, request.device.rules)
    if ('code' in asked) return { status: 'refused', reject: asked }
    return this.#withChild(link, request, asked, async (child): Promise<Outcome> => {
      const answer = await this.#parts.reads.read(child.device, asked.question)
      if (answer === 'unavailable') return { status: 'unavailable' }
      if (answer === 'too_large') return { status: 'refused', reject: answerTooLarge }
      link.session.send({ topic: 'v1/gateway/attributes/response', payload: Buffer.from(formatAnswer(asked, answer)) })
      return served
    })
  }

  /** [G-7] */
  #serveAnswer(link: GatewayLink, request: DeviceRequest): Outcome | Promise<Outcome> {
    const answer = parseAnswer(request.payload, request.device.rules)
    if ('code' in answer) return { status: 'refused', reject: answer }
    return this.#withChild(link, request, answer, async (child): Promise<Outcome> => {
      if (await this.#parts.commands.answer(child.device, answer.id, answer.data)) return served
      this.#refuse({ request, child, name: child.name, reject: stale, payload: request.payload })
      return { status: 'stored', accepted: 0, rejects: [stale] }
    })
  }

  /** [CL-1] */
  #serveClaims(link: GatewayLink, request: DeviceRequest): Outcome | Promise<Outcome> {
    const offers = parseClaims(request.payload, request.device.rules)
    if ('code' in offers) return { status: 'refused', reject: offers }
    const wanted = [...offers].flatMap(([name, offer]) => ('code' in offer ? [] : [{ name }]))
    return link.inTurn(async (): Promise<Taken> => {
      const children = await this.children.connect(link, wanted)
      if (children === 'unavailable') return { outcome: { status: 'unavailable' } }
      const rejects: Reject[] = []
      for (const [name, offer] of offers) {
        const reject = 'code' in offer ? offer : await this.#takeOffer(link, children.get(name)!, offer)
        if (reject === undefined) continue
        rejects.push(reject)
        // Nothing of a claim may be kept in a log [L-3].
        this.#refuse({ request, child: link.children.get(name), name, reject, payload: Buffer.alloc(0) })
      }
      if (rejects.length > 0 && rejects.length === offers.size) return { outcome: { status: 'rejected', rejects } }
      return { outcome: { status: 'stored', accepted: 0, rejects } }
    })
  }

  async #takeOffer(link: GatewayLink, child: ChildSession | Reject, offer: ClaimOffer): Promise<Reject | undefined> {
    const reject = 'code' in child ? child : this.#admit(link, child, false)
    if (reject === undefined && !('code' in child)) await this.#parts.claims.offer(child.device, offer)
    return reject
  }

  /** Connects the one child a message names, and serves it unless it comes too fast. */
  #withChild(
    link: GatewayLink,
    request: DeviceRequest,
    wanted: WantedChild,
    serve: (child: ChildSession) => Outcome | Promise<Outcome>,
  ): Outcome | Promise<Outcome> {
    const refuse = (reject: Reject, child?: ChildSession): Taken => {
      this.#refuse({ request, child, name: wanted.name, reject, payload: request.payload })
      return { outcome: { status: 'rejected', rejects: [reject] } }
    }
    const take = (child: ChildSession | Reject): Taken => {
      if ('code' in child) return refuse(child)
      child.lastActivityAt = request.receivedAt
      const excess = this.#admit(link, child, false)
      return excess === undefined ? { outcome: serve(child) } : refuse(excess, child)
    }
    return link.inTurn(() => {
      const known = link.children.get(wanted.name)
      if (known !== undefined) return take(known)
      return this.children
        .connect(link, [wanted])
        .then((found) => (found === 'unavailable' ? { outcome: { status: 'unavailable' } } : take(found.get(wanted.name)!)))
    })
  }

  /** [G-8] Never holds the gateway up: what comes too fast is refused at once. */
  #admit(link: GatewayLink, child: ChildSession, isTelemetry: boolean): Reject | undefined {
    const limiter = link.session.device.limits?.childLimiter(child.device)
    if (limiter === undefined) return undefined
    const now = this.#context.clock.monotonic()
    const excess = limiter.admit(isTelemetry, now)
    if (excess === undefined) return undefined
    if (now - child.limitToldAt >= limitToldMs) {
      child.limitToldAt = now
      child.tellDisconnect(tooFast)
    }
    return rateReject(excess)
  }

  /** A refusal shows at the child when there is one; what the gateway itself did wrong, or cannot have, shows there too. */
  #refuse({ request, child, name, reject, payload }: ChildReject): void {
    const source = sourceOfChild(request)
    if (child) this.#parts.rejects.record({ device: child.device, source, reject, payload })
    const isGateways = child === undefined || reject.code === 'SHAPE_INVALID'
    if (isGateways) this.#parts.rejects.record({ device: request.device, source, reject: { ...reject, key: name }, payload })
    if (reject.code === 'DEVICE_LIMIT') this.#limitNotes.add(request.device, name, { child: name })
  }

  /** [G-4] */
  #measure(link: GatewayLink, text: string, receivedAt: number): boolean {
    const isMetadata = link.metrics.add(text, receivedAt)
    if (isMetadata) link.cancelMetrics ??= this.#context.clock.after(metricsMs, () => this.#writeMetrics(link))
    return isMetadata
  }

  #writeMetrics(link: GatewayLink): void {
    link.cancelMetrics?.()
    link.cancelMetrics = undefined
    if (link.metrics.isEmpty) return
    const payload = Buffer.from(`{"gatewayMetrics":${link.metrics.take()}}`)
    const { device } = link.session
    const source = { transport: 'user', topic: '', address: '' } as const
    const receivedAt = this.#context.clock.now()
    this.#parts.pipeline.accept({ device, kind: 'telemetry', payload, transport: 'user', source, receivedAt }, () => {})
  }
}
