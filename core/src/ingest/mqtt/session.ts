// SPDX-License-Identifier: AGPL-3.0-only
import type { Downlink } from '../downlink.ts'
import type { Device } from '../registry.ts'
import type { DisconnectReason, Session } from '../sessions.ts'
import { Downlinks } from './downlinks.ts'
import type { DownlinksOptions } from './downlinks.ts'

export type MqttSessionOptions = {
  device: Device
  protocol: number
  clientId: string
  address: string
  tls: boolean
  keepAliveS: number
  connectedAt: number
  downlinks: Omit<DownlinksOptions, 'protocol' | 'subscriptions'>
  close: (reason: DisconnectReason) => void
  /** Messages taken and not yet answered. */
  countInFlight: () => number
}

/** The session of one MQTT connection. */
export class MqttSession implements Session {
  readonly device: Device
  readonly protocol: number
  readonly clientId: string
  readonly address: string
  readonly tls: boolean
  readonly keepAliveS: number
  readonly connectedAt: number
  readonly subscriptions = new Map<string, number>()
  lastActivityAt: number
  messagesIn = 0
  pointsIn = 0
  readonly #options: MqttSessionOptions
  /** Made with the first message to the device: most are never sent one. */
  #downlinks: Downlinks | undefined
  #isEnded = false

  constructor(options: MqttSessionOptions) {
    const { device, protocol, clientId, address, tls, keepAliveS, connectedAt } = options
    this.device = device
    this.protocol = protocol
    this.clientId = clientId
    this.address = address
    this.tls = tls
    this.keepAliveS = keepAliveS
    this.connectedAt = connectedAt
    this.lastActivityAt = connectedAt
    this.#options = options
  }

  get inFlight(): number {
    return this.#options.countInFlight()
  }

  close(reason: DisconnectReason): void {
    this.#options.close(reason)
  }

  send(downlink: Downlink): () => boolean {
    if (this.#downlinks === undefined) {
      const { protocol, subscriptions } = this
      this.#downlinks = new Downlinks({ ...this.#options.downlinks, protocol, subscriptions })
      if (this.#isEnded) this.#downlinks.close()
    }
    return this.#downlinks.send(downlink)
  }

  pushTopic(filters: readonly string[], id?: number): string | undefined {
    let last: string | undefined
    for (const filter of this.subscriptions.keys()) if (filters.includes(filter)) last = filter
    return id === undefined ? last : last?.replace('+', String(id))
  }

  /** The client acknowledged a message. */
  acknowledge(packetId: number): void {
    this.#downlinks?.acknowledge(packetId)
  }

  /** Hands over the messages that wait and may be sent now. */
  writeDownlinks(): void {
    this.#downlinks?.write()
  }

  /** Called once the connection is over and everybody knows it. */
  end(): void {
    this.#isEnded = true
    this.#downlinks?.close()
  }
}
