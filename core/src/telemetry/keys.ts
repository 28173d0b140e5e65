// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import type { Device } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import type { DeviceWrite, WriteRefusals } from './store.ts'

/** Distinct telemetry keys a device may have (device API §2.6). */
export const maxKeysPerDevice = 10_000

type KeyRow = { device_no: number; key: string; key_no: number }

/**
 * Sees to it that every key of a batch has a number, which rows hold instead of its name.
 * @returns the points beyond a device's limit of keys, which must not be written
 */
export async function registerKeys(writer: pg.Pool, batch: readonly DeviceWrite[]): Promise<WriteRefusals> {
  await loadKnown(writer, batch)
  const refusals = new Map<number, Reject[]>()
  const added = new Map<Device, Set<string>>()
  for (const [index, { device, points }] of batch.entries()) {
    for (const { key, ts } of points) {
      if (device.keyNos!.has(key)) continue
      const fresh = added.get(device) ?? new Set()
      if (!fresh.has(key) && device.keyNos!.size + fresh.size >= maxKeysPerDevice) {
        const rejects = refusals.get(index) ?? []
        rejects.push({ code: 'TOO_MANY_KEYS', detail: `the device already has ${maxKeysPerDevice} keys`, key, ts })
        refusals.set(index, rejects)
        continue
      }
      fresh.add(key)
      added.set(device, fresh)
    }
  }
  if (added.size > 0) await addNumbers(writer, added)
  return refusals
}

/** The batch without what was refused. */
export function withoutRefused(batch: readonly DeviceWrite[], refusals: WriteRefusals): readonly DeviceWrite[] {
  if (refusals.size === 0) return batch
  return batch.map(({ device, points }, index) => {
    const refused = new Set(refusals.get(index)?.map((reject) => reject.key))
    return { device, points: points.filter((point) => !refused.has(point.key)) }
  })
}

async function loadKnown(writer: pg.Pool, batch: readonly DeviceWrite[]): Promise<void> {
  const unknown = new Set<Device>()
  for (const { device } of batch) if (!device.keyNos) unknown.add(device)
  if (unknown.size === 0) return
  const devices = [...unknown]
  const { rows } = await writer.query<KeyRow>('select * from telemetry_load_keys($1, $2)', [
    devices.map((device) => device.tenantNo),
    devices.map((device) => device.no),
  ])
  const byNo = groupByNo(devices)
  for (const device of devices) device.keyNos ??= new Map()
  for (const row of rows) for (const device of byNo.get(row.device_no)!) device.keyNos!.set(row.key, row.key_no)
}

async function addNumbers(writer: pg.Pool, added: ReadonlyMap<Device, ReadonlySet<string>>): Promise<void> {
  const pairs = [...added].flatMap(([device, keys]) => [...keys].map((key) => ({ device, key })))
  const { rows } = await writer.query<KeyRow>('select * from telemetry_register_keys($1, $2, $3)', [
    pairs.map((pair) => pair.device.tenantNo),
    pairs.map((pair) => pair.device.no),
    pairs.map((pair) => pair.key),
  ])
  const byNo = groupByNo(added.keys())
  for (const row of rows) for (const device of byNo.get(row.device_no)!) device.keyNos!.set(row.key, row.key_no)
}

/** A batch may hold a device as it was before a change and after it. */
function groupByNo(devices: Iterable<Device>): Map<number, Device[]> {
  return Map.groupBy(devices, (device) => device.no)
}
