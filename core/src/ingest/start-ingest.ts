// SPDX-License-Identifier: AGPL-3.0-only
import type { Registry } from 'prom-client'
import { AttributeStore } from '../attributes/attribute-store.ts'
import type { Context } from '../context.ts'
import { DeviceLog } from '../devices/device-log.ts'
import { DeviceStates } from '../devices/states.ts'
import type { Topics } from '../live/topics.ts'
import type { DiskGuard } from '../system/disk-guard.ts'
import type { Load } from '../system/load.ts'
import { RefusedConnections } from '../system/refused-connections.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { watchGauge } from '../system/ingest-counters.ts'
import type { IngestCounters } from '../system/ingest-counters.ts'
import { DeviceRegistry } from './device-registry.ts'
import { MqttEndpoint } from './mqtt/endpoint.ts'
import { Pipeline } from './pipeline.ts'
import type { Stored } from './pipeline.ts'
import { RejectLog } from './reject-log.ts'
import { Sessions } from './sessions.ts'
import { Writer } from './writer.ts'
import type { BatchStore } from './writer.ts'

/** Everything between the sockets of devices and the commit, wired. */
export type Ingest = {
  registry: DeviceRegistry
  sessions: Sessions
  rejects: RejectLog
  refused: RefusedConnections
  states: DeviceStates
  log: DeviceLog
  pipeline: Pipeline
  endpoint: MqttEndpoint | undefined
  disk: DiskGuard
  start(): Promise<void>
  /** Answers what was accepted, closes the sessions, writes what is left; at most `deadlineMs`. */
  stop(deadlineMs: number): Promise<void>
}

export type IngestParts = {
  store: TelemetryStore
  counters: IngestCounters
  topics: Topics
  load: Load
  disk: DiskGuard
  metrics: Registry
  isDraining: () => boolean
  /** What modules do after a commit. */
  onStored?: (stored: Stored) => void
}

export function createIngest(context: Context, parts: IngestParts): Ingest {
  const { config, clock, events, log, db } = context
  const registry = new DeviceRegistry(context)
  const sessions = new Sessions({ clock, log, limit: config.mqtt.maxSessions })
  const rejects = new RejectLog({ db, clock, events, log })
  const refused = new RefusedConnections(clock, events)
  const states = new DeviceStates(context, (deviceId) => sessions.get(deviceId)?.lastActivityAt)
  const deviceLog = new DeviceLog(context)
  const telemetry = createWriter(context, parts.disk.watch(parts.store), config.writer.connections)
  const attributes = createWriter(context, parts.disk.watch(new AttributeStore(context)), 1)
  const pipeline = new Pipeline({
    telemetry,
    attributes,
    rejects,
    log,
    gate: parts.disk,
    afterCommit: [
      {
        name: 'counters',
        run: ({ device, points, rejectCount }) => parts.counters.addMessage(device, points.length, rejectCount),
      },
      // A message over MQTT says no more than its session, whose activity is looked up when states are written.
      { name: 'states', run: ({ device, transport, receivedAt }) => transport === 'http' && states.activeOverHttp(device, receivedAt) },
      { name: 'live', run: (stored) => parts.topics.publish(stored) },
      { name: 'modules', run: (stored) => parts.onStored?.(stored) },
    ],
  })
  const admission = () => {
    if (parts.isDraining()) return 'draining'
    if (parts.disk.isClosed) return 'full'
    return parts.load.isOverloaded ? 'overloaded' : 'open'
  }
  const endpoint = config.mqtt.port === 'off' ? undefined : createEndpoint(config.mqtt.port)

  function createEndpoint(port: number): MqttEndpoint {
    return new MqttEndpoint({
      port,
      host: config.mqtt.host,
      sink: pipeline,
      sessions,
      authenticate: (credentials) => registry.authenticate(credentials),
      rejects,
      refused: ({ address, clientId, userNameLast4, reason }) =>
        refused.add({ address, clientId, reason, ...(userNameLast4 ? { last4: userNameLast4 } : {}) }),
      admission,
      clock,
      log,
      limits: { connectRate: config.mqtt.connectRate },
    })
  }

  sessions.on('opened', (session) => {
    const { device, protocol, clientId, address } = session
    states.sessionOpened(device)
    deviceLog.add(device, 'connected', { protocol, clientId, address })
  })
  sessions.on('closed', (session, reason) => {
    if (!sessions.get(session.device.id) || reason !== 'takeover') states.sessionClosed(session, reason)
    deviceLog.add(session.device, reason === 'takeover' ? 'takeover' : 'disconnected', {
      reason,
      clientId: session.clientId,
      address: session.address,
    })
  })
  sessions.on('takeoverLoop', ({ device, count, older, newer }) => deviceLog.add(device, 'takeover_loop', { count, older, newer }))
  // [M-19] What may no longer connect is disconnected.
  events.on('device.changed', ({ deviceId, change }) => {
    if (change === 'deleted' || change === 'disabled' || change === 'credentials') sessions.close(deviceId, 'admin')
    if (change === 'deleted') states.forget(deviceId)
  })
  watchGauge(parts.metrics, 'iot_pms_sessions', 'MQTT sessions open', () => sessions.count)
  for (const name of ['connections', 'unauthenticated', 'waiting', 'delayedRefusals'] as const) {
    watchGauge(
      parts.metrics,
      `iot_pms_mqtt_${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`,
      'Sockets of the MQTT endpoint, by what they wait for',
      () => endpoint?.depths[name] ?? 0,
    )
  }
  watchGauge(parts.metrics, 'iot_pms_devices', 'Devices in memory', () => registry.size)
  watchGauge(parts.metrics, 'iot_pms_writer_depth', 'Points accepted and not yet committed', () => telemetry.depth)

  return {
    registry,
    sessions,
    rejects,
    refused,
    states,
    log: deviceLog,
    pipeline,
    endpoint,
    disk: parts.disk,
    async start() {
      await registry.start()
      states.start()
      await endpoint?.start()
    },
    async stop(deadlineMs) {
      // Side by side: the endpoint waits for answers, and the writers give them, at the latest when the time is over.
      await Promise.all([endpoint?.stop(deadlineMs), telemetry.stop(deadlineMs - answerMs), attributes.stop(deadlineMs - answerMs)])
      const flushed = Promise.all([states.stop(), deviceLog.flush(), rejects.flush()])
      await Promise.race([flushed, new Promise<void>((resolve) => clock.after(flushMs, resolve))])
    },
  }
}

/** Time left to bring the last answers to the sockets. */
const answerMs = 500
/** What is not worth waiting for longer: states and logs of the last second. */
const flushMs = 1000

function createWriter(context: Context, store: BatchStore, lanes: number): Writer {
  const { config, clock, log } = context
  const faults = { ackEarly: config.testHooks.has('ack-early'), noBisect: config.testHooks.has('no-bisect') }
  return new Writer({ store, clock, log, lanes, windowMs: config.writer.commitWindowMs, random: Math.random, faults })
}
