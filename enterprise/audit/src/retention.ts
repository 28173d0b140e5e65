// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { Scope, Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import { findDelivered } from './forwarder.ts'
import { ownSink } from './keeper.ts'
import { deleteOldestSegment, listStreams } from './log.ts'
import type { AuditParts } from './parts.ts'

const dayMs = 86_400_000
/** Segments of one chain in one run; the next run goes on. */
const maxSegments = 100

/** [AU-50] Takes away whole segments past their time that every enabled sink has; run by core's hourly upkeep. */
export async function applyRetention(
  { context, settings, sinks }: Pick<AuditParts, 'context' | 'settings' | 'sinks'>,
  scope: Scope,
): Promise<void> {
  const run = <T>(work: (tx: Tx) => Promise<T>) => context.db.withTenant(scope, work)
  const { auditDays } = await run((tx) => settings.get(tx, scope))
  if (auditDays === 0) return
  const retention = { olderThan: new Date(context.clock.now() - auditDays * dayMs), policy: `auditDays=${auditDays}` }
  const enabled = await sinks.open(scope)
  for (const stream of await run((tx) => listStreams(tx))) {
    const names = [ownSink, ...enabled.filter(({ chains }) => reaches(chains, stream, scope)).map(({ sink }) => sink.name)]
    for (let n = 0; n < maxSegments; n++) {
      const deleted = await run(async (tx) => deleteOldestSegment(tx, scope, stream, retention, await findDelivered(tx, stream, names)))
      if (deleted === undefined) break
      context.log.info({ stream, segment: deleted }, 'removed a segment of the audit log that is past its time')
    }
  }
}

function reaches(chains: 'own' | 'platform' | 'both', stream: string, { tenantId }: Scope): boolean {
  return chains === 'both' || (chains === 'own') === stream.endsWith(tenantId)
}

/** [AU-53] Events that a time would take away now, in whole segments or not. */
export async function countOlder(tx: Tx, days: number, now: number): Promise<number> {
  if (days === 0) return 0
  const [row] = await tx.execute<{ count: number }>(
    sql`select count(*)::float8 as count from audit.events where ts < ${new Date(now - days * dayMs).toISOString()}`,
  )
  return row!.count
}
