// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../clock.ts'
import { createLog } from '../log.ts'
import type { Point } from '../telemetry/points.ts'
import type { DeviceWrite, WriteRefusals } from '../telemetry/store.ts'
import { defaultPayloadRules } from './registry.ts'
import type { Device } from './registry.ts'
import { defaultSettings } from '../products/settings.ts'
import { Writer } from './writer.ts'
import type { WriteOutcome } from './writer.ts'

const device = (no: number): Device => ({
  tenantId: 't',
  tenantNo: 1,
  id: `d${no}`,
  no,
  name: `d${no}`,
  isDisabled: false,
  isGateway: false,
  settings: defaultSettings,
  rules: defaultPayloadRules,
  inactivityTimeoutMs: 1,
  lastServerTs: 0,
})
const point = (ts: number, value = 1): Point => ({ key: 'k', ts, kind: 'integer', value })
const sqlError = (code: string) => Object.assign(new Error(`SQLSTATE ${code}`), { code, severity: 'ERROR' })

/** A store in memory whose commits a test can hold, fail, or refuse. */
class MemoryStore {
  readonly stored: { no: number; ts: number }[] = []
  readonly batches: number[] = []
  fail: (batch: readonly DeviceWrite[]) => Error | undefined = () => undefined
  hold: Promise<void> | undefined

  async write(batch: readonly DeviceWrite[]): Promise<WriteRefusals> {
    this.batches.push(batch.length)
    await this.hold
    const error = this.fail(batch)
    if (error) throw error
    for (const write of batch) for (const one of write.points) this.stored.push({ no: write.device.no, ts: one.ts })
    return new Map()
  }

  async probe(batch: readonly DeviceWrite[]): Promise<void> {
    this.batches.push(batch.length)
    const error = this.fail(batch)
    if (error) throw error
  }
}

function createWriter(store: MemoryStore, change: { faults?: { ackEarly: boolean; noBisect: boolean }; lanes?: number } = {}): Writer {
  return new Writer({
    store,
    clock: systemClock,
    log: createLog('silent'),
    lanes: change.lanes ?? 1,
    windowMs: 2,
    random: () => 0,
    faults: change.faults ?? { ackEarly: false, noBisect: false },
  })
}

function enqueue(writer: Writer, no: number, points: Point[], sizeBytes = 10): Promise<WriteOutcome> {
  return new Promise((settle) => writer.enqueue({ device: device(no), points, sizeBytes, settle }))
}

describe('the writer', () => {
  it('settles only after the commit and groups what came within the window [M-27]', async () => {
    const store = new MemoryStore()
    let commit = () => {}
    store.hold = new Promise((resolve) => (commit = resolve))
    const writer = createWriter(store)
    let settled = 0
    const all = [1, 2, 3].map((no) => enqueue(writer, no, [point(no)]).then(() => settled++))
    await sleep(30)
    expect([store.batches, settled]).toEqual([[3], 0])
    commit()
    await Promise.all(all)
    expect(store.stored).toHaveLength(3)
  })

  it('loses no write and swaps none while the database is away [M-29, RE-41, RE-42]', async () => {
    const store = new MemoryStore()
    let failures = 3
    store.fail = () => (failures-- > 0 ? sqlError('57P01') : undefined)
    const writer = createWriter(store)
    const first = enqueue(writer, 1, [point(1)])
    await sleep(20)
    const second = enqueue(writer, 1, [point(2)])
    expect(await Promise.all([first, second])).toEqual([
      { status: 'committed', rejects: [] },
      { status: 'committed', rejects: [] },
    ])
    expect(store.stored.map((one) => one.ts)).toEqual([1, 2])
  })

  it('finds the one offending point of a batch, commits the rest in order, within the promised transactions [M-31, RE-40]', async () => {
    const store = new MemoryStore()
    store.fail = (batch) => (batch.some((write) => write.points.some((one) => one.ts === 777)) ? sqlError('22021') : undefined)
    const writer = createWriter(store)
    const outcomes = await Promise.all(
      Array.from({ length: 64 }, (_, i) => enqueue(writer, 1, i === 40 ? [point(41), point(777), point(42)] : [point(i)])),
    )
    for (const [i, outcome] of outcomes.entries()) {
      if (outcome.status !== 'committed') expect.unreachable()
      expect(outcome.rejects.map((one) => [one.code, one.ts])).toEqual(i === 40 ? [['STORE_FAILED', 777]] : [])
    }
    expect(store.stored).toHaveLength(65)
    const order = store.stored.map((one) => one.ts).filter((ts) => ts !== 41 && ts !== 42)
    expect(order).toEqual(order.toSorted((a, b) => a - b))
    // 64 messages first, then the 3 points of the one that fails.
    expect(store.batches.length).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(64)) + 2 * Math.ceil(Math.log2(3)) + 2)
  })

  it('retries an unknown error once before it bisects', async () => {
    const store = new MemoryStore()
    let failures = 1
    store.fail = () => (failures-- > 0 ? sqlError('XX000') : undefined)
    expect(await enqueue(createWriter(store), 1, [point(1)])).toEqual({ status: 'committed', rejects: [] })
  })

  it('says when it is full and when there is room again [M-29]', async () => {
    const store = new MemoryStore()
    let commit = () => {}
    store.hold = new Promise((resolve) => (commit = resolve))
    const writer = createWriter(store)
    let rooms = 0
    writer.onRoom(() => rooms++)
    const all = Array.from({ length: 33 }, (_, i) => enqueue(writer, i, [point(i)], 1024 * 1024))
    expect(writer.isFull).toBe(true)
    commit()
    await Promise.all(all)
    await sleep(5)
    expect([writer.isFull, rooms, writer.depth]).toEqual([false, 1, 0])
  })

  it('keeps the order of each device over several lanes', async () => {
    const store = new MemoryStore()
    const writer = createWriter(store, { lanes: 2 })
    await Promise.all(Array.from({ length: 2000 }, (_, i) => enqueue(writer, i % 7, [point(i)])))
    for (let no = 0; no < 7; no++) {
      const order = store.stored.filter((one) => one.no === no).map((one) => one.ts)
      expect(order).toEqual(order.toSorted((a, b) => a - b))
    }
  })

  it('commits what waits when it stops, and answers nothing for what it cannot', async () => {
    const store = new MemoryStore()
    const writer = createWriter(store)
    const fine = enqueue(writer, 1, [point(1)])
    await writer.stop(1000)
    expect(await fine).toEqual({ status: 'committed', rejects: [] })

    const away = new MemoryStore()
    away.fail = () => sqlError('08006')
    const stuck = createWriter(away)
    const lost = enqueue(stuck, 1, [point(1)])
    await stuck.stop(50)
    expect(await lost).toEqual({ status: 'unavailable' })
  })

  it('with the hook ack-early answers before the commit: what the kill test must notice', async () => {
    const store = new MemoryStore()
    store.hold = new Promise(() => {})
    const writer = createWriter(store, { faults: { ackEarly: true, noBisect: false } })
    expect(await enqueue(writer, 1, [point(1)])).toEqual({ status: 'committed', rejects: [] })
    expect(store.stored).toEqual([])
  })
})
