// SPDX-License-Identifier: AGPL-3.0-only
import { classifyDbError } from '../../db/errors.ts'
import type { Log } from '../../log.ts'
import type { Reject } from '../rejects.ts'
import type { RequestHandler } from '../requests.ts'
import type { Session } from '../sessions.ts'
import type { IngestSink, Outcome, Uplink, UplinkKind, UplinkSource } from '../uplink.ts'
import { answerOutcome, encodeExplainedAck, reason } from './answers.ts'
import type { Answer } from './answers.ts'
import type { Output } from './output.ts'
import type { Publish } from './packets.ts'
import type { RequestRoom } from './request-room.ts'
import { hasSecretPayload } from './topics.ts'
import type { Route } from './topics.ts'

export type RejectRecorder = {
  record(entry: { device: Session['device']; source: UplinkSource; reject: Reject; payload: Buffer }): void
}

const puback = 0x40
const pubrec = 0x50
const pubcomp = 0x70
const noPayload = Buffer.alloc(0)

export type UplinksOptions = {
  session: Session
  output: Output
  sink: IngestSink
  rejects: RejectRecorder
  requestRoom: RequestRoom
  client: { maxPacketSize: number; wantsProblems: boolean }
  /** Something was settled: `release` should be called soon. */
  settled: () => void
  log: Log
}

/** A message from its arrival to its answer: what the sink sees of it, and a link of the chain of unanswered ones. */
class Waiting implements Uplink {
  readonly kind: UplinkKind
  /** Let go of once the sink has looked at it. */
  payload: Buffer
  readonly receivedAt: number
  readonly topic: string
  readonly packetId: number
  readonly qos: 0 | 1 | 2
  isSettled = false
  answer: Answer | undefined
  next: Waiting | undefined
  readonly #session: Session

  constructor(session: Session, publish: Publish, kind: UplinkKind, receivedAt: number) {
    this.#session = session
    this.kind = kind
    this.payload = publish.payload
    this.receivedAt = receivedAt
    this.topic = publish.topic
    this.packetId = publish.packetId
    this.qos = publish.qos
  }

  get device(): Session['device'] {
    return this.#session.device
  }

  get transport(): 'mqtt' {
    return 'mqtt'
  }

  get source(): UplinkSource {
    return sourceOf(this.#session, this.topic, this.packetId)
  }
}

/**
 * The unanswered uplinks of one session. Answers leave in the order in which the messages came,
 * in whatever order the sink settles them [M-23].
 */
export class Uplinks {
  readonly #options: UplinksOptions
  /** The chain of unanswered messages of QoS 1 and 2, oldest first. */
  #oldest: Waiting | undefined
  #newest: Waiting | undefined
  #open = 0
  #openQos0 = 0
  /** Open packet ids of QoS 2; true once the message is answered and only its PUBREL is missing. */
  #openQos2: Map<number, boolean> | undefined

  constructor(options: UplinksOptions) {
    this.#options = options
  }

  /** Messages taken and not yet answered. */
  get unanswered(): number {
    return this.#open + this.#openQos0
  }

  /** What MQTT 5 counts against our Receive Maximum: QoS 1 until PUBACK, QoS 2 until PUBCOMP. */
  get quotaUsed(): number {
    let waitingForRelease = 0
    if (this.#openQos2 !== undefined) for (const isAnswered of this.#openQos2.values()) if (isAnswered) waitingForRelease++
    return this.#open + waitingForRelease
  }

  get openQos2(): number {
    return this.#openQos2?.size ?? 0
  }

  /** True when the packet id belongs to a message of QoS 2 that is known already [M-22]. */
  isRepeated(publish: Publish): boolean {
    return publish.qos === 2 && this.#openQos2?.has(publish.packetId) === true
  }

  /** A repeated QoS 2 message is not stored again; it gets its PUBREC again if it had one. */
  repeat(publish: Publish): void {
    if (this.#openQos2?.get(publish.packetId) === true) this.#options.output.addShort(pubrec, publish.packetId)
  }

  /** Hands a message on a known topic to the sink. */
  accept(publish: Publish, kind: UplinkKind, receivedAt: number): void {
    const waiting = this.#enqueue(new Waiting(this.#options.session, publish, kind, receivedAt))
    this.#options.sink.accept(waiting, (outcome) => this.#settle(waiting, outcome))
    waiting.payload = noPayload
  }

  /** Hands a request to its handler; the outcome is answered in its turn like that of any message. */
  request(publish: Publish, route: Route, handler: RequestHandler, receivedAt: number): void {
    const { session, requestRoom, log } = this.#options
    const { topic, payload, packetId } = publish
    requestRoom.enter(payload.length)
    const waiting = this.#enqueue(new Waiting(session, publish, 'telemetry', receivedAt))
    waiting.payload = noPayload
    const { kind, form, id, chunk } = route
    const request = { device: session.device, session, kind, form, id, chunk, topic, payload, receivedAt, source: waiting.source }
    const settle = (outcome: Outcome): void => {
      requestRoom.leave(payload.length)
      if (outcome.status === 'refused') this.record(outcome.reject, payload, topic, packetId)
      this.#settle(waiting, outcome)
    }
    // Not acknowledged, so that the device sends it again.
    const fail = (err: unknown): void => {
      // Such as at the end of the server, when the connections to the database have gone.
      const level = classifyDbError(err) === 'unavailable' ? 'warn' : 'error'
      log[level]({ err, topic, deviceId: session.device.id }, 'a request of a device failed')
      settle({ status: 'unavailable' })
    }
    let outcome: Outcome | Promise<Outcome>
    try {
      outcome = handler(request)
    } catch (err) {
      return fail(err)
    }
    if (outcome instanceof Promise) outcome.then(settle, fail)
    else settle(outcome)
  }

  /** Refuses a message that never gets to the sink, and logs it [M-42]. */
  refuse(publish: Publish, reject: Reject): void {
    this.record(reject, publish.payload, publish.topic, publish.packetId)
    const waiting = this.#enqueue(new Waiting(this.#options.session, publish, 'telemetry', 0))
    this.#settle(waiting, { status: 'refused', reject })
  }

  /** Logs what is not the fault of one message. */
  record(reject: Reject, payload: Buffer = noPayload, topic = '', packetId = 0): void {
    const { session, rejects } = this.#options
    const shown = hasSecretPayload(topic) ? noPayload : payload
    rejects.record({ device: session.device, source: sourceOf(session, topic, packetId), reject, payload: shown })
  }

  /** PUBCOMP answers every PUBREL. An id still waiting for its commit stays open. */
  release(packetId: number): void {
    const { output, session } = this.#options
    const isKnown = this.#openQos2?.has(packetId) === true
    if (this.#openQos2?.get(packetId) === true) this.#openQos2.delete(packetId)
    if (isKnown || session.protocol < 5) output.addShort(pubcomp, packetId)
    else output.add(Buffer.from([pubcomp, 3, packetId >> 8, packetId & 0xff, reason.packetIdNotFound]))
  }

  /** Writes the answers that are due; `close` when one of them can only be given by closing. */
  writeAnswers(): 'close' | undefined {
    let first = this.#oldest
    let mustClose = false
    while (first?.answer !== undefined && !mustClose) {
      const { answer, packetId, qos } = first
      mustClose = answer.do === 'close'
      if (answer.do === 'acknowledge') this.#acknowledge(packetId, qos, answer)
      first = first.next
      this.#open--
    }
    this.#oldest = first
    if (first === undefined) this.#newest = undefined
    return mustClose ? 'close' : undefined
  }

  #acknowledge(packetId: number, qos: 0 | 1 | 2, answer: { code: number; text?: string; rejected?: number }): void {
    const { output, client } = this.#options
    if (answer.code === reason.success && answer.text === undefined) output.addShort(qos === 1 ? puback : pubrec, packetId)
    else output.add(encodeExplainedAck(qos === 1 ? 'puback' : 'pubrec', packetId, answer, client))
  }

  #enqueue(waiting: Waiting): Waiting {
    if (waiting.qos === 0) this.#openQos0++
    else {
      if (this.#newest === undefined) this.#oldest = waiting
      else this.#newest.next = waiting
      this.#newest = waiting
      this.#open++
    }
    if (waiting.qos === 2) {
      this.#openQos2 ??= new Map()
      this.#openQos2.set(waiting.packetId, false)
    }
    return waiting
  }

  #settle(waiting: Waiting, outcome: Outcome): void {
    if (waiting.isSettled) return
    waiting.isSettled = true
    const { session } = this.#options
    if (outcome.status === 'stored') session.pointsIn += outcome.accepted
    if (waiting.qos === 0) this.#openQos0--
    else this.#answer(waiting, answerOutcome(outcome, session.protocol, session.device.rules))
    this.#options.settled()
  }

  #answer(waiting: Waiting, answer: Answer): void {
    waiting.answer = answer
    if (waiting.qos !== 2 || this.#openQos2 === undefined) return
    // A PUBREC with an error ends the exchange (MQTT 5 §4.3.3); without an answer the client starts anew.
    if (answer.do === 'acknowledge' && answer.code < 0x80) this.#openQos2.set(waiting.packetId, true)
    else this.#openQos2.delete(waiting.packetId)
  }
}

function sourceOf({ clientId, address }: Session, topic: string, packetId: number): UplinkSource {
  return { transport: 'mqtt', topic, clientId, address, ...(packetId > 0 ? { packetId } : {}) }
}
