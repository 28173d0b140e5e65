// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { KeyObject } from 'node:crypto'
import type { Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import { canonical } from './canonical.ts'
import type { Checkpoint } from './chain.ts'
import { tenantOf } from './event.ts'
import { findChain, listCheckpoints, readEntries, segmentSize } from './log.ts'
import type { Chain } from './log.ts'
import { addSubtree } from './tree.ts'
import type { Edge } from './tree.ts'
import { verifyLog } from './verify.mjs'
import type { Line, Result } from './verify.mjs'

/** Entries read at once. */
const pageSize = 2000

/** Retention may take a segment away while its events are being read; then the chain is read again. */
const maxTries = 3

/**
 * [§8] Verifies a chain as it is stored, by the same rules as an export of it.
 *
 * @param keys public keys by id, from outside the database
 * @param outside checkpoints that sinks have received: they find what was cut from the database
 */
export async function verifyStored(
  tx: Tx,
  stream: string,
  trust: { keys: ReadonlyMap<string, KeyObject>; outside?: readonly Checkpoint[] },
): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    const chain = await findChain(tx, stream)
    if (!chain) {
      return verifyLog({
        lines: [],
        checkpoints: trust.outside ?? [],
        keys: trust.keys,
        manifest: { stream, tenant: tenantOf(stream), fromSeq: 1, left: [] },
      })
    }
    const result = await verifyChain(tx, stream, chain, trust)
    const after = await findChain(tx, stream)
    if (after?.first.seq === chain.first.seq || attempt === maxTries) return result
  }
}

async function verifyChain(tx: Tx, stream: string, { head, first }: Chain, trust: Parameters<typeof verifyStored>[2]): Promise<Result> {
  const left = first.left.map(({ size, hash }) => ({ size, hash: hash.toString('hex') }))
  const manifest = { stream, tenant: tenantOf(stream), fromSeq: first.seq, toSeq: head.seq, prev: first.prev, left }
  const stored = await listCheckpoints(tx, stream)
  // What was signed after the head was read is of events that are not looked at.
  const checkpoints = [...stored.filter(({ body }) => body.size <= head.seq), ...(trust.outside ?? [])]
  const result = await verifyLog({ manifest, lines: readLines(tx, stream, first.seq, head.seq), checkpoints, keys: trust.keys })
  if (await isLeftProved(tx, stream, first)) return result
  return { ...result, ok: false, findings: [...result.findings, { code: 'AUDIT_TOMBSTONE', seq: first.seq - 1 }] }
}

async function* readLines(tx: Tx, stream: string, from: number, to: number): AsyncGenerator<Line> {
  for (let at = from; at <= to; at += pageSize) {
    for (const entry of await readEntries(tx, stream, at, Math.min(at + pageSize - 1, to))) {
      yield { text: canonical(entry), line: entry.payload.seq, isEnded: true }
    }
  }
}

/** Whether what is said of the events before the oldest one follows from the tombstones. */
async function isLeftProved(tx: Tx, stream: string, first: Chain['first']): Promise<boolean> {
  const graves = await tx.execute<{ segment: string; root: Buffer; last: string }>(
    sql`select segment, root, encode(last_hash, 'hex') as last from audit.tombstones where stream = ${stream} order by segment`,
  )
  const isGapless = graves.every(({ segment }, index) => Number(segment) === index + 1) && graves.length * segmentSize === first.seq - 1
  const left = graves.reduce<Edge>((edge, { root }) => addSubtree(edge, { size: segmentSize, hash: root }), [])
  const isEqual =
    left.length === first.left.length &&
    left.every(({ size, hash }, index) => size === first.left[index]!.size && hash.equals(first.left[index]!.hash))
  return isGapless && isEqual && first.prev === (graves.at(-1)?.last ?? '0'.repeat(64))
}
