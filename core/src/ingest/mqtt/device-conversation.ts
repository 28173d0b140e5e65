// SPDX-License-Identifier: AGPL-3.0-only
import type { Device } from '../registry.ts'
import type { DisconnectReason } from '../sessions.ts'
import type { Connect } from './connect.ts'
import type { ConnectionContext, Peer } from './connection-context.ts'
import type { Conversation, Frame, Hold, Mistake } from './conversation.ts'
import type { Output } from './output.ts'
import { servePacket } from './serve.ts'
import { MqttSession } from './session.ts'
import { Uplinks } from './uplinks.ts'

export type DeviceConversationOptions = {
  connect: Connect
  device: Device
  peer: Peer
  output: Output
  /** Something is to be written: `writeAnswers` should be called soon. */
  changed: () => void
  close: (why: DisconnectReason) => void
}

/** The session of a device with everything that is on its way in either direction. */
export class DeviceConversation implements Conversation {
  readonly session: MqttSession
  readonly uplinks: Uplinks
  readonly output: Output
  readonly maxPacketSize: number
  readonly #context: ConnectionContext
  /** Unanswered messages at which no more are taken. */
  readonly #most: number

  constructor(context: ConnectionContext, { connect, device, peer, output, changed, close }: DeviceConversationOptions) {
    const { clock, limits, sink, rejects, requestRoom, log } = context
    this.#context = context
    this.output = output
    this.maxPacketSize = connect.maxPacketSize
    // An MQTT 5 client knows the limit: one message more is its mistake, and is looked at for that.
    this.#most = connect.protocol === 5 ? limits.inFlight + 1 : limits.inFlight
    this.session = new MqttSession({
      device,
      protocol: connect.protocol,
      clientId: connect.clientId,
      address: peer.address,
      tls: peer.tls,
      keepAliveS: Math.min(connect.keepAliveS, limits.keepAliveMaxS),
      connectedAt: clock.now(),
      downlinks: {
        output,
        client: connect,
        unsentBytes: limits.unsentBytes,
        waiting: changed,
        refused: (reject, topic) => this.uplinks.record(reject, undefined, topic),
        log,
      },
      close,
      countInFlight: () => this.uplinks.unanswered,
    })
    this.uplinks = new Uplinks({ session: this.session, output, sink, rejects, requestRoom, client: connect, settled: changed, log })
  }

  get protocol(): number {
    return this.session.protocol
  }

  get keepAliveS(): number {
    return this.session.keepAliveS
  }

  get inactivityTimeoutMs(): number {
    return this.session.device.inactivityTimeoutMs
  }

  get isIdle(): boolean {
    return this.uplinks.unanswered === 0
  }

  mustWait(waitForRoom: () => void): boolean {
    if (!this.#context.sink.isFull) return this.uplinks.unanswered >= this.#most
    waitForRoom()
    return true
  }

  serve(packet: Frame): 'client' | Mistake | Hold | undefined {
    this.session.lastActivityAt = this.#context.clock.now()
    return servePacket(this, packet, this.#context)
  }

  writeAnswers(): 'close' | undefined {
    if (this.uplinks.writeAnswers() === 'close') return 'close'
    this.session.writeDownlinks()
    return undefined
  }

  findOverdue(): undefined {
    return undefined
  }

  /** [M-42] */
  record({ detail, sample, logCode = 'PROTOCOL_ERROR' }: Mistake): void {
    this.uplinks.record({ code: logCode, detail }, sample)
  }

  end(why: DisconnectReason): void {
    this.#context.sessions.end(this.session, why)
    this.session.end()
  }
}
