// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ProblemError } from '@iot-pms/core'
import type { ModuleContext, Scope, Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import type { Checkpoint } from './chain.ts'
import { streamOf } from './event.ts'
import { ownSink } from './keeper.ts'
import { verifyStored } from './live.ts'
import { findChain } from './log.ts'
import { fileNameOf } from './sinks.ts'
import { trustKeys } from './verify.mjs'
import type { Finding } from './verify.mjs'

export type ChainName = 'own' | 'platform'

/**
 * The stream of a chain as a caller names it.
 *
 * @throws {ProblemError} `NOT_FOUND` for the platform's chain, unless the caller is of the root tenant
 */
export function pickStream(context: ModuleContext, scope: Scope, chain: ChainName = 'own'): string {
  if (chain === 'own') return streamOf(scope.tenantId)
  if (scope.tenantId !== context.rootTenant.tenantId) throw new ProblemError('NOT_FOUND')
  return streamOf(undefined)
}

type Row = {
  stream: string
  firstSeq: number
  headSeq: number
  headHash: string
  checkpointSize: number
  checkpointAt: number | null
  ownSize: number
  elsewhere: number
}

/** Chains of a tenant with how far they are signed, and how far that has left the database [AU-41]. */
export async function listChains(tx: Tx) {
  const rows =
    await tx.execute<Row>(sql`select c.stream, c.first_seq::float8 as "firstSeq", c.head_seq::float8 as "headSeq", encode(c.head_hash, 'hex') as "headHash",
      coalesce(p.size, 0)::float8 as "checkpointSize", floor(extract(epoch from p.at) * 1000)::float8 as "checkpointAt",
      coalesce((select max(checkpoint_size) from audit.sink_state t where t.stream = c.stream and t.sink = ${ownSink}), 0)::float8 as "ownSize",
      coalesce((select max(checkpoint_size) from audit.sink_state t join audit.sinks s on s.id::text = t.sink
        where t.stream = c.stream and s.kind <> 'file'), 0)::float8 as elsewhere
    from audit.chains c left join lateral (select size, at from audit.checkpoints p where p.stream = c.stream order by size desc limit 1) p on true
    order by c.stream`)
  return rows.map(({ ownSize, elsewhere, checkpointAt, ...row }) => ({
    ...row,
    chain: row.stream === streamOf(undefined) ? ('platform' as const) : ('own' as const),
    checkpointAt: checkpointAt === null ? null : new Date(checkpointAt).toISOString(),
    anchoredTo: Math.max(ownSize, elsewhere),
    anchoredAt: elsewhere > 0 ? ('elsewhere' as const) : ownSize > 0 ? ('machine' as const) : ('nowhere' as const),
  }))
}

export type Verified = {
  stream: string
  ok: boolean
  findings: Finding[]
  firstSeq: number
  lastSeq: number
  anchoredTo: number
  unanchored: number
}

/** A chain as it is stored, against the keys of this installation and the checkpoints in its files. */
export async function verifyChain(context: ModuleContext, scope: Scope, stream: string): Promise<Verified> {
  const list = (await context.evidence.publicKeys()).map(({ id, publicKey }) => ({ id, publicKey: publicKey.toString('base64') }))
  const outside = await readCheckpointFile(context.folder, stream)
  return context.db.withTenant(scope, async (tx) => {
    const chain = await findChain(tx, stream)
    const result = await verifyStored(tx, stream, { keys: trustKeys(list, []), outside })
    context.audit.record(tx, {
      type: 'audit.verify',
      subject: `chain:${stream}`,
      ...(result.ok ? {} : { outcome: 'failure', reason: result.findings[0]!.code }),
    })
    return { stream, firstSeq: chain?.first.seq ?? 1, ...result }
  })
}

/** What the own sink has written: it finds what was cut from the database. A line that a crash has torn is none. */
export async function readCheckpointFile(folder: string, stream: string): Promise<Checkpoint[]> {
  const text = await readFile(join(folder, `checkpoints-${fileNameOf(stream)}.jsonl`), 'utf8').catch(() => '')
  return text.split('\n').flatMap((line) => {
    try {
      return line === '' ? [] : [JSON.parse(line) as Checkpoint]
    } catch {
      return []
    }
  })
}
