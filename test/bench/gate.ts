// SPDX-License-Identifier: AGPL-3.0-only
import { Agent, request } from 'node:http'
import { createLog } from '../../core/src/log.ts'
import type { Permission } from '../../core/src/http/permissions.ts'
import type { Actor } from '../../core/src/http/actor.ts'
import { rolePermissions } from '../../core/src/http/permissions.ts'
import { createServer } from '../../core/src/http/server.ts'
import { actOf, passGate } from '../../core/src/license/gate.ts'
import { communityLicense, communitySnapshot } from '../../core/src/license/snapshot.ts'
import type { License } from '../../core/src/license/snapshot.ts'
import { makeFigure } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { median } from './machine.ts'

const times: Record<Mode, { rounds: number; requests: number; checks: number }> = {
  smoke: { rounds: 3, requests: 1000, checks: 500_000 },
  short: { rounds: 5, requests: 2000, checks: 1_000_000 },
  normal: { rounds: 7, requests: 5000, checks: 2_000_000 },
  full: { rounds: 11, requests: 20_000, checks: 5_000_000 },
}

/** PF-12: what permission and license check take of one authenticated request that does nothing else. */
export async function benchGate({ mode, note }: BenchOptions): Promise<Figure[]> {
  const { rounds, requests, checks } = times[mode]
  const license: License = { ...communityLicense, status: () => 'active', get: () => communitySnapshot() }
  const actor = { permissions: rolePermissions.admin } as Actor
  const app = await createServer({
    log: createLog('error'),
    version: '0',
    trustedProxies: [],
    authenticate: async () => actor,
    isSetUp: () => true,
    isHttps: false,
    requireHttps: false,
    testHooks: new Set(),
    compatProblem: (error) => ({ status: error.status, body: {} }),
  })
  app.get('/api/v1/bench', { config: { permission: 'device.read' } }, () => ({}))
  await app.listen({ port: 0, host: '127.0.0.1' })
  const address = app.server.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const shares: number[] = []
  const requestUs: number[] = []
  for (let round = 0; round < rounds; round++) {
    const perCheckUs = timeChecks(license, actor, checks)
    const perRequestUs = await timeRequests(agent, port, requests)
    shares.push((100 * perCheckUs) / perRequestUs)
    requestUs.push(perRequestUs)
    note(`PF-12 check ${perCheckUs.toFixed(3)} µs, request ${perRequestUs.toFixed(0)} µs`)
  }
  agent.destroy()
  await app.close()
  return [
    makeFigure({
      bench: 'gate',
      id: 'PF-12',
      title: 'license and permission check, share of a request',
      values: shares,
      unit: '%',
      ratio: null,
      ratioCopy: null,
      anchor: `an empty request: ${median(requestUs).toFixed(0)} µs`,
      disturbed: false,
      bar: { most: 3, goal: 1 },
    }),
  ]
}

/** The very functions a request goes through. */
function timeChecks(license: License, actor: Actor, count: number): number {
  const permission: Permission = 'device.read'
  let passed = 0
  const started = performance.now()
  for (let n = 0; n < count; n++) {
    if (!actor.permissions.has(permission)) continue
    passGate(license, 'vehicle', actOf(n % 2 === 0 ? 'GET' : 'POST', {}))
    passed++
  }
  if (passed !== count) throw new Error('a check did not pass')
  return ((performance.now() - started) * 1000) / count
}

async function timeRequests(agent: Agent, port: number, count: number): Promise<number> {
  const once = () =>
    new Promise<void>((resolve, reject) => {
      const call = request({ agent, port, host: '127.0.0.1', path: '/api/v1/bench' }, (response) => {
        response.resume().on('end', () => (response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`))))
      })
      call.on('error', reject)
      call.end()
    })
  for (let n = 0; n < 200; n++) await once()
  const started = performance.now()
  for (let n = 0; n < count; n++) await once()
  return ((performance.now() - started) * 1000) / count
}
