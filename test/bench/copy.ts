// SPDX-License-Identifier: AGPL-3.0-only
import { Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { Readable } from 'node:stream'
import postgres from 'postgres'
import { median } from './machine.ts'

/** What the database and the disk can do at all [RE §12]. */
export type CopyReference = { pointsPerS: number; commitMs: number; commitP99Ms: number; postgresVersion: string }

const batchRows = 5000
const commits = 200

/**
 * R: points per second of binary COPY in batches of 5,000 rows into a heap without an index, one
 * connection. C: median time of a COPY of one row with its commit, and the 99th percentile of it.
 */
export async function measureCopy(adminUrl: string, ms: number): Promise<CopyReference> {
  const sql = postgres(adminUrl, {
    max: 1,
    onnotice: () => {},
    // Without it each COPY waits for a delayed ACK.
    socket: ({ host, port }: { host: string[]; port: number[] }) => new Socket().setNoDelay(true).connect(port[0]!, host[0]!),
  } as postgres.Options<Record<string, never>>)
  const copy = async (bytes: Buffer) => pipeline(Readable.from([bytes]), await sql`copy bench_heap from stdin (format binary)`.writable())
  try {
    await sql`drop table if exists bench_heap`
    await sql`create table bench_heap (tenant_no int4 not null, device_no int4 not null, key_no int4 not null, ts int8 not null, num float8)`
    const batch = encodeRows(batchRows)
    await copy(batch)
    const startedAt = performance.now()
    let rows = 0
    while (performance.now() - startedAt < ms) {
      await copy(batch)
      rows += batchRows
    }
    const pointsPerS = (1000 * rows) / (performance.now() - startedAt)
    const one = encodeRows(1)
    const times: number[] = []
    for (let count = 0; count < commits; count++) {
      const before = performance.now()
      await copy(one)
      times.push(performance.now() - before)
    }
    const [row] = await sql<{ version: string }[]>`select current_setting('server_version') as version`
    const commitP99Ms = times.toSorted((a, b) => a - b)[Math.floor(0.99 * commits)]!
    return { pointsPerS, commitMs: median(times), commitP99Ms, postgresVersion: row!.version }
  } finally {
    await sql`drop table if exists bench_heap`
    await sql.end()
  }
}

/** PostgreSQL's binary COPY format (documentation of COPY). */
function encodeRows(count: number): Buffer {
  const rowSize = 2 + 3 * 8 + 2 * 12
  const bytes = Buffer.alloc(19 + count * rowSize + 2)
  let at = Buffer.from('5047434f50590aff0d0a000000000000000000', 'hex').copy(bytes)
  for (let row = 0; row < count; row++) {
    at = bytes.writeInt16BE(5, at)
    for (const value of [1, row % 1000, row % 5]) at = bytes.writeInt32BE(value, bytes.writeInt32BE(4, at))
    at = bytes.writeBigInt64BE(BigInt(1_760_000_000_000 + row), bytes.writeInt32BE(8, at))
    at = bytes.writeDoubleBE(20 + (row % 100) / 10, bytes.writeInt32BE(8, at))
  }
  bytes.writeInt16BE(-1, at)
  return bytes
}
