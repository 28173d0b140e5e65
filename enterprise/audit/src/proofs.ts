// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import type { Checkpoint } from './chain.ts'
import { listCheckpoints } from './log.ts'
import type { Chain } from './log.ts'
import { addLeaf, proveInclusion } from './tree.ts'
import type { Edge } from './tree.ts'

/** Hashes of events by number, both ends included. */
async function readHashes(tx: Tx, stream: string, from: number, to: number): Promise<Buffer[]> {
  const rows = await tx.execute<{ hash: Buffer }>(
    sql`select hash from audit.events where stream = ${stream} and seq between ${from} and ${to} order by seq`,
  )
  return rows.map(({ hash }) => hash)
}

/** The tree over all events before a number, as its right edge. */
export async function edgeBefore(tx: Tx, stream: string, { first }: Chain, seq: number): Promise<Edge> {
  return (await readHashes(tx, stream, first.seq, seq - 1)).reduce<Edge>(addLeaf, first.left)
}

/** Larger trees are proved by the verifier, which reads them anyway. */
const maxLeaves = 200_000

export type Proof = { size: number; root: string; path: string[]; checkpoint: Checkpoint }

/** That an event lies in the newest checkpoint's tree; null where nothing covers it, or the tree is no longer whole. */
export async function proveEvent(tx: Tx, stream: string, { first }: Chain, seq: number): Promise<Proof | null> {
  const checkpoint = (await listCheckpoints(tx, stream)).find(({ body }) => body.size >= seq)
  if (!checkpoint || first.seq !== 1 || checkpoint.body.size > maxLeaves) return null
  const { size, root } = checkpoint.body
  const leaves = await readHashes(tx, stream, 1, size)
  return { size, root, path: proveInclusion(seq - 1, leaves).map((hash) => hash.toString('hex')), checkpoint }
}
