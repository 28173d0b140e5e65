// SPDX-License-Identifier: AGPL-3.0-only

/** Bounds of the endpoint (device API §2, security §8, reliability §7). */
export type MqttLimits = {
  /** A CONNECT must be complete within this time [M-2]. */
  connectMs: number
  /** The handshake of TLS, which comes before. */
  handshakeMs: number
  /** Largest remaining length of the first packet [M-3] and of later ones. */
  connectBytes: number
  payloadBytes: number
  /** Unanswered uplinks, and open QoS 2 packet ids, per session. */
  inFlight: number
  /** Requests that wait for their outcome, of all sessions together, and their bytes [M-29]. */
  requests: number
  requestBytes: number
  /** Sockets that have not sent their CONNECT yet: all, and per address. */
  unauthenticated: number
  unauthenticatedPerAddress: number
  /** Sockets that wait to be read at all, per address too, and how long the connect rate may hold them. */
  waiting: number
  waitingPerAddress: number
  waitingMs: number
  /** New connections per second; twice as many in a burst. */
  connectRate: number
  /** Refused CONNECTs per address and window after which further refusals are delayed [M-11]. */
  refusals: number
  refusalWindowMs: number
  refusalDelayMs: number
  delayedRefusals: number
  /** CONNECTs of one device: so many in so many seconds [M-12]. */
  deviceConnects: number
  deviceConnectsS: number
  /** Provisioning sessions at a time, how long each may last without a request or after an answer, and its requests [P-5]. */
  provisioningSessions: number
  provisioningMs: number
  provisioningRequests: number
  keepAliveMaxS: number
  /** A packet must be complete within this time, or the keep-alive if that is longer [M-45]. */
  packetMs: number
  /** Unsent bytes, and how long there may be more [M-21]. */
  unsentBytes: number
  unsentMs: number
  /** After our last packet the client gets this long to close before we do [M-13]. */
  lingerMs: number
  /** How often time limits are looked at. */
  tickMs: number
}

export const defaultMqttLimits: MqttLimits = {
  connectMs: 5_000,
  handshakeMs: 5_000,
  connectBytes: 4_096,
  payloadBytes: 65_536,
  inFlight: 100,
  requests: 1_000,
  requestBytes: 16_777_216,
  unauthenticated: 1_000,
  unauthenticatedPerAddress: 50,
  waiting: 20_000,
  // What the connect rate serves in waitingMs: as many may come at once through one NAT or balancer [RE F22].
  waitingPerAddress: 5_000,
  waitingMs: 10_000,
  connectRate: 500,
  refusals: 30,
  refusalWindowMs: 60_000,
  refusalDelayMs: 5_000,
  delayedRefusals: 1_000,
  deviceConnects: 30,
  deviceConnectsS: 60,
  provisioningSessions: 1_000,
  provisioningMs: 60_000,
  provisioningRequests: 10,
  keepAliveMaxS: 1_200,
  packetMs: 30_000,
  unsentBytes: 1_048_576,
  unsentMs: 10_000,
  lingerMs: 400,
  tickMs: 250,
}
