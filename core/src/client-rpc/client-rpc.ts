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
  readonly #waiting = new Map<string, number>()
  #waitingInAll = 0

  constructor(options: ClientRpcOptions) {
    this.#options = options
  }

  /**
   * Serves calls over MQTT. The PUBLISH is acknowledged at once: an answer that somebody has to give may take
   * long, and later messages must not wait for it.
   */
  readonly serve: RequestHandler = (request) => {
    const { device, session, id, payload } = request
    const call = this.parse(device, payload)
    if ('code' in call) return { status: 'refused', reject: call }
    const send = (reply: unknown) => session.send({ topic: answerTopic(request), payload: Buffer.from(JSON.stringify(reply)) })
    const answer = this.answer(device, call, id)
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
  answer(device: Device, { method, params }: ClientCall, id: number): unknown {
    const { clock, limits } = this.#options
    if (method === 'getSessionLimits') return sessionLimits(device, limits)
    const { clientRpc } = device.settings
    const now = clock.now()
    if (Object.hasOwn(clientRpc, method)) {
      const filled = fillReply(clientRpc[method]?.reply, { params, device: { name: device.name }, now })
      return filled === undefined ? { error: 'the reply is too long' } : filled
    }
    if (timeMethods.has(method)) return { time: now, utc: new Date(now).toISOString() }
    return this.#ask(device, { method, params }, id)
  }

  /** Tells whoever listens, and says that nobody answered when the time is over. */
  #ask(device: Device, { method, params }: ClientCall, id: number): unknown {
    const { clock, events } = this.#options
    const waiting = this.#waiting.get(device.id) ?? 0
    if (waiting >= mostWaiting || this.#waitingInAll >= mostWaitingInAll) return { error: 'too many unanswered requests' }
    this.#waiting.set(device.id, waiting + 1)
    this.#waitingInAll++
    events.emit('device.called', { tenantId: device.tenantId, deviceId: device.id, requestId: id, method, params })
    return new Promise((resolve) => {
      clock.after(device.settings.rpc.clientTimeoutMs, () => {
        this.#waitingInAll--
        const left = (this.#waiting.get(device.id) ?? 1) - 1
        if (left > 0) this.#waiting.set(device.id, left)
        else this.#waiting.delete(device.id)
        resolve({ error: 'timeout' })
      })
    })
  }
}
