// SPDX-License-Identifier: AGPL-3.0-only
import { parseExact } from '../exact-json.ts'
import type { Attribute, AttributeScope, Command, Device, DeviceCounts, Latest, LogEntry, Refused, Reject } from '../api/types.ts'

/** What can be subscribed to, and what comes (dashboard contract, live socket). */
export type LivePoint = [deviceId: string, key: string, ts: number, value: unknown, kind: Latest['kind']]
export type DeviceLogItem =
  | { type: 'log'; entry: LogEntry }
  | { type: 'reject'; entry: Reject }
  | { type: 'uplink'; at: string | number; key: string; value: unknown; points: number }
  | { type: 'call'; at: string; requestId: number; method: string; params: unknown }

/** `primary` only when the key value is a newer one. */
export type DeviceChange = Pick<Device, 'id' | 'state' | 'lastActivityAt'> & { primary?: NonNullable<Device['primary']> }

export type AttributeItem = { deviceId: string; scope: AttributeScope; key: string } & (
  | { deleted: true }
  | (Pick<Attribute, 'value' | 'kind' | 'lastUpdateTs'> & { deleted?: never })
)
/** A move of a persistent command: the command after it, and what was noted with it. */
export type CommandItem = Omit<Command, 'moves'> & { detail: string | null }

export type Topics = {
  telemetry: { params: { deviceIds: string[]; keys?: string[]; maxHz?: number }; item: LivePoint }
  attributes: { params: { deviceIds: string[] }; item: AttributeItem }
  commands: { params: { deviceId: string }; item: CommandItem }
  devices: { params: { ids: string[] }; item: DeviceChange }
  deviceLog: { params: { id: string }; item: DeviceLogItem }
  system: { params: Record<string, never>; item: { type: 'refused' } & Refused }
  overview: {
    params: Record<string, never>
    item: { devices: DeviceCounts; pointsPerMinute: number; messagesPerMinute: number; rejectsPerMinute: number }
  }
}
export type Topic = keyof Topics

export type Frame =
  | { op: 'ok'; id: string }
  | { op: 'err'; id: string; code: string; detail: string }
  | { op: 'data'; id: string; seq: number; items: unknown[] }
  | { op: 'resync'; id: string }
  | { op: 'pong'; t: number }
  | { op: 'event'; topic: string; data: unknown }

/** A row with what just happened. */
export function applyLive(device: Device, { state, lastActivityAt, primary }: DeviceChange): Device {
  return { ...device, state, lastActivityAt, primary: primary ?? device.primary }
}

/** @returns undefined for what is no frame of ours */
export function readFrame(text: unknown): Frame | undefined {
  if (typeof text !== 'string') return undefined
  try {
    const value = parseExact(text)
    if (typeof value !== 'object' || value === null || typeof (value as { op?: unknown }).op !== 'string') return undefined
    return value as Frame
  } catch {
    return undefined
  }
}
