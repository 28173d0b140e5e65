// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import type { Context } from '../context.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { saveRouting } from './routing-document.ts'
import { startProvider } from './testing.ts'
import { createKillHub, declareQueues, killSecrets } from './testing-kill.ts'

let base: TestContext
let context: Context
let provider: Awaited<ReturnType<typeof startProvider>>
const children: ChildProcess[] = []
const count = 20
const patient = { timeout: 120_000, interval: 100 }

beforeAll(async () => {
  base = await createTestContext()
  context = { ...base, secrets: killSecrets }
  provider = await startProvider()
  await declareQueues(context)
  const hub = createKillHub(context)
  const { rootTenant: scope } = context
  const draft = { name: 'hook', type: 'webhook', config: { url: `${provider.url}/hook` } }
  const { row } = await hub.channels.create(scope, draft)
  await context.db.withTenant(scope, (tx) =>
    saveRouting(
      tx,
      scope,
      {
        route: { receiver: 'ops', groupBy: ['alert'], groupWaitMs: 0 },
        receivers: [{ name: 'ops', targets: [{ channelId: row.id }] }],
      },
      'test',
    ),
  )
})
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  await provider.close()
  await base.close()
})

function startChild(...args: string[]): ChildProcess {
  const script = join(import.meta.dirname, 'testing-kill.ts')
  const child = spawn(process.execPath, [script, base.database.url, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  return child
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

/** What each call is about, and the id its receiver tells repetitions by. */
const calls = () =>
  provider.of('hook').map((one) => ({ id: String(one.headers['webhook-id']), about: /(alert|message)-\d+/.exec(one.body)?.[0] ?? '' }))

const readStates = () =>
  context.db.withTenant(context.rootTenant, (tx) =>
    tx.execute<{ state: string; n: number }>(sql`select state, count(*)::int as n from notify_deliveries group by 1`),
  )

it('brings exactly one notification per alert and per dedup key, though the server is killed between raise and send, and while it sends', async () => {
  const raising = startChild('raise', String(count))
  await once(raising.stdout!, 'data')
  await kill(raising)
  expect(provider.of('hook')).toEqual([])
  // Whoever did not hear that it was taken asks again with the same key.
  const hub = createKillHub(context)
  const again = await context.db.withTenant(context.rootTenant, (tx) =>
    hub.messages.accept(tx, context.rootTenant, { to: [{ receiver: 'ops' }], text: 'message-0', dedupKey: 'message-0', createdBy: 'test' }),
  )
  expect(again.deduplicated).toBe(true)

  // Some get their answer; the others hang, and are in flight when the worker dies.
  const answered = 5
  provider.answer('hook', (_, response, index) => (index < answered ? void response.writeHead(204).end() : undefined))
  const first = startChild('work')
  await vi.waitFor(() => expect(calls().length).toBeGreaterThan(answered), patient)
  await kill(first)
  const before = calls()

  provider.answer('hook', (_, response) => void response.writeHead(204).end())
  startChild('work')
  await vi.waitFor(async () => expect(await readStates()).toEqual([{ state: 'sent', n: 2 * count }]), patient)

  const all = calls()
  const idsOf = new Map<string, Set<string>>()
  for (const { about, id } of all) idsOf.set(about, (idsOf.get(about) ?? new Set()).add(id))
  const wanted = Array.from({ length: count }, (_, i) => [`alert-${i}`, `message-${i}`]).flat()
  expect([...idsOf.keys()].sort()).toEqual(wanted.sort())
  // Exactly one each: a call that was in flight comes again under the id that its receiver knows already.
  expect([...idsOf.values()].map((ids) => ids.size)).toEqual(wanted.map(() => 1))
  const inFlight = new Set(before.map((one) => one.id))
  const twice = all.filter((one, at) => all.findIndex((other) => other.id === one.id) !== at)
  expect(twice.every((one) => inFlight.has(one.id))).toBe(true)
}, 300_000)
