// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { EventBus } from '../events.ts'
import { decodeAttributes } from '../ingest/codecs.ts'
import { answerTopic } from '../ingest/mqtt/topics.ts'
import { sessionLimits } from '../ingest/rate-limits.ts'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import { served } from '../ingest/requests.ts'
import type { RequestHandler } from '../ingest/requests.ts'
import { toJsonValue } from '../telemetry/values.ts'
import { fillReply } from './replies.ts'

/** What a device asks the server to do. */
export type ClientCall = { method: string; params: unknown }

const wrongShape: Reject = { code: 'SHAPE_INVALID', detail: 'expected {"method":"…","params":…}, the method a text' }
/** Calls that nobody has answered yet, of one device and of all; each waits for its time to be over. */
const mostWaiting = 100
const mostWaitingInAll = 10_000
const timeMethods: ReadonlySet<string> = new Set(['getServerTime', 'getCurrentTime', 'getTime'])

export type ClientRpcOptions = {
  clock: Clock
  events: EventBus
  /** Of the MQTT endpoint, for `getSessionLimits`. */
  limits: { payloadBytes: number; inFlight: number }
}

/** Calls that devices make to the server (device API §6.3). */
export class ClientRpc {
  readonly #options: ClientRpcOptions
  /** By device and number: what a reply goes to. */
  readonly #waiting = new Map<string, Map<number, (reply: unknown) => void>>()
  #waitingInAll = 0
  /** Devices number as they like, and over HTTP not at all; ours never comes twice, not after a restart either. */
  #lastNo: number

  constructor(options: ClientRpcOptions) {
    this.#options = options
    this.#lastNo = options.clock.now()
  }

  /**
   * Serves calls over MQTT. The PUBLISH is acknowledged at once: an answer that somebody has to give may take
   * long, and later messages must not wait for it.
   */
  readonly serve: RequestHandler = (request) => {
    const { device, session, payload } = request
    const call = this.parse(device, payload)
    if ('code' in call) return { status: 'refused', reject: call }
    const topic = answerTopic(request)
    // What waits for a user must not hold the buffers of a connection that has ended meanwhile.
    const to = new WeakRef(session)
    const send = (reply: unknown) => to.deref()?.send({ topic, payload: Buffer.from(JSON.stringify(reply)) })
    const answer = this.answer(device, call)
    if (answer instanceof Promise) void answer.then(send)
    else send(answer)
    return served
  }

  /** @returns why the payload is no call */
  parse(device: Device, payload: Buffer): ClientCall | Reject {
    const decoded = decodeAttributes(payload, { ...device.rules, castNumericStrings: false })
    if ('refused' in decoded) return decoded.refused.code === 'SHAPE_INVALID' ? wrongShape : decoded.refused
    const refused = decoded.rejects.find(({ key }) => key === 'method' || key === 'params')
    if (refused !== undefined) return refused
    const method = decoded.attributes.find(({ key }) => key === 'method')
    if (method?.kind !== 'string') return wrongShape
    const params = decoded.attributes.find(({ key }) => key === 'params')
    return { method: method.value, params: params === undefined ? null : toJsonValue(params) }
  }

  /** The answer to a call, at once where the server knows it by itself, [R-15]. */
  answer(device: Device, { method, params }: ClientCall): unknown {
    const { clock, limits } = this.#options
    if (method === 'getSessionLimits') return sessionLimits(device, limits)
    const { clientRpc } = device.settings
    const now = clock.now()
    if (Object.hasOwn(clientRpc, method)) {
      const filled = fillReply(clientRpc[method]?.reply, { params, device: { name: device.name }, now })
      return filled === undefined ? { error: 'the reply is too long' } : filled
    }
    if (timeMethods.has(method)) return { time: now, utc: new Date(now).toISOString() }
    return this.#ask(device, { method, params })
  }

  /**
   * Gives a device the reply to one of its calls.
   *
   * @param no as it was told on the live stream
   * @returns false when nobody waits for it any more
   */
  reply(deviceId: string, no: number, reply: unknown): boolean {
    const settle = this.#waiting.get(deviceId)?.get(no)
    settle?.(reply)
    return settle !== undefined
  }

  /** Tells whoever listens, and says that nobody answered when the time is over. */
  #ask(device: Device, { method, params }: ClientCall): unknown {
    const { clock, events } = this.#options
    const calls = this.#waiting.get(device.id) ?? new Map<number, (reply: unknown) => void>()
    if (calls.size >= mostWaiting || this.#waitingInAll >= mostWaitingInAll) return { error: 'too many unanswered requests' }
    const requestId = ++this.#lastNo
    this.#waitingInAll++
    this.#waiting.set(device.id, calls)
    return new Promise((resolve) => {
      const settle = (reply: unknown) => {
        cancel()
        this.#waitingInAll--
        calls.delete(requestId)
        if (calls.size === 0) this.#waiting.delete(device.id)
        resolve(reply)
      }
      const cancel = clock.after(device.settings.rpc.clientTimeoutMs, () => settle({ error: 'timeout' }))
      calls.set(requestId, settle)
      // Whoever hears of it may answer at once.
      events.emit('device.called', { tenantId: device.tenantId, deviceId: device.id, requestId, method, params })
    })
  }
}
