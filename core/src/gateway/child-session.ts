// SPDX-License-Identifier: AGPL-3.0-only
import type { AttributeChange } from '../attributes/attributes.ts'
import { formatPush, mergePushes } from '../attributes/pushes.ts'
import type { CommandMessage, CommandReceiver } from '../commands/lane.ts'
import type { DownlinkProgress } from '../ingest/downlink.ts'
import type { Device } from '../ingest/registry.ts'
import type { Session } from '../ingest/sessions.ts'

/** As many as may be unacknowledged in a session [M-25]. */
const room = 50
const rpcTopic = 'v1/gateway/rpc'
const attributesTopic = 'v1/gateway/attributes'
const disconnectTopic = 'v1/gateway/disconnect'

/** What came of a command before the session of its child ended. */
type Sent = { withdraw: () => boolean; done: (progress: DownlinkProgress) => void }

/**
 * A device that is served through the session of its gateway. It takes its commands itself; whatever goes to it
 * needs no subscription of the gateway [M-37].
 */
export class ChildSession implements CommandReceiver {
  readonly device: Device
  /** As the gateway writes it: it knows the device by no other name, whatever people call it meanwhile. */
  readonly name: string
  readonly gateway: Session
  /** ms since 1970. */
  readonly connectedAt: number
  lastActivityAt: number
  /** When the gateway was last told of the child's rate limit, on the monotonic clock. */
  limitToldAt = Number.NEGATIVE_INFINITY
  readonly #sent = new Set<Sent>()
  readonly #close: (child: ChildSession) => void
  #isEnded = false

  constructor(options: { device: Device; name: string; gateway: Session; at: number; close: (child: ChildSession) => void }) {
    this.device = options.device
    this.name = options.name
    this.gateway = options.gateway
    this.connectedAt = options.at
    this.lastActivityAt = options.at
    this.#close = options.close
  }

  get room(): number {
    return this.#isEnded ? 0 : room
  }

  get acknowledges(): boolean {
    return this.gateway.subscriptions.get(rpcTopic) !== 0
  }

  /** [G-7] */
  send({ no, method, params }: CommandMessage, done: (progress: DownlinkProgress) => void): () => boolean {
    const payload = Buffer.from(
      `{"device":${JSON.stringify(this.name)},"data":{"id":${no},"method":${JSON.stringify(method)},"params":${params}}}`,
    )
    const sent: Sent = { withdraw: () => false, done }
    if (this.#isEnded) {
      queueMicrotask(() => done('closed'))
      return sent.withdraw
    }
    this.#sent.add(sent)
    sent.withdraw = this.gateway.send({ topic: rpcTopic, payload, done: (progress) => this.#report(sent, progress) })
    return () => {
      const isBack = sent.withdraw()
      if (isBack) this.#sent.delete(sent)
      return isBack
    }
  }

  /** A command of this child was not acknowledged: its session ends, and those of the other children go on. */
  close(): void {
    this.#close(this)
  }

  /** [G-5] */
  pushAttributes(change: Pick<AttributeChange, 'values' | 'deleted'>): void {
    const head = `{"device":${JSON.stringify(this.name)},"data":`
    const bytes = Buffer.byteLength(head)
    const wrap = (push: Buffer) => Buffer.concat([Buffer.from(head), push, Buffer.from('}')])
    this.gateway.send({
      topic: attributesTopic,
      payload: wrap(Buffer.from(formatPush(change))),
      key: `attributes ${this.device.id}`,
      merge: (older, newer) => wrap(mergePushes(older.subarray(bytes, -1), newer.subarray(bytes, -1))),
    })
  }

  /** [G-8] MQTT 5 gateways are told why a child is not served. */
  tellDisconnect(reason: number): void {
    if (this.gateway.protocol < 5) return
    const payload = Buffer.from(JSON.stringify({ device: this.name, reason }))
    this.gateway.send({ topic: disconnectTopic, payload, key: `disconnect ${this.device.id}`, merge: (_, newer) => newer })
  }

  /** Commands that are still on their way will not be known to have arrived. */
  end(): void {
    this.#isEnded = true
    for (const { withdraw, done } of this.#sent) {
      withdraw()
      done('closed')
    }
    this.#sent.clear()
  }

  #report(sent: Sent, progress: DownlinkProgress): void {
    if (!this.#sent.has(sent)) return
    if (progress !== 'written' || !this.acknowledges) this.#sent.delete(sent)
    sent.done(progress)
  }
}
