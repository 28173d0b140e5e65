// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { randomUUID } from 'node:crypto'
import type { EvidenceSigner, Scope, Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import { canonical } from './canonical.ts'
import { appendEntries, hashBody, signCheckpoint } from './chain.ts'
import type { Checkpoint, CheckpointBody, Entry, Head } from './chain.ts'
import { buildEvent, tenantOf } from './event.ts'
import type { Draft, EventPayload } from './event.ts'
import { addLeaf } from './tree.ts'
import type { Edge, Subtree } from './tree.ts'

/** A chain as it is stored. `first` is what retention has left. */
export type Chain = { head: Head; first: { seq: number; prev: string; left: Edge } }

/** [AU-50] Events of one segment; retention deletes nothing smaller. */
export const segmentSize = 4096

type ChainRow = {
  seq: string
  hash: string
  tree: { size: number; hash: string }[]
  firstSeq: string
  firstPrev: string
  firstLeft: { size: number; hash: string }[]
  now: string
}

/**
 * [AU-30] Appends to the chains of one tenant in the caller's transaction, as its last statements before the commit:
 * the row of a chain is held until then, and others wait for it.
 *
 * @param drafts by stream; chains are locked in the order of their names, so that two writers cannot wait for each other
 * @returns the entries by stream
 * @throws whatever the database says: then the change that was to be recorded is not committed either [AU-32]
 */
export async function appendEvents(tx: Tx, scope: Scope, drafts: ReadonlyMap<string, readonly Draft[]>): Promise<Map<string, Entry[]>> {
  const appended = new Map<string, Entry[]>()
  const streams = [...drafts.keys()].sort((a, b) => (a < b ? -1 : 1))
  for (const stream of streams) {
    const { chain, now } = await lockChain(tx, scope, stream)
    const makers = drafts.get(stream)!.map((draft) => (seq: number) => buildEvent(draft, { id: randomUUID(), stream, seq, ts: now }))
    const { entries, head } = appendEntries(chain.head, makers)
    await writeEntries(tx, scope, stream, entries, head)
    appended.set(stream, entries)
  }
  return appended
}

async function lockChain(tx: Tx, { tenantId }: Scope, stream: string): Promise<{ chain: Chain; now: Date }> {
  const select = () =>
    tx.execute<ChainRow>(sql`select head_seq as seq, encode(head_hash, 'hex') as hash, tree, first_seq as "firstSeq",
      encode(first_prev, 'hex') as "firstPrev", first_left as "firstLeft",
      floor(extract(epoch from clock_timestamp()) * 1000) as now
      from audit.chains where tenant_id = ${tenantId} and stream = ${stream} for update`)
  let [row] = await select()
  if (!row) {
    await tx.execute(sql`insert into audit.chains (tenant_id, stream) values (${tenantId}, ${stream}) on conflict do nothing`)
    ;[row] = await select()
  }
  return { chain: toChain(row!), now: new Date(Number(row!.now)) }
}

function toChain(row: ChainRow): Chain {
  return {
    head: { seq: Number(row.seq), hash: row.hash, edge: toEdge(row.tree) },
    first: { seq: Number(row.firstSeq), prev: row.firstPrev, left: toEdge(row.firstLeft) },
  }
}

function toEdge(stored: readonly { size: number; hash: string }[]): Subtree[] {
  return stored.map(({ size, hash }) => ({ size, hash: Buffer.from(hash, 'hex') }))
}

function formatEdge(edge: Edge): string {
  return JSON.stringify(edge.map(({ size, hash }) => ({ size, hash: hash.toString('hex') })))
}

/** One statement: while it runs, others wait for the chain. */
async function writeEntries(tx: Tx, { tenantId }: Scope, stream: string, entries: readonly Entry[], head: Head): Promise<void> {
  const rows = entries.map(({ hash, payload }) => {
    const { seq, ts, type, actor, subject, data } = payload
    return { seq, ts, type, actor, subject, outcome: data.outcome, payload: canonical(payload), hash }
  })
  await tx.execute(sql`with rows as (
      insert into audit.events (tenant_id, stream, seq, ts, type, actor, subject, outcome, payload, hash)
      select ${tenantId}, ${stream}, seq, ts, type, actor, subject, outcome, payload, decode(hash, 'hex')
      from jsonb_to_recordset(${JSON.stringify(rows)}::text::jsonb)
        as r (seq int8, ts timestamptz, type text, actor text, subject text, outcome text, payload text, hash text)
    )
    update audit.chains set head_seq = ${head.seq}, head_hash = decode(${head.hash}, 'hex'), tree = ${formatEdge(head.edge)}::text::jsonb
    where tenant_id = ${tenantId} and stream = ${stream}`)
}

/** Chains of the transaction's tenant. */
export async function listStreams(tx: Tx): Promise<string[]> {
  const rows = await tx.execute<{ stream: string }>(sql`select stream from audit.chains order by stream`)
  return rows.map(({ stream }) => stream)
}

/** @returns undefined for a chain without events */
export async function findChain(tx: Tx, stream: string): Promise<Chain | undefined> {
  const [row] = await tx.execute<ChainRow>(sql`select head_seq as seq, encode(head_hash, 'hex') as hash, tree, first_seq as "firstSeq",
    encode(first_prev, 'hex') as "firstPrev", first_left as "firstLeft", 0 as now from audit.chains where stream = ${stream}`)
  return row && toChain(row)
}

/** Entries by number, `prev` included; for exports and verification. */
export async function readEntries(tx: Tx, stream: string, from: number, to: number): Promise<Entry[]> {
  const chain = await findChain(tx, stream)
  if (!chain) return []
  const rows = await tx.execute<{ seq: string; payload: string; hash: string }>(sql`select seq, payload, encode(hash, 'hex') as hash
    from audit.events where stream = ${stream} and seq between ${Math.max(from - 1, chain.first.seq)} and ${to} order by seq`)
  let prev = chain.first.prev
  return rows.flatMap(({ seq, payload, hash }) => {
    const entry = { prev, hash, payload: JSON.parse(payload) as EventPayload }
    prev = hash
    return Number(seq) >= from ? [entry] : []
  })
}

/**
 * [AU-40] Signs what a chain is now; nothing when nothing is new. Under the chain's lock, so that the checkpoints of
 * a chain follow one another.
 */
export async function makeCheckpoint(tx: Tx, scope: Scope, stream: string, signer: EvidenceSigner): Promise<Checkpoint | undefined> {
  const { chain, now } = await lockChain(tx, scope, stream)
  const former = await findCheckpoint(tx, stream)
  if (chain.head.seq === 0 || former?.body.size === chain.head.seq) return undefined
  const checkpoint = signCheckpoint({ tenant: tenantOf(stream), head: chain.head, at: now }, former, signer)
  const { body, signature } = checkpoint
  await tx.execute(sql`insert into audit.checkpoints (tenant_id, stream, size, body, signature, at)
    values (${scope.tenantId}, ${stream}, ${body.size}, ${canonical(body)}, ${signature}, ${body.at})`)
  return checkpoint
}

/** @returns the newest checkpoint of a chain */
async function findCheckpoint(tx: Tx, stream: string): Promise<Checkpoint | undefined> {
  const [row] = await tx.execute<{ body: string; signature: string }>(
    sql`select body, signature from audit.checkpoints where stream = ${stream} order by size desc limit 1`,
  )
  return row && { body: JSON.parse(row.body) as CheckpointBody, signature: row.signature }
}

export async function listCheckpoints(tx: Tx, stream: string): Promise<Checkpoint[]> {
  const rows = await tx.execute<{ body: string; signature: string }>(
    sql`select body, signature from audit.checkpoints where stream = ${stream} order by size`,
  )
  return rows.map(({ body, signature }) => ({ body: JSON.parse(body) as CheckpointBody, signature }))
}

export type Retention = { /** Segments whose newest event is older go. */ olderThan: Date; policy: string }

/**
 * [AU-50] [AU-51] Deletes the oldest segment of a chain if all of it is older than the limit, it is not the newest, and
 * a checkpoint of at most `deliveredTo` covers it. What is left stays provable: a tombstone, the event of the deletion,
 * and the subtrees before the oldest event.
 *
 * @param deliveredTo size of the newest checkpoint that every enabled sink has
 * @returns the tombstone's segment, or undefined when nothing may go
 */
export async function deleteOldestSegment(
  tx: Tx,
  scope: Scope,
  stream: string,
  retention: Retention,
  deliveredTo: number,
): Promise<number | undefined> {
  const { chain, now } = await lockChain(tx, scope, stream)
  const { first, head } = chain
  const lastSeq = first.seq + segmentSize - 1
  const covering = (await listCheckpoints(tx, stream)).find(({ body }) => body.size >= lastSeq && body.size <= deliveredTo)
  if (lastSeq >= head.seq || !covering) return undefined
  const entries = await readEntries(tx, stream, first.seq, lastSeq)
  const [oldest, newest] = [entries[0]!, entries.at(-1)!]
  if (entries.length !== segmentSize || new Date(newest.payload.ts) >= retention.olderThan) return undefined
  const leaves = entries.map(({ hash }) => Buffer.from(hash, 'hex'))
  const [root] = leaves.reduce<Edge>(addLeaf, [])
  const left = leaves.reduce<Edge>(addLeaf, first.left)
  const segment = lastSeq / segmentSize
  const facts = {
    stream,
    segment,
    firstSeq: first.seq,
    lastSeq,
    firstTs: oldest.payload.ts,
    lastTs: newest.payload.ts,
    root: root!.hash.toString('hex'),
    lastHash: newest.hash,
    rows: segmentSize,
    policy: retention.policy,
    checkpoint: hashBody(covering.body),
  }
  await tx.execute(sql`insert into audit.tombstones (tenant_id, stream, segment, first_seq, last_seq, first_ts, last_ts, root, last_hash, rows, policy, checkpoint_size, deleted_at)
    values (${scope.tenantId}, ${stream}, ${segment}, ${first.seq}, ${lastSeq}, ${facts.firstTs}, ${facts.lastTs}, decode(${facts.root}, 'hex'),
      decode(${facts.lastHash}, 'hex'), ${segmentSize}, ${retention.policy}, ${covering.body.size}, ${now.toISOString()})`)
  await tx.execute(sql`update audit.chains set first_seq = ${lastSeq + 1}, first_prev = decode(${newest.hash}, 'hex'),
    first_left = ${formatEdge(left)}::text::jsonb where tenant_id = ${scope.tenantId} and stream = ${stream}`)
  await tx.execute(sql`select audit.delete_segment(${stream}, ${segment})`)
  const changes = Object.entries(facts).map(([name, value]) => ({ path: `/${name}`, from: value, to: null }))
  const draft: Draft = {
    type: 'audit.segment.delete',
    outcome: 'success',
    subject: `segment:${segment}`,
    actor: 'job:audit.retention',
    changes,
  }
  await appendEvents(tx, scope, new Map([[stream, [draft]]]))
  return segment
}
