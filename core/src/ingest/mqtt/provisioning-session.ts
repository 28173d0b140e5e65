// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../../clock.ts'
import type { Log } from '../../log.ts'
import { defaultPayloadRules } from '../registry.ts'
import type { Reject } from '../rejects.ts'
import { answerRefusal, encodeExplainedAck, encodeSuback, encodeUnsuback, reason } from './answers.ts'
import type { Connect } from './connect.ts'
import type { Conversation, Frame, Mistake } from './conversation.ts'
import { Downlinks } from './downlinks.ts'
import type { MqttLimits } from './limits.ts'
import type { Output } from './output.ts'
import { isTopicAllowed, packetType, parsePacket, parsePublish } from './packets.ts'
import type { Publish } from './packets.ts'
import { releaseFilters } from './subscriptions.ts'
import { provisionTopics } from './topics.ts'

/**
 * Serves a request for provisioning: at once the reason why it is none, later the payload of the answer.
 * A promise that fails leaves the request unanswered, and the device asks again.
 */
export type ProvisionHandler = (payload: Buffer, address: string) => Reject | Promise<Buffer>

export type ProvisioningSessionOptions = {
  connect: Connect
  output: Output
  address: string
  handle: ProvisionHandler
  /** Something is to be written: `writeAnswers` should be called soon. */
  changed: () => void
  clock: Clock
  limits: MqttLimits
  log: Log
}

const puback = 0x40
const pubrec = 0x50
const pubcomp = 0x70
const pingresp = Buffer.from([0xd0, 0])
const wrongTopic = `a provisioning session publishes to ${provisionTopics.request} only`

/**
 * A connection without a device: it may ask for credentials and do nothing else [§7]. Its requests are served one
 * after the other, and each is acknowledged together with its answer.
 */
export class ProvisioningSession implements Conversation {
  readonly protocol: number
  readonly maxPacketSize: number
  readonly keepAliveS: number
  /** The bound of the session itself is the shorter one. */
  readonly inactivityTimeoutMs: number
  readonly #options: ProvisioningSessionOptions
  readonly #subscriptions = new Map<string, number>()
  readonly #downlinks: Downlinks
  readonly #openQos2 = new Set<number>()
  #endsAt: number
  #requests = 0
  #isBusy = false
  #isEnded = false
  #failure: Mistake | undefined

  constructor(options: ProvisioningSessionOptions) {
    const { connect, output, limits, changed, clock, log } = options
    this.#options = options
    this.protocol = connect.protocol
    this.maxPacketSize = connect.maxPacketSize
    this.keepAliveS = Math.min(connect.keepAliveS, limits.keepAliveMaxS)
    this.inactivityTimeoutMs = Number.POSITIVE_INFINITY
    this.#endsAt = clock.monotonic() + limits.provisioningMs
    this.#downlinks = new Downlinks({
      protocol: connect.protocol,
      subscriptions: this.#subscriptions,
      output,
      client: connect,
      unsentBytes: limits.unsentBytes,
      waiting: changed,
      refused: (reject) => log.debug({ code: reject.code }, 'an answer to provisioning is larger than the client takes'),
      log,
    })
  }

  get isIdle(): boolean {
    return !this.#isBusy
  }

  /** A request is being served: the next one waits. */
  mustWait(): boolean {
    return this.#isBusy
  }

  /** Without a device there is no log to note it in. */
  record(): void {}

  /** How the session ends when its time is over [P-5]. */
  findOverdue(now: number): { code: number; text: string } | undefined {
    if (this.#isBusy || now < this.#endsAt) return undefined
    return { code: reason.administrativeAction, text: 'the time of a provisioning session is over' }
  }

  /** Hands over what is due; tells when the session ends because a request could not be served. */
  writeAnswers(): Mistake | undefined {
    this.#downlinks.write()
    return this.#failure
  }

  end(): void {
    this.#isEnded = true
    this.#downlinks.close()
  }

  /** Serves one complete packet; tells when the session ends by it. */
  serve({ frame, type, bodyAt }: Frame): 'client' | Mistake | undefined {
    if (type === packetType.publish) {
      const publish = parsePublish(frame, bodyAt, this.protocol)
      return publish === undefined ? { code: reason.malformedPacket, detail: 'malformed PUBLISH' } : this.#servePublish(publish)
    }
    if (type === packetType.connect) return { code: reason.protocolError, detail: 'a second CONNECT' }
    const packet = type === packetType.auth ? undefined : parsePacket(frame, this.protocol)
    if (packet === undefined) return { code: reason.malformedPacket, detail: `malformed packet of type ${type}` }
    const { output } = this.#options
    const messageId = packet.messageId ?? 0
    switch (packet.cmd) {
      case 'pingreq':
        output.add(pingresp)
        return undefined
      case 'subscribe':
        if (messageId === 0 || packet.subscriptions.length === 0) break
        output.add(encodeSuback(messageId, this.#grant(packet.subscriptions), this.protocol))
        return undefined
      case 'unsubscribe':
        if (messageId === 0 || packet.unsubscriptions.length === 0) break
        output.add(encodeUnsuback(messageId, releaseFilters(this.#subscriptions, packet.unsubscriptions), this.protocol))
        return undefined
      case 'puback':
        this.#downlinks.acknowledge(messageId)
        return undefined
      case 'pubrel':
        this.#openQos2.delete(messageId)
        output.addShort(pubcomp, messageId)
        return undefined
      case 'disconnect':
        return 'client'
      default:
    }
    return { code: reason.protocolError, detail: `unexpected or incomplete ${packet.cmd.toUpperCase()}` }
  }

  /** [P-4] */
  #grant(asked: readonly { topic: string; qos: number }[]): number[] {
    return asked.map(({ topic, qos }) => {
      if (topic !== provisionTopics.response) return this.protocol === 5 ? reason.filterInvalid : 0x80
      const code = Math.min(qos, 1)
      this.#subscriptions.set(topic, code)
      return code
    })
  }

  #servePublish(publish: Publish): Mistake | undefined {
    const { output, limits, handle, address } = this.#options
    if (publish.topicAlias !== undefined) return { code: reason.topicAliasInvalid, detail: 'topic aliases are not supported' }
    if (publish.topic !== provisionTopics.request || !isTopicAllowed(publish.topic)) {
      if (this.protocol === 5) this.#acknowledge(publish, reason.topicInvalid, wrongTopic)
      return { code: reason.topicInvalid, detail: wrongTopic }
    }
    if (publish.qos === 2 && this.#openQos2.has(publish.packetId)) {
      output.addShort(pubrec, publish.packetId)
      return undefined
    }
    if (++this.#requests > limits.provisioningRequests) {
      return { code: reason.quotaExceeded, detail: `a session makes at most ${limits.provisioningRequests} requests` }
    }
    const answer = handle(publish.payload, address)
    if (!(answer instanceof Promise)) return this.#refuse(publish, answer)
    this.#isBusy = true
    answer.then(
      (payload) => this.#answer(publish, payload),
      (err: unknown) => this.#onFailure(err),
    )
    return undefined
  }

  #refuse(publish: Publish, reject: Reject): Mistake | undefined {
    if (publish.qos === 0) return undefined // [M-41]
    const answer = answerRefusal(reject, this.protocol, defaultPayloadRules)
    if (answer.do === 'close') return { code: reason.payloadInvalid, detail: reject.detail }
    if (answer.do === 'acknowledge') this.#acknowledge(publish, answer.code, answer.text)
    return undefined
  }

  /** [P-2] The answer comes after the PUBACK, subscribed or not. */
  #answer(publish: Publish, payload: Buffer): void {
    const { clock, limits, changed } = this.#options
    this.#isBusy = false
    if (this.#isEnded) return
    this.#acknowledge(publish, reason.success)
    this.#downlinks.send({ topic: provisionTopics.response, payload, qos: 1 })
    this.#endsAt = clock.monotonic() + limits.provisioningMs
    changed()
  }

  #onFailure(err: unknown): void {
    const { log, address, changed } = this.#options
    log.warn({ err, address }, 'a request for provisioning could not be served')
    this.#isBusy = false
    this.#failure = { code: reason.serverBusy, detail: 'the request could not be served, try again later' }
    changed()
  }

  #acknowledge({ qos, packetId }: Publish, code: number, text?: string): void {
    const { output, connect } = this.#options
    if (qos === 0) return
    if (qos === 2 && code < 0x80) this.#openQos2.add(packetId)
    if (code === reason.success) output.addShort(qos === 1 ? puback : pubrec, packetId)
    else output.add(encodeExplainedAck(qos === 1 ? 'puback' : 'pubrec', packetId, { code, ...(text ? { text } : {}) }, connect))
  }
}
