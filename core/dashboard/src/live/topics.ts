// SPDX-License-Identifier: AGPL-3.0-only
import type { Device, DeviceCounts, Latest, LogEntry, Refused, Reject } from '../api/types.ts'

/** What can be subscribed to, and what comes (dashboard contract, live socket). */
export type LivePoint = [deviceId: string, key: string, ts: number, value: unknown, kind: Latest['kind']]
export type DeviceLogItem =
  | { type: 'log'; entry: LogEntry }
  | { type: 'reject'; entry: Reject }
  | { type: 'uplink'; at: string | number; key: string; value: unknown; points: number }

/** `points`: what the device just sent. */
export type DeviceChange = Pick<Device, 'id' | 'state' | 'lastActivityAt'> & { points?: Latest[] }

export type Topics = {
  telemetry: { params: { deviceIds: string[]; keys?: string[]; maxHz?: number }; item: LivePoint }
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

/** A row with what just happened; its key value changes only when that key came. */
export function applyLive(device: Device, { state, lastActivityAt, points }: DeviceChange): Device {
  const primary = points?.find((point) => !device.primary || point.key === device.primary.key) ?? device.primary
  return { ...device, state, lastActivityAt, primary }
}

/** @returns undefined for what is no frame of ours */
export function readFrame(text: unknown): Frame | undefined {
  if (typeof text !== 'string') return undefined
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null || typeof (value as { op?: unknown }).op !== 'string') return undefined
    return value as Frame
  } catch {
    return undefined
  }
}
