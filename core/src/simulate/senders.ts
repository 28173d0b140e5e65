// SPDX-License-Identifier: AGPL-3.0-only
import mqtt from 'mqtt'
import type { MqttClient } from 'mqtt'
import type { Credentials } from '../devices/schemas.ts'
import { formatValues } from './scenario.ts'
import type { Scenario, Unit } from './scenario.ts'

/** A simulated device that may connect. */
export type Simulated = { name: string; credentials: Credentials; unit: Unit }

export type SendersOptions = {
  host: string
  port: number
  scenario: Scenario
  devices: readonly Simulated[]
  /** Between two messages of one device. */
  intervalMs: number
  now?: () => number
}

/** What happened so far. A message is acknowledged when the server has stored it, or it is an error. */
export type Tally = {
  connected: number
  sent: number
  acknowledged: number
  errors: number
  skipped: number
  lastError: string | undefined
}

const telemetryTopic = 'v1/devices/me/telemetry'
/** New connections per second: a start must not look like a storm. */
const connectsPerS = 200
const reconnectMs = 3000
/** Messages without an answer before a device waits for one. */
const maxInFlight = 10
/** Looks often enough for the interval, and no oftener: idle senders cost nothing. */
const tickMs = (intervalMs: number) => Math.min(200, Math.max(20, intervalMs / 50))
const pollMs = 20

type Sender = { device: Simulated; client: MqttClient | undefined; nextAt: number; inFlight: number }

/** Simulated devices, each with an MQTT connection of its own, sending at QoS 1 evenly spread over the interval. */
export class Senders {
  readonly tally: Tally = { connected: 0, sent: 0, acknowledged: 0, errors: 0, skipped: 0, lastError: undefined }
  readonly #options: SendersOptions
  readonly #now: () => number
  #senders: Sender[] = []
  #timer: NodeJS.Timeout | undefined
  #startedAt = 0

  constructor(options: SendersOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
  }

  start(): void {
    if (this.#timer) return
    const { devices, intervalMs } = this.#options
    this.#startedAt = performance.now()
    this.#senders = devices.map((device, index) => ({
      device,
      client: undefined,
      nextAt: this.#startedAt + (index / devices.length) * intervalMs,
      inFlight: 0,
    }))
    this.#timer = setInterval(() => this.#tick(), tickMs(intervalMs))
    this.#tick()
  }

  /** Sends no more, waits up to `graceMs` for answers, says goodbye. */
  async stop(graceMs = 5000): Promise<void> {
    clearInterval(this.#timer)
    this.#timer = undefined
    const senders = this.#senders
    this.#senders = []
    const deadline = performance.now() + graceMs
    const isWaiting = () => senders.some((sender) => sender.inFlight > 0) && performance.now() < deadline
    while (isWaiting()) await new Promise((resolve) => setTimeout(resolve, pollMs))
    // Forced where answers are missing: such a connection may hang.
    await Promise.all(senders.map(async ({ client, inFlight }) => client?.endAsync(inFlight > 0 || !client.connected)))
  }

  #tick(): void {
    const now = performance.now()
    const mayConnect = Math.ceil(((now - this.#startedAt) / 1000) * connectsPerS) + 1
    for (const [index, sender] of this.#senders.entries()) {
      if (!sender.client) {
        if (index < mayConnect) sender.client = this.#connect(sender)
        continue
      }
      if (sender.nextAt > now || !sender.client.connected) continue
      // What was missed during an outage is not made up for.
      sender.nextAt = Math.max(sender.nextAt + this.#options.intervalMs, now)
      if (sender.inFlight < maxInFlight) this.#send(sender, sender.client)
      else this.tally.skipped++
    }
  }

  #connect(sender: Sender): MqttClient {
    const { host, port } = this.#options
    const { name, credentials } = sender.device
    const basic = credentials.type === 'mqtt_basic' ? credentials : undefined
    const userName = credentials.type === 'access_token' ? credentials.token : basic?.userName
    const password = basic?.password
    const client = mqtt.connect({
      protocol: 'mqtt',
      host,
      port,
      protocolVersion: 5,
      clientId: basic?.clientId ?? name,
      ...(userName ? { username: userName } : {}),
      ...(password ? { password } : {}),
      clean: true,
      keepalive: 60,
      connectTimeout: 10_000,
      reconnectPeriod: reconnectMs,
      resubscribe: false,
      queueQoSZero: false,
    })
    let isConnected = false
    const setConnected = (value: boolean) => {
      this.tally.connected += Number(value) - Number(isConnected)
      isConnected = value
    }
    client.on('connect', () => setConnected(true))
    client.on('close', () => setConnected(false))
    client.on('error', (error) => this.#fail(error))
    return client
  }

  #send(sender: Sender, client: MqttClient): void {
    const payload = formatValues(this.#options.scenario, sender.device.unit.measure(this.#now()))
    this.tally.sent++
    sender.inFlight++
    client.publish(telemetryTopic, payload, { qos: 1 }, (error) => {
      sender.inFlight--
      if (error) this.#fail(error)
      else this.tally.acknowledged++
    })
  }

  #fail(error: Error): void {
    this.tally.errors++
    this.tally.lastError = error.message
  }
}
