// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../../clock.ts'
import type { Log } from '../../log.ts'
import type { Device } from '../registry.ts'
import type { RequestHandlers } from '../requests.ts'
import type { Sessions } from '../sessions.ts'
import type { IngestSink } from '../uplink.ts'
import type { ConnectRefusal } from './answers.ts'
import type { ClientCertificate, Connect, Credentials } from './connect.ts'
import type { Connection } from './connection.ts'
import type { MqttLimits } from './limits.ts'
import type { ProvisionHandler } from './provisioning-session.ts'
import type { RequestRoom } from './request-room.ts'
import type { RejectRecorder } from './uplinks.ts'

/** What a CONNECT leads to: a session of a device, one for provisioning, or none. */
export type Login = { device: Device } | { provision: ProvisionHandler } | { refusal: ConnectRefusal }

/** Who is at the other end of a connection, as far as is known before its CONNECT. */
export type Peer = { address: string; tls: boolean; certificate?: ClientCertificate | undefined }

/** What all connections of an endpoint share. */
export type ConnectionContext = {
  sink: IngestSink
  sessions: Sessions
  rejects: RejectRecorder
  requests: RequestHandlers
  requestRoom: RequestRoom
  clock: Clock
  log: Log
  limits: MqttLimits
  /** False only in a fault test: keep-alive then runs on while we don't read. */
  pausesKeepAlive: boolean
  /** Looks a CONNECT up and decides about it. */
  login(connect: Connect, peer: Peer): Login | Promise<Login>
  /** Notes a refused CONNECT; how long its answer has to wait, `undefined` for ever [M-11]. */
  noteRefusal(address: string, refusal: ConnectRefusal, credentials: Credentials | undefined): number | undefined
  /** The first packet came, or the socket closed before it. */
  leaveUnauthenticated(connection: Connection): void
  /** Asks for a `flush` before the event loop goes on. */
  markDirty(connection: Connection): void
  /** Asks for a `pump` when the sink has room again. */
  waitForRoom(connection: Connection): void
  closed(connection: Connection): void
}
