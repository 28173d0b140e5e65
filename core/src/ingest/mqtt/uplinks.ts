// SPDX-License-Identifier: AGPL-3.0-only
import type { Reject } from '../rejects.ts'
import type { Session } from '../sessions.ts'
import type { IngestSink, Outcome, UplinkSource } from '../uplink.ts'
import { answerOutcome, answerRefusal, encodeExplainedAck, reason } from './answers.ts'
import type { Answer } from './answers.ts'
import type { Output } from './output.ts'
import type { Publish } from './packets.ts'

export type RejectRecorder = {
  record(entry: { device: Session['device']; source: UplinkSource; reject: Reject; payload: Buffer }): void
}

type Pending = { packetId: number; qos: 1 | 2; answer: Answer | undefined }

const puback = 0x40
const pubrec = 0x50
const pubcomp = 0x70
const noPayload = Buffer.alloc(0)

export type UplinksOptions = {
  session: Session
  output: Output
  sink: IngestSink
  rejects: RejectRecorder
  client: { maxPacketSize: number; wantsProblems: boolean }
  /** Something was settled: `release` should be called soon. */
  settled: () => void
}

/**
 * The unanswered uplinks of one session. Answers leave in the order in which the messages came,
 * in whatever order the sink settles them [M-23].
 */
export class Uplinks {
  readonly #options: UplinksOptions
  readonly #pending: Pending[] = []
  #openQos0 = 0
  /** Open packet ids of QoS 2; true once the message is answered and only its PUBREL is missing. */
  #openQos2: Map<number, boolean> | undefined

  constructor(options: UplinksOptions) {
    this.#options = options
  }

  /** Messages taken and not yet answered. */
  get unanswered(): number {
    return this.#pending.length + this.#openQos0
  }

  /** What MQTT 5 counts against our Receive Maximum: QoS 1 until PUBACK, QoS 2 until PUBCOMP. */
  get quotaUsed(): number {
    let waitingForRelease = 0
    if (this.#openQos2 !== undefined) for (const isAnswered of this.#openQos2.values()) if (isAnswered) waitingForRelease++
    return this.#pending.length + waitingForRelease
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
  accept(publish: Publish, kind: 'telemetry' | 'attributes', receivedAt: number): void {
    const { session, sink } = this.#options
    const pending = this.#enqueue(publish)
    let isSettled = false
    const uplink = {
      device: session.device,
      kind,
      payload: publish.payload,
      source: this.#sourceOf(publish.topic, publish.packetId),
      receivedAt,
    }
    sink.accept(uplink, (outcome) => {
      if (isSettled) return
      isSettled = true
      this.#settle(pending, outcome)
    })
  }

  /** Refuses a message that never gets to the sink, and logs it [M-42]. */
  refuse(publish: Publish, reject: Reject): void {
    const { session } = this.#options
    this.record(reject, publish.payload, publish.topic, publish.packetId)
    const pending = this.#enqueue(publish)
    if (pending === undefined) this.#openQos0--
    else this.#answer(pending, answerRefusal(reject, session.protocol, session.device.rules))
    session.inFlight = this.unanswered
    this.#options.settled()
  }

  /** Logs what is not the fault of one message. */
  record(reject: Reject, payload: Buffer = noPayload, topic = '', packetId = 0): void {
    const { session, rejects } = this.#options
    rejects.record({ device: session.device, source: this.#sourceOf(topic, packetId), reject, payload })
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
    const pending = this.#pending
    let count = 0
    let mustClose = false
    while (count < pending.length && !mustClose) {
      const { answer, packetId, qos } = pending[count]!
      if (answer === undefined) break
      count++
      mustClose = answer.do === 'close'
      if (answer.do === 'acknowledge') this.#acknowledge(packetId, qos, answer)
    }
    if (count > 0) pending.splice(0, count)
    this.#options.session.inFlight = this.unanswered
    return mustClose ? 'close' : undefined
  }

  #acknowledge(packetId: number, qos: 1 | 2, answer: { code: number; text?: string; rejected?: number }): void {
    const { output, client } = this.#options
    if (answer.code === reason.success && answer.text === undefined) output.addShort(qos === 1 ? puback : pubrec, packetId)
    else output.add(encodeExplainedAck(qos === 1 ? 'puback' : 'pubrec', packetId, answer, client))
  }

  #enqueue(publish: Publish): Pending | undefined {
    const { session } = this.#options
    if (publish.qos === 0) {
      this.#openQos0++
      session.inFlight = this.unanswered
      return undefined
    }
    if (publish.qos === 2) {
      this.#openQos2 ??= new Map()
      this.#openQos2.set(publish.packetId, false)
    }
    const pending: Pending = { packetId: publish.packetId, qos: publish.qos, answer: undefined }
    this.#pending.push(pending)
    session.inFlight = this.unanswered
    return pending
  }

  #settle(pending: Pending | undefined, outcome: Outcome): void {
    const { session } = this.#options
    if (outcome.status === 'stored') session.pointsIn += outcome.accepted
    if (pending === undefined) this.#openQos0--
    else this.#answer(pending, answerOutcome(outcome, session.protocol, session.device.rules))
    this.#options.settled()
  }

  #answer(pending: Pending, answer: Answer): void {
    pending.answer = answer
    if (pending.qos !== 2 || this.#openQos2 === undefined) return
    // A PUBREC with an error ends the exchange (MQTT 5 §4.3.3); without an answer the client starts anew.
    if (answer.do === 'acknowledge' && answer.code < 0x80) this.#openQos2.set(pending.packetId, true)
    else this.#openQos2.delete(pending.packetId)
  }

  #sourceOf(topic: string, packetId: number): UplinkSource {
    const { clientId, address } = this.#options.session
    return { transport: 'mqtt', topic, clientId, address, ...(packetId > 0 ? { packetId } : {}) }
  }
}
