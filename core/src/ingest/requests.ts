// SPDX-License-Identifier: AGPL-3.0-only
import type { Device } from './registry.ts'
import type { Session } from './sessions.ts'
import type { Outcome, UplinkSource } from './uplink.ts'

/**
 * What a device can publish besides telemetry and client attributes (device API §3); `discovery` is any other topic of
 * a device that announces its own.
 */
export type RequestKind =
  | 'attributeRequest'
  | 'rpcResponse'
  | 'rpcRequest'
  | 'claim'
  | 'firmwareChunk'
  | 'softwareChunk'
  | 'gateway'
  | 'discovery'

/** The family of topics a request came on; its answer uses the same [T-1]. */
export type RequestForm = 'v1' | 'v2' | 'v2/j'

/** A message on a topic that wants something of the server. */
export type DeviceRequest = {
  readonly device: Device
  /** Where answers go: `session.send`. */
  readonly session: Session
  readonly kind: RequestKind
  readonly form: RequestForm
  /** `{id}` of the topic, 0…2³¹−1; 0 where the topic has none. */
  readonly id: number
  /** `{n}` of a firmware or software topic. */
  readonly chunk: number | undefined
  readonly topic: string
  /** Its bytes never change, but may lie in a much larger buffer: copy what is kept. */
  readonly payload: Buffer
  /** ms since 1970, server clock at receipt. */
  readonly receivedAt: number
  readonly source: UplinkSource
}

/**
 * Serves one kind of request. The PUBLISH is answered by the outcome, in its turn [M-23], so a handler
 * that waits for long holds the answers to all later messages of its session: it settles first and sends
 * its own answer later. What is sent before a handler returns leaves after the PUBACK when it returned
 * its outcome at once, and may leave before it when it returned a promise.
 *
 * A `refused` outcome is logged by the caller; rejects inside the other outcomes are the handler's to log.
 */
export type RequestHandler = (request: DeviceRequest) => Outcome | Promise<Outcome>

/** A kind without a handler is answered like an unknown topic. */
export type RequestHandlers = Readonly<Partial<Record<RequestKind, RequestHandler>>>

/** The outcome of a request that was served; nothing of it is a stored point. */
export const served: Outcome = { status: 'stored', accepted: 0, rejects: [] }
