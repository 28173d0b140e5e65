// SPDX-License-Identifier: AGPL-3.0-only
import type { Log } from '../../log.ts'
import type { Downlink, DownlinkProgress } from '../downlink.ts'
import type { Reject } from '../rejects.ts'
import { filterOf } from './topics.ts'
import type { Output } from './output.ts'

export type DownlinksOptions = {
  protocol: number
  subscriptions: ReadonlyMap<string, number>
  output: Output
  client: { maxPacketSize: number; receiveMaximum: number }
  /** Unsent bytes beyond which nothing more is handed to the socket. */
  unsentBytes: number
  /** Something waits: `write` should be called soon. */
  waiting: () => void
  refused: (reject: Reject, topic: string) => void
  log: Log
}

/** [M-25] Unacknowledged and waiting downlinks of a session. */
const mostUnacknowledged = 50
const mostWaiting = 1_000
/** Together with the 1,000 above: a session that never acknowledges may not take memory without end. */
const mostWaitingBytes = 4_194_304
const lastPacketId = 65_535

type Entry = { downlink: Downlink; payload: Buffer; qos: 0 | 1; merged: Downlink[] }

/** What is on its way to one device, in the order in which it was sent. */
export class Downlinks {
  readonly #options: DownlinksOptions
  readonly #window: number
  #waiting: Entry[] = []
  #waitingBytes = 0
  readonly #unacknowledged = new Map<number, Entry>()
  #packetId = 0
  #isClosed = false

  constructor(options: DownlinksOptions) {
    this.#options = options
    this.#window = Math.min(options.client.receiveMaximum, mostUnacknowledged)
  }

  /** @returns what takes the downlink back; true when it had not been written yet, then nothing more is reported */
  send(downlink: Downlink): () => boolean {
    const entry = { downlink, payload: downlink.payload, qos: downlink.qos ?? this.#grantedQos(downlink.topic), merged: [] }
    if (this.#isClosed) this.#tell(entry, 'closed')
    else if (this.#isTooLarge(entry)) this.#refuse(entry)
    else this.#enqueue(entry)
    return () => this.#withdraw(entry)
  }

  /** Hands over what the device may get now. */
  write(): void {
    const { output, unsentBytes } = this.#options
    let count = 0
    for (const entry of this.#waiting) {
      if (output.unsent > unsentBytes || (entry.qos === 1 && this.#unacknowledged.size >= this.#window)) break
      count++
      this.#write(entry)
    }
    if (count > 0) this.#waiting.splice(0, count)
  }

  /** A PUBACK came; one that is not ours is not worth a word. */
  acknowledge(packetId: number): void {
    const entry = this.#unacknowledged.get(packetId)
    if (entry === undefined) return
    this.#unacknowledged.delete(packetId)
    this.#tell(entry, 'acknowledged')
    if (this.#waiting.length > 0) this.#options.waiting()
  }

  /** The session has ended. */
  close(): void {
    this.#isClosed = true
    const open = [...this.#unacknowledged.values(), ...this.#waiting]
    this.#unacknowledged.clear()
    this.#waiting = []
    for (const entry of open) this.#tell(entry, 'closed')
  }

  #enqueue(entry: Entry): void {
    if (this.#isFullFor(entry)) this.write()
    if (this.#isFullFor(entry)) this.#merge(entry)
    else {
      this.#waiting.push(entry)
      this.#waitingBytes += entry.payload.length
    }
    this.#options.waiting()
  }

  #isFullFor({ payload }: Entry): boolean {
    const waiting = this.#waiting.length
    return waiting >= mostWaiting || (waiting > 0 && this.#waitingBytes + payload.length > mostWaitingBytes)
  }

  /** [M-25] Too many wait: what can be merged is, the rest fails. */
  #merge(entry: Entry): void {
    const { key, merge } = entry.downlink
    const older = key === undefined ? undefined : this.#waiting.findLast(({ downlink }) => downlink.key === key)
    if (older === undefined || merge === undefined) return this.#tell(entry, 'dropped')
    const payload = merge(older.payload, entry.payload)
    if (this.#isTooLarge({ ...older, payload })) return this.#refuse(entry)
    this.#waitingBytes += payload.length - older.payload.length
    older.payload = payload
    older.merged.push(entry.downlink)
  }

  #write(entry: Entry): void {
    const { output, protocol } = this.#options
    const { downlink, payload, qos } = entry
    this.#waitingBytes -= payload.length
    const packetId = qos === 1 ? this.#takePacketId() : 0
    output.add(encodePublishHead({ topic: downlink.topic, payloadBytes: payload.length, qos, packetId, protocol }))
    output.add(payload)
    if (qos === 1) this.#unacknowledged.set(packetId, entry)
    this.#tell(entry, 'written')
  }

  #withdraw(entry: Entry): boolean {
    const at = entry.merged.length > 0 ? -1 : this.#waiting.indexOf(entry)
    if (at === -1) return false
    this.#waiting.splice(at, 1)
    this.#waitingBytes -= entry.payload.length
    return true
  }

  #grantedQos(topic: string): 0 | 1 {
    const { subscriptions } = this.#options
    return (subscriptions.get(topic) ?? subscriptions.get(filterOf(topic))) === 0 ? 0 : 1
  }

  #isTooLarge({ downlink, payload, qos }: Entry): boolean {
    const { client, protocol } = this.#options
    if (client.maxPacketSize === Number.POSITIVE_INFINITY) return false
    const head = encodePublishHead({ topic: downlink.topic, payloadBytes: payload.length, qos, packetId: 1, protocol })
    return head.length + payload.length > client.maxPacketSize
  }

  #refuse(entry: Entry): void {
    const detail = `a message of ${entry.payload.length} bytes is larger than the ${this.#options.client.maxPacketSize} the client takes`
    this.#options.refused({ code: 'DOWNLINK_TOO_LARGE', detail }, entry.downlink.topic)
    this.#tell(entry, 'too_large')
  }

  /** Never at once, so that a sender that sends again in `done` can't call itself without end. */
  #tell({ downlink, merged }: Entry, progress: DownlinkProgress): void {
    for (const { done, topic } of [downlink, ...merged]) {
      if (done === undefined) continue
      queueMicrotask(() => {
        try {
          done(progress)
        } catch (err) {
          this.#options.log.error({ err, topic, progress }, 'the sender of a downlink failed')
        }
      })
    }
  }

  #takePacketId(): number {
    do this.#packetId = this.#packetId === lastPacketId ? 1 : this.#packetId + 1
    while (this.#unacknowledged.has(this.#packetId))
    return this.#packetId
  }
}

/** A PUBLISH without its payload. */
function encodePublishHead(publish: { topic: string; payloadBytes: number; qos: 0 | 1; packetId: number; protocol: number }): Buffer {
  const { topic, payloadBytes, qos, packetId, protocol } = publish
  const topicBytes = Buffer.byteLength(topic)
  const variableBytes = 2 + topicBytes + (qos === 1 ? 2 : 0) + (protocol === 5 ? 1 : 0)
  const length: number[] = []
  for (let rest = variableBytes + payloadBytes; rest > 0 || length.length === 0; rest = Math.floor(rest / 128)) {
    length.push(rest >= 128 ? (rest % 128) | 0x80 : rest)
  }
  const head = Buffer.alloc(1 + length.length + variableBytes)
  head[0] = 0x30 | (qos << 1)
  head.set(length, 1)
  let at = 1 + length.length
  at = head.writeUInt16BE(topicBytes, at)
  at += head.write(topic, at)
  // MQTT 5 ends the head with the length of its properties, of which there are none.
  if (qos === 1) head.writeUInt16BE(packetId, at)
  return head
}
