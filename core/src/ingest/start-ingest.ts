// SPDX-License-Identifier: AGPL-3.0-only
import type { Registry } from 'prom-client'
import { AttributeReads } from '../attributes/attribute-reads.ts'
import { AttributeStore } from '../attributes/attribute-store.ts'
import { Attributes } from '../attributes/attributes.ts'
import { pushSharedAttributes } from '../attributes/pushes.ts'
import { answerAttributeRequests } from '../attributes/questions.ts'
import { Claims } from '../claims/claims.ts'
import { ClientRpc } from '../client-rpc/client-rpc.ts'
import { Commands } from '../commands/commands.ts'
import { serveMqttCommands, takeAnswers } from '../commands/mqtt-commands.ts'
import type { Context } from '../context.ts'
import { DeviceLog } from '../devices/device-log.ts'
import { Devices } from '../devices/devices.ts'
import { LimitNotes } from '../devices/limit-notes.ts'
import { DeviceStates } from '../devices/states.ts'
import { createChunkHandlers } from '../firmware/chunks.ts'
import { Contents } from '../firmware/contents.ts'
import { OtaTargets } from '../firmware/targets.ts'
import { ChildDevices } from '../gateway/child-devices.ts'
import type { ChildSessions } from '../gateway/child-sessions.ts'
import { Gateways } from '../gateway/gateways.ts'
import type { Topics } from '../live/topics.ts'
import { ChainProvisioning } from '../provisioning/chain.ts'
import { mqttProvisioning } from '../provisioning/entrances.ts'
import { ProvisioningProducts } from '../provisioning/provisioning-products.ts'
import { Provisioning } from '../provisioning/provisioning.ts'
import type { DiskGuard } from '../system/disk-guard.ts'
import type { Load } from '../system/load.ts'
import { RefusedConnections } from '../system/refused-connections.ts'
import { ServerCertificate } from '../tls/server-certificate.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { watchGauge } from '../system/ingest-counters.ts'
import type { IngestCounters } from '../system/ingest-counters.ts'
import { DeviceRegistry } from './device-registry.ts'
import { Discovery } from './discovery/discovery.ts'
import { LongPolls } from './long-polls.ts'
import { MqttEndpoint } from './mqtt/endpoint.ts'
import { defaultMqttLimits } from './mqtt/limits.ts'
import { Pipeline } from './pipeline.ts'
import type { Stored } from './pipeline.ts'
import { RejectLog } from './reject-log.ts'
import type { RequestHandlers } from './requests.ts'
import { Sessions } from './sessions.ts'
import { Writer } from './writer.ts'
import type { BatchStore } from './writer.ts'

/** Everything between the sockets of devices and the commit, wired. */
export type Ingest = {
  registry: DeviceRegistry
  devices: Devices
  /** The devices behind gateways and others who speak for devices. */
  children: ChildDevices
  /** Their sessions inside those of their gateways. */
  childSessions: ChildSessions
  provisioning: Provisioning
  claims: Claims
  sessions: Sessions
  rejects: RejectLog
  refused: RefusedConnections
  states: DeviceStates
  log: DeviceLog
  pipeline: Pipeline
  attributes: Attributes
  reads: AttributeReads
  /** HTTP devices that wait for a push or a command. */
  polls: LongPolls
  clientRpc: ClientRpc
  commands: Commands
  /** What devices shall install, and the bytes of it. */
  ota: { targets: OtaTargets; contents: Contents }
  endpoint: MqttEndpoint
  /** Undefined when there is no port for TLS. */
  certificate: ServerCertificate | undefined
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
  const devices = new Devices(context, registry, parts.store)
  const sessions = new Sessions({ clock, log, limit: config.mqtt.maxSessions })
  const rejects = new RejectLog({ db, clock, events, log })
  const refused = new RefusedConnections(clock, events)
  const provisioningProducts = new ProvisioningProducts(context)
  const provisioning = new Provisioning(context, { products: provisioningProducts, devices, refused: (refusal) => refused.add(refusal) })
  const claims = new Claims(context, registry)
  const chain = new ChainProvisioning(context, { registry, products: provisioningProducts, devices })
  const states = new DeviceStates(context, (deviceId) => sessions.get(deviceId)?.lastActivityAt ?? gateways.activityOf(deviceId))
  const deviceLog = new DeviceLog(context)
  const telemetry = createWriter(context, parts.disk.watch(parts.store), config.writer.connections)
  const attributeWriter = createWriter(context, parts.disk.watch(new AttributeStore(context)), 1)
  const attributes = new Attributes(context, registry)
  const reads = new AttributeReads(context)
  const polls = new LongPolls(clock)
  const clientRpc = new ClientRpc({ clock, events, limits: defaultMqttLimits })
  pushSharedAttributes(events, { sessions, polls })
  const announceClientAttributes = ({ device, points, receivedAt }: Stored) => {
    const values = points.map((point) => ({ ...point, updatedAt: receivedAt }))
    events.emit('attributes.changed', { tenantId: device.tenantId, deviceId: device.id, scope: 'client', values, deleted: [] })
  }
  const ota = { targets: new OtaTargets(context), contents: new Contents(context, parts.disk) }
  const commands = new Commands(context, registry)
  serveMqttCommands(commands, sessions)
  const pipeline = new Pipeline({
    telemetry,
    attributes: attributeWriter,
    rejects,
    log,
    gate: parts.disk,
    afterCommit: [
      {
        name: 'counters',
        run: ({ device, points, rejectCount }) => parts.counters.addMessage(device, points.length, rejectCount),
      },
      // A message over MQTT says no more than its session, whose activity is looked up when states are written.
      {
        name: 'states',
        run: ({ device, transport, receivedAt }) => {
          if (transport === 'http' || transport === 'connector') states.activeOverHttp(device, receivedAt, transport === 'connector')
        },
      },
      {
        name: 'client attributes',
        run: (stored) => stored.kind === 'attributes' && announceClientAttributes(stored),
      },
      { name: 'live', run: (stored) => parts.topics.publish(stored) },
      { name: 'modules', run: (stored) => parts.onStored?.(stored) },
      { name: 'updates', run: (stored) => ota.targets.note(stored) },
    ],
  })
  const owned = { registry, sessions, states, log: deviceLog }
  const children = new ChildDevices(context, owned)
  const gateways = new Gateways(context, { ...owned, devices: children, rejects, pipeline, commands, reads, claims })
  /** What devices ask for, kind by kind; a kind that is missing here is an unknown topic. */
  const requests: RequestHandlers = {
    attributeRequest: answerAttributeRequests(reads),
    rpcResponse: takeAnswers(commands),
    rpcRequest: clientRpc.serve,
    claim: claims.serve,
    gateway: gateways.serve,
    discovery: new Discovery({ pipeline, attributes }).serve,
    ...createChunkHandlers({ ...ota, clock, log }),
  }
  const admission = () => {
    if (parts.isDraining()) return 'draining'
    if (parts.disk.isClosed) return 'full'
    return parts.load.isOverloaded ? 'overloaded' : 'open'
  }
  const { port, tlsPort } = config.mqtt
  const certificate = tlsPort === 'off' ? undefined : new ServerCertificate(config, clock, log)
  const endpoint = new MqttEndpoint({
    port,
    tls: certificate && tlsPort !== 'off' ? { port: tlsPort, context: () => certificate.context } : undefined,
    host: config.mqtt.host,
    sink: pipeline,
    sessions,
    authenticate: (credentials) => chain.authenticate(credentials),
    rejects,
    requests,
    provision: mqttProvisioning(provisioning, clock),
    refused: ({ address, clientId, userNameLast4, reason }) =>
      refused.add({ address, clientId, reason, ...(userNameLast4 ? { last4: userNameLast4 } : {}) }),
    admission,
    clock,
    log,
    limits: { connectRate: config.mqtt.connectRate },
  })

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
  const limitNotes = new LimitNotes(clock, deviceLog, 'rate_limited')
  events.on('device.reject', ({ deviceId, entry }) => {
    const device = entry['code'] === 'RATE_LIMITED' ? registry.get(deviceId) : undefined
    if (device) limitNotes.add(device, '', { limit: String(entry['detail']) })
  })
  watchGauge(parts.metrics, 'iot_pms_sessions', 'MQTT sessions open', () => sessions.count)
  for (const name of ['connections', 'unauthenticated', 'waiting', 'delayedRefusals', 'waitingRequests'] as const) {
    watchGauge(
      parts.metrics,
      `iot_pms_mqtt_${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`,
      'Sockets of the MQTT endpoint, by what they wait for',
      () => endpoint.depths[name],
    )
  }
  watchGauge(parts.metrics, 'iot_pms_devices', 'Devices in memory', () => registry.size)
  watchGauge(parts.metrics, 'iot_pms_writer_depth', 'Points accepted and not yet committed', () => telemetry.depth)

  return {
    registry,
    devices,
    children,
    childSessions: gateways.children,
    provisioning,
    claims,
    sessions,
    rejects,
    refused,
    states,
    log: deviceLog,
    pipeline,
    attributes,
    reads,
    polls,
    clientRpc,
    commands,
    ota,
    endpoint,
    certificate,
    disk: parts.disk,
    async start() {
      await registry.start()
      await provisioningProducts.start()
      await commands.start()
      await ota.targets.start()
      states.start()
      certificate?.start()
      await endpoint.start()
    },
    async stop(deadlineMs) {
      polls.stop()
      provisioningProducts.stop()
      certificate?.stop()
      commands.giveUp()
      reads.stop()
      children.stop()
      // Side by side: the endpoint waits for answers, and the writers give them, at the latest when the time is over.
      await Promise.all([endpoint.stop(deadlineMs), telemetry.stop(deadlineMs - answerMs), attributeWriter.stop(deadlineMs - answerMs)])
      const flushed = Promise.all([states.stop(), deviceLog.flush(), rejects.flush(), commands.stop(), ota.targets.stop()])
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
