// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { ModuleContext } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { verifyStored } from './live.ts'
import { makeCheckpoint } from './log.ts'
import type { AuditParts } from './parts.ts'
import { applyRetention, countOlder } from './retention.ts'
import { createAuditContext, draftOf } from './testing-log.ts'
import type { AuditContext } from './testing-log.ts'
import { publicKeyHex, signer } from './testing.ts'
import { trustKeys } from './verify.mjs'

let context: AuditContext
beforeAll(async () => {
  context = await createAuditContext()
})
afterAll(() => context.close())

const years = (count: number) => Date.now() + count * 366 * 86_400_000
/** Parts at another time; a sink of every kind counts once it is enabled. */
function partsAt(now: number, auditDays: number, sinks: string[] = []): Pick<AuditParts, 'context' | 'settings' | 'sinks'> {
  const opened = sinks.map((name) => ({ sink: { name }, chains: 'own', version: '' }))
  return {
    context: { ...context, clock: { ...context.clock, now: () => now } } as unknown as ModuleContext,
    settings: { get: async () => ({ auditDays }) } as unknown as AuditParts['settings'],
    sinks: { open: async () => opened } as unknown as AuditParts['sinks'],
  }
}

test('whole segments past their time go once every sink has them; what is left verifies [AU-50]', async () => {
  const { rootTenant } = context
  const work: AuditContext['work'] = (run) => context.work(run)
  const stream = `audit:log:${rootTenant.tenantId}`
  await context.append(stream, ...Array.from({ length: 2 * 4096 + 10 }, (_, n) => draftOf(`d${n}`)))
  await work((tx) => makeCheckpoint(tx, rootTenant, stream, signer))
  const first = async () => {
    const [row] = await work((tx) =>
      tx.execute<{ seq: number }>(sql`select min(seq)::float8 as seq from audit.events where stream = ${stream}`),
    )
    return row!.seq
  }
  const deliver = (sink: string) =>
    work((tx) =>
      tx.execute(sql`insert into audit.sink_state (tenant_id, stream, sink, seq, checkpoint_size)
        values (${rootTenant.tenantId}, ${stream}, ${sink}, 8202, 8202)`),
    )

  // Not yet past its time; for ever; past it, but no sink has the checkpoint; one of two has it.
  await applyRetention(partsAt(Date.now(), 1095), rootTenant)
  await applyRetention(partsAt(years(4), 0), rootTenant)
  await applyRetention(partsAt(years(4), 1095), rootTenant)
  await deliver('own')
  await applyRetention(partsAt(years(4), 1095, ['far']), rootTenant)
  expect(await first()).toBe(1)

  await deliver('far')
  expect(await work((tx) => countOlder(tx, 1095, years(4)))).toBe(8202)
  await applyRetention(partsAt(years(4), 1095, ['far']), rootTenant)
  // The newest segment stays, whatever its age.
  expect(await first()).toBe(2 * 4096 + 1)
  const keys = trustKeys([], [publicKeyHex])
  expect(await work((tx) => verifyStored(tx, stream, { keys }))).toMatchObject({ ok: true, findings: [] })
})
