// SPDX-License-Identifier: AGPL-3.0-only
import postgres from 'postgres'
import { decodeChunk } from '../../core/src/telemetry/chunk-codec.ts'
import { RowCursor } from '../../core/src/telemetry/segment-rows.ts'
import type { Installation } from './installation.ts'
import { keys, valueOf } from './ledger.ts'
import type { Message } from './ledger.ts'

/** A readable value and where it stands. */
export type ReadPoint = { key: string; ts: number; value: unknown }

/** Reads the three keys of a device in `from ≤ ts < to`, through one of the ways in. */
export type Reader = { name: string; read(deviceId: string, from: number, to: number): Promise<ReadPoint[]> }

/** Counted in points, but for `torn`: messages of which a part is readable. */
export type Verdict = {
  acked: number
  stored: number
  lost: number
  duplicates: number
  phantoms: number
  torn: number
  examples: string[]
}

export type Expected = { base: number; deviceIds: readonly string[]; messages: readonly Message[] }

/** Newer points are asked for up to here: whatever else is readable is a phantom. */
const afterEverything = 8_000_000_000_000
const maxExamples = 5

/**
 * Compares what is readable from sample `first` on with what was sent [RE-13]: an acknowledged point is
 * there with its value, a refused message is absent, an open one is whole or absent, nothing else exists.
 */
export async function check(expected: Expected, reader: Reader, first: number): Promise<Verdict> {
  const verdict: Verdict = { acked: 0, stored: 0, lost: 0, duplicates: 0, phantoms: 0, torn: 0, examples: [] }
  const note = (text: string) => verdict.examples.length < maxExamples && verdict.examples.push(`${reader.name}: ${text}`)
  const byDevice = expected.deviceIds.map((): Message[] => [])
  for (const message of expected.messages) if (message.n >= first) byDevice[message.device]!.push(message)

  for (const [device, messages] of byDevice.entries()) {
    const points = await reader.read(expected.deviceIds[device]!, expected.base + first, afterEverything)
    verdict.stored += points.length
    // How many of the keys of a sample are there with the value that was sent.
    const good = new Map<number, number>()
    const seen = new Set<string>()
    const wrong: ReadPoint[] = []
    for (const point of points) {
      const n = point.ts - expected.base
      const name = `${point.key} ${n}`
      if (seen.has(name)) {
        verdict.duplicates++
        note(`device ${device} has ${name} twice`)
        continue
      }
      seen.add(name)
      if (point.value === valueOf(point.key, n)) good.set(n, (good.get(n) ?? 0) + 1)
      else wrong.push(point)
    }
    for (const message of messages) {
      const samples = Array.from({ length: message.count }, (_, offset) => message.n + offset)
      const present = samples.reduce((sum, n) => sum + (good.get(n) ?? 0), 0)
      const whole = message.count * keys.length
      if (message.state === 'ok') {
        verdict.acked += whole
        verdict.lost += whole - present
        if (present < whole) note(`device ${device}, sample ${message.n}: acknowledged, ${present} of ${whole} points are there`)
      } else if (message.state === 'info' && present > 0 && present < whole) {
        verdict.torn++
        note(`device ${device}, sample ${message.n}: ${present} of ${whole} points of an open message are there`)
      }
      if (message.state !== 'fail') for (const n of samples) good.delete(n)
    }
    // What is left was refused, never sent by this device, or has a foreign value.
    for (const [n, count] of good) {
      verdict.phantoms += count
      note(
        `device ${device}, sample ${n}: readable, but ${messages.some((one) => one.n === n) ? 'it was refused' : 'this device never sent it'}`,
      )
    }
    verdict.phantoms += wrong.length
    if (wrong[0]) note(`device ${device} has ${JSON.stringify(wrong[0])}`)
  }
  return verdict
}

export function isClean(verdict: Verdict): boolean {
  return verdict.lost === 0 && verdict.duplicates === 0 && verdict.phantoms === 0 && verdict.torn === 0
}

/** The public API as a dashboard reads it. */
export function historyReader(installation: Installation): Reader {
  return {
    name: 'history',
    async read(deviceId, from, to) {
      const points: ReadPoint[] = []
      for (let cursor: string | null = ''; cursor !== null;) {
        const query = new URLSearchParams({
          keys: keys.join(','),
          from: String(from),
          to: String(to),
          limit: '100000',
          ...(cursor ? { cursor } : {}),
        })
        const page = (await installation.call('GET', `/api/v1/devices/${deviceId}/telemetry/history?${query.toString()}`)) as {
          series: { key: string; points: [number, unknown][] }[]
          nextCursor: string | null
        }
        for (const { key, points: found } of page.series) for (const [ts, value] of found) points.push({ key, ts, value })
        cursor = page.nextCursor
      }
      return points
    },
  }
}

/**
 * Past the server: the union of chunks and segment rows as the format says it, written once more and plainly,
 * so that an error of the server's own reading cannot hide itself.
 */
export function sqlReader(adminUrl: string): Reader & { close(): Promise<void> } {
  const sql = postgres(adminUrl, { max: 1, onnotice: () => {} })
  return {
    name: 'sql',
    async read(deviceId, from, to) {
      return sql.begin('isolation level repeatable read read only', async (tx) => {
        const [device] = await tx<{ number: number }[]>`
          select d.number, set_config('iot_pms.tenant_no', t.number::text, true) from devices d join tenants t on t.id = d.tenant_id where d.id = ${deviceId}`
        await tx`set local role pms_app`
        const number = device!.number
        const rows = await tx<{ points: Buffer }[]>`select points from telemetry_tail(array[${number}::int4], ${from}, ${to})`
        const points: ReadPoint[] = []
        for (const key of keys) {
          const [found] = await tx<{ no: number | null }[]>`select telemetry_key_no(${key}) as no`
          const keyNo = found!.no
          if (keyNo === null) continue
          const chunks = await tx<{ points: Buffer }[]>`
            select points from telemetry_chunks_of(${number}, ${keyNo}, ${from}, ${to}, ${maxChunks}, false, 0)`
          points.push(...uniteSeries(key, keyNo, rows, chunks).filter(({ ts }) => ts >= from && ts < to))
        }
        return points
      })
    },
    close: () => sql.end({ timeout: 5 }),
  }
}

/** More than any device has. */
const maxChunks = 1_000_000_000

/** Rows come in the order they were written, so the last one counts; chunks are older than any row and never meet each other. */
function uniteSeries(key: string, keyNo: number, rows: readonly { points: Buffer }[], chunks: readonly { points: Buffer }[]): ReadPoint[] {
  const written = new Map<number, unknown>()
  for (const row of rows) {
    const cursor = new RowCursor(row.points)
    while (cursor.next()) if (cursor.keyNo === keyNo) written.set(cursor.ts, cursor.point().value)
  }
  const points: ReadPoint[] = Array.from(written, ([ts, value]) => ({ key, ts, value }))
  // A point that stands in two chunks is handed out twice: it is a duplicate.
  for (const chunk of chunks) {
    for (const { ts, value } of decodeChunk(chunk.points)) if (!written.has(ts)) points.push({ key, ts, value })
  }
  return points
}
