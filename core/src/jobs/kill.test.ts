// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { killWork } from './testing-kill.ts'

let context: TestContext
const children: ChildProcess[] = []

beforeAll(async () => {
  context = await createTestContext()
  await context.jobs.start()
  await context.jobs.declare(killWork)
})
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  await context.close()
})

function startWorker(): ChildProcess {
  const script = join(import.meta.dirname, 'testing-kill.ts')
  const child = spawn(process.execPath, [script, context.database.url], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  return child
}

async function countDone(): Promise<number> {
  const [row] = await context.db.withTenant(context.rootTenant, (tx) =>
    tx.execute<{ done: number }>(sql`select count(*)::int as done from state_documents where scope = 'kill'`),
  )
  return row!.done
}

const jobs = 400
const kills = 6

async function send(prefix: string): Promise<void> {
  const { tenantId } = context.rootTenant
  await context.jobs.sendMany(
    killWork,
    Array.from({ length: jobs }, (_, i) => ({ data: { tenantId, name: `${prefix}${i}` } })),
  )
}

/** Kills worker after worker, each when it has done a few jobs of its own. */
async function killAgainAndAgain(): Promise<void> {
  for (let i = 0; i < kills; i++) {
    const before = await countDone()
    const child = startWorker()
    await vi.waitFor(async () => expect(await countDone()).toBeGreaterThan(before), { timeout: 40_000, interval: 10 })
    child.kill('SIGKILL')
  }
}

it('loses no job when its worker is killed in the middle of the work, again and again', async () => {
  await send('late')
  await killAgainAndAgain()
  const last = startWorker()
  // What the killed ones held comes back when their heartbeat is missed.
  await vi.waitFor(async () => expect(await countDone()).toBe(jobs), { timeout: 100_000, interval: 200 })
  last.kill('SIGKILL')
}, 240_000)
