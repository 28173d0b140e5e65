// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { testApp, testAdmin } from '@iot-pms/core/testing'
import type { TestApp } from '@iot-pms/core/testing'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EventPayload } from './event.ts'

const home = join(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'audit-module-'))
type Found = EventPayload & { hash: string }

let app: TestApp
beforeAll(async () => {
  app = await testApp({ modules: [home], license: { features: ['audit'] } })
})
afterAll(async () => {
  await app.close()
  rmSync(folder, { recursive: true, force: true })
})

const call = (method: string, path: string, body?: unknown, token?: string) =>
  app.call(method, `/api/v1/audit${path}`, { ...(body === undefined ? {} : { body }), ...(token ? { token } : {}) })
const search = async (query = '') => (await call('GET', `/events${query}`)).json<{ items: Found[]; nextCursor: string | null }>()
const verify = async (chain = 'own') =>
  (await call('POST', '/verify', { chain })).json<{ ok: boolean; findings: { code: string }[]; lastSeq: number; anchoredTo: number }>()
const until = async (isDone: () => Promise<boolean> | boolean) => {
  for (let waited = 0; waited < 30_000 && !(await isDone()); waited += 100) await sleep(100)
  expect(await isDone()).toBe(true)
}

describe('the audit log', { timeout: 120_000 }, () => {
  it('tells what a change was, who made it and from where, in the form of the contract [§3]', async () => {
    const device = await app.createDevice({ name: 'pump-1' })
    await app.call('PATCH', `/api/v1/devices/${device.id}`, { body: { name: '一号水泵' } })
    const { items } = await search(`?subject=device:${device.id}`)
    expect(items.map(({ type }) => type)).toEqual(['device.update', 'device.create'])
    expect(items[0]).toMatchObject({
      v: 1,
      stream: `audit:log:${app.context.rootTenant.tenantId}`,
      actor: expect.stringMatching(/^user:/),
      data: {
        outcome: 'success',
        reason: null,
        actor: { name: 'Administrator', auth: 'password', onBehalfOf: null },
        target: { name: 'pump-1' },
        changes: [{ path: '/name', from: 'pump-1', to: '一号水泵' }],
        context: { ip: '127.0.0.1', route: 'PATCH /api/v1/devices/{id}' },
      },
      hash: expect.stringMatching(/^[0-9a-f]{64}$/),
    })
  })

  it('is found by type, outcome, name and time, page by page', async () => {
    await app.call('POST', '/api/v1/auth/login', { body: { email: testAdmin.email, password: 'wrong-wrong-1' }, token: null })
    expect((await search('?type=auth.&outcome=failure')).items[0]).toMatchObject({ type: 'auth.login', data: { reason: 'LOGIN_FAILED' } })
    expect((await search(`?q=${encodeURIComponent('pump-1')}`)).items.length).toBe(2)
    const first = await search('?limit=1')
    const second = await search(`?limit=1&cursor=${first.nextCursor}`)
    // The search itself was recorded between the two.
    expect(second.items[0]!.seq).toBeLessThan(first.items[0]!.seq)
    expect((await call('GET', '/events?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z')).json()).toMatchObject({
      status: 422,
      code: 'AUDIT_RANGE',
    })
    expect((await call('GET', '/events?outcome=maybe')).status).toBe(400)
    for (const method of ['DELETE', 'PUT', 'PATCH']) {
      expect((await call(method, '/events', method === 'DELETE' ? undefined : {})).status).toBe(404)
    }
  })

  it('holds no secret that was set [AU-3, AU-21]', async () => {
    const secret = 'a-secret-that-nobody-reads-9'
    const product = { name: 'with secret', provisioning: { strategy: 'create', key: 'k'.repeat(20), secret } }
    expect((await app.call('POST', '/api/v1/products', { body: product })).status).toBe(201)
    const { token } = await app.createDevice()
    await app.login('viewer')
    const all = JSON.stringify((await search('?limit=500')).items)
    expect(all).toContain('hmac:')
    for (const hidden of [secret, token, testAdmin.password, app.token]) expect(all).not.toContain(hidden)
  })

  it('is for administrators only', async () => {
    const viewer = await app.login('viewer')
    for (const path of ['/events', '/chains', '/keys', '/settings', '/sinks', '/checkpoints']) {
      expect((await call('GET', path, undefined, viewer)).status, path).toBe(403)
    }
  })

  it('has what happens to the installation in a chain of its own', async () => {
    const { items } = (await call('GET', '/events?chain=platform')).json<{ items: Found[] }>()
    expect(items.map(({ type }) => type)).toContain('module.start')
    expect(items.every(({ stream }) => stream === 'audit:log:platform')).toBe(true)
    const limits = await app.call('PATCH', '/api/v1/settings/device-limits', { body: { device: { messages: '900:1' } } })
    expect(limits.status).toBe(200)
    expect((await search('?type=settings.update')).items[0]).toMatchObject({ subject: 'settings:device-limits' })
  })

  it('verifies, is signed within seconds, and the signature lies in a file [AU-40, AU-41]', async () => {
    expect(await verify()).toMatchObject({ ok: true, findings: [] })
    expect(await verify('platform')).toMatchObject({ ok: true })
    await until(async () => {
      const { items } = (await call('GET', '/chains')).json<{ items: { anchoredAt: string; anchoredTo: number }[] }>()
      return items.length === 2 && items.every(({ anchoredAt, anchoredTo }) => anchoredAt === 'machine' && anchoredTo > 0)
    })
    const file = join(app.context.config.dataDir, 'audit', `checkpoints-audit-log-${app.context.rootTenant.tenantId}.jsonl`)
    const [line] = readFileSync(file, 'utf8').split('\n')
    expect(JSON.parse(line!)).toMatchObject({ body: { log: 'audit', key: expect.stringMatching(/^[0-9a-f]{16}$/) } })
    const { items } = (await call('GET', '/checkpoints?limit=1')).json<{ items: { body: { size: number } }[] }>()
    const one = (await call('GET', `/events/${items[0]!.body.size}`)).json<{ proof: { size: number; path: string[] } }>()
    expect(one.proof.size).toBeGreaterThanOrEqual(items[0]!.body.size)
  })

  it('finds what the owner of the database changed or cut [AU-2]', async () => {
    const { tenantId } = app.context.rootTenant
    const owner = postgres(app.context.config.database.migrateUrl!, { max: 1, onnotice: () => {} })
    const edit = (text: string) =>
      owner.begin(async (tx) => {
        await tx.unsafe('alter table audit.events disable trigger user')
        await tx.unsafe(text)
        await tx.unsafe('alter table audit.events enable trigger user')
      })
    try {
      await expect(
        app.context.db.withTenant(app.context.rootTenant, (tx) => tx.execute(sql`update audit.events set type = 'x'`)),
      ).rejects.toThrow()
      const where = `tenant_id = '${tenantId}' and stream = 'audit:log:${tenantId}' and seq = 2`
      await edit(`update audit.events set payload = replace(payload, '"v":1', '"v":2') where ${where}`)
      const found = await verify()
      expect(found.ok).toBe(false)
      expect(found.findings.map(({ code }) => code)).toContain('AUDIT_HASH_MISMATCH')
      await edit(`update audit.events set payload = replace(payload, '"v":2', '"v":1') where ${where}`)
      expect((await verify()).ok).toBe(true)
    } finally {
      await owner.end()
    }
  })

  it('goes out as JSON Lines, CEF, OCSF and CSV, without formulas, one line per event [AU-60]', async () => {
    const device = await app.createDevice({ name: "=cmd|'/c calc'!A1\nnext" })
    const filter = { subject: `device:${device.id}` }
    const get = async (format: string) => {
      const answer = await call('POST', '/exports', { format, filter })
      expect(answer.status, answer.text).toBe(200)
      expect(answer.headers.get('content-disposition')).toMatch(/^attachment; filename="audit-/)
      return answer.text
    }
    const lines = (await get('jsonl')).trim().split('\n')
    expect(JSON.parse(lines[0]!)).toMatchObject({ prev: expect.any(String), payload: { type: 'device.create' } })
    expect((await get('cef')).trim().split('\n').length).toBe(1)
    expect(JSON.parse(await get('ocsf'))).toMatchObject({ class_uid: 6003, activity_id: 1 })
    // Reading as text takes the byte order mark away.
    const csv = await get('csv')
    expect(csv.startsWith('time,seq')).toBe(true)
    expect(csv).toContain(`"'=cmd`)
    expect((await search('?type=audit.export')).items.length).toBeGreaterThanOrEqual(4)
  })

  it('goes out as a bundle that iot-pms verifies with the key from outside, without database or license [AU-71]', async () => {
    const answer = await fetch(`${app.url}/api/v1/audit/exports`, {
      method: 'POST',
      headers: { authorization: `Bearer ${app.token}`, 'content-type': 'application/json' },
      body: '{"format":"bundle"}',
    })
    const file = join(folder, 'bundle.zip')
    const bytes = Buffer.from(await answer.arrayBuffer())
    writeFileSync(file, bytes)
    const { items: keys } = (await call('GET', '/keys')).json<{ items: { id: string; publicKey: string }[] }>()
    const run = async (...args: string[]) => {
      const program = join(home, '../../core/src/main.ts')
      const child = spawn(process.execPath, [program, 'audit', 'verify', ...args], { env: { PATH: process.env['PATH'] } })
      let output = ''
      child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
      const [code] = (await once(child, 'close')) as [number]
      return { code, output }
    }
    expect(await run(file, '--key', keys[0]!.publicKey, '--json')).toMatchObject({ code: 0, output: expect.stringContaining('"ok":true') })
    expect((await run(file)).code).toBe(3)
    writeFileSync(file, bytes.subarray(0, bytes.length - 400))
    expect((await run(file)).code).toBe(2)
  })

  it('is verified as it is stored, beside the running server, against the checkpoints in files [§8]', async () => {
    const { config } = app.context
    const run = async (...args: string[]) => {
      const child = spawn(process.execPath, [join(home, '../../core/src/main.ts'), 'audit', 'verify', '--live', ...args], {
        env: {
          PATH: process.env['PATH'],
          IOT_PMS_DATA_DIR: config.dataDir,
          IOT_PMS_SECRET_KEY: config.secretKey,
          DATABASE_URL: config.database.url,
          IOT_PMS_MIGRATE_URL: config.database.migrateUrl,
        },
      })
      let output = ''
      child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
      const [code] = (await once(child, 'close')) as [number]
      return { code, output }
    }
    await until(async () => (await verify()).anchoredTo > 0)
    const { items: keys } = (await call('GET', '/keys')).json<{ items: { publicKey: string }[] }>()
    const whole = await run('--key', keys[0]!.publicKey, '--json')
    expect([whole.code, JSON.parse(whole.output)]).toEqual([
      0,
      {
        ok: true,
        chains: [expect.objectContaining({ ok: true, findings: [] }), expect.objectContaining({ stream: 'audit:log:platform', ok: true })],
      },
    ])
    expect((await run()).code).toBe(3)
    const file = join(config.dataDir, 'audit', `checkpoints-audit-log-${app.context.rootTenant.tenantId}.jsonl`)
    const text = readFileSync(file, 'utf8')
    const [line] = text.split('\n')
    writeFileSync(file, `${line!.replace(/"size":\d+/, '"size":900000')}\n`)
    const cut = await run()
    writeFileSync(file, text)
    expect([cut.code, cut.output]).toEqual([1, expect.stringContaining('AUDIT_CHECKPOINT_SIGNATURE')])
    expect((await run('--no-such')).code).toBe(2)
  })

  it('keeps events as long as it is told to; a shorter time counts in a week [AU-50, AU-53]', async () => {
    expect((await call('GET', '/settings')).json()).toMatchObject({ auditDays: 1095, pendingDays: null, toDelete: 0 })
    expect((await call('PUT', '/settings', { auditDays: 30 })).json()).toMatchObject({ status: 422, code: 'AUDIT_RETENTION_MIN' })
    const shorter = (await call('PUT', '/settings', { auditDays: 365 })).json<{
      auditDays: number
      pendingDays: number
      pendingAt: string
    }>()
    expect(shorter).toMatchObject({ auditDays: 1095, pendingDays: 365 })
    expect(Date.parse(shorter.pendingAt) - Date.now()).toBeGreaterThan(6.9 * 86_400_000)
    expect((await call('PUT', '/settings', { auditDays: 1095 })).json()).toMatchObject({ auditDays: 1095, pendingDays: null })
    expect((await call('PUT', '/settings', { auditDays: 0 })).json()).toMatchObject({ auditDays: 0 })
  })

  it('stays when the license has run out: it records, reads, exports; settings are frozen [AU-4]', async () => {
    await app.relicense('restricted')
    const device = await app.createDevice()
    expect((await search(`?subject=device:${device.id}`)).items.length).toBe(1)
    expect((await call('POST', '/exports', { format: 'jsonl' })).status).toBe(200)
    expect((await verify()).ok).toBe(true)
    for (const [method, path, body] of [
      ['PUT', '/settings', { auditDays: 400 }],
      ['POST', '/sinks', { name: 'x', target: { kind: 'file' } }],
    ] as const) {
      expect((await call(method, path, body)).json()).toMatchObject({ status: 403, code: 'LICENSE_EXPIRED_READONLY' })
    }
    await app.relicense({ features: ['audit'] })
  })

  it('goes with the license and comes back with all it had, in one chain [MO-32]', async () => {
    const before = (await search('?limit=1')).items[0]!.seq
    await app.relicense('none')
    expect((await call('GET', '/events')).json()).toMatchObject({ status: 403, code: 'LICENSE_FEATURE_REQUIRED' })
    await app.createDevice({ name: 'not recorded' })
    await app.relicense({ features: ['audit'] })
    expect((await search('?q=not%20recorded')).items).toEqual([])
    expect((await search('?limit=1')).items[0]!.seq).toBeGreaterThan(before)
    expect((await verify()).ok).toBe(true)
  })
})

describe('sinks', { timeout: 120_000 }, () => {
  it('refuse addresses that the guard of outbound connections refuses, and show no secret', async () => {
    const bad = [
      { kind: 'http', url: 'http://169.254.169.254/latest', secret: 'x'.repeat(16) },
      { kind: 'http', url: 'https://user:pass@example.com/', secret: 'x'.repeat(16) },
      { kind: 'syslog', host: '127.0.0.1', port: 514, tls: false, format: 'cef' },
      { kind: 'syslog', host: '8.8.8.8', port: 514, tls: false, format: 'cef' },
    ]
    for (const target of bad) {
      expect((await call('POST', '/sinks', { name: 'bad', target })).json(), JSON.stringify(target)).toMatchObject({
        status: 422,
        code: 'AUDIT_SINK_ADDRESS',
      })
    }
    const target = { kind: 'http', url: 'https://203.0.113.5/audit', secret: 'sink-secret-0123456789' }
    const created = await call('POST', '/sinks', { name: 'far', target })
    expect(created.status, created.text).toBe(201)
    const { id } = created.json<{ id: string }>()
    for (const { text } of [created, await call('GET', '/sinks'), await call('GET', `/sinks/${id}`)]) {
      expect(text).not.toContain('203.0.113.5')
      expect(text).not.toContain('sink-secret')
    }
    expect((await call('POST', '/sinks', { name: 'far', target })).json()).toMatchObject({ status: 409, code: 'NAME_TAKEN' })
    expect((await call('PATCH', `/sinks/${id}`, { enabled: false })).json()).toMatchObject({ enabled: false })
    expect((await call('DELETE', `/sinks/${id}`)).status).toBe(204)
    const told = (await search('?type=audit.sink.')).items.map(({ type }) => type)
    expect(told.filter((type) => !/fail|recover/.test(type))).toEqual(['audit.sink.delete', 'audit.sink.update', 'audit.sink.create'])
  })

  it('get everything in order, also what happened while nobody answered [AU-5, AU-42]', async () => {
    let answer = 500
    const seqs: number[] = []
    const server = createServer((request, response) => {
      let body = ''
      request.on('data', (chunk: Buffer) => (body += chunk.toString()))
      request.on('end', () => {
        const { events } = JSON.parse(body) as { events: { payload: { seq: number } }[] }
        if (answer === 200) seqs.push(...events.map(({ payload }) => payload.seq))
        response.writeHead(answer).end()
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const listed = await testApp({
      modules: [home],
      license: { features: ['audit'] },
      config: { outbound: { policy: 'lan', allow: [`127.0.0.1:${port}`] } },
    })
    try {
      const target = { kind: 'http', url: `http://127.0.0.1:${port}/x`, secret: 'sink-secret-0123456789' }
      const { id } = (await listed.call('POST', '/api/v1/audit/sinks', { body: { name: 'near', target } })).json<{ id: string }>()
      expect((await listed.call('POST', `/api/v1/audit/sinks/${id}/test`)).json()).toEqual({ ok: false, error: 'answered 500' })
      await until(
        async () => (await listed.call('GET', `/api/v1/audit/sinks/${id}`)).json<{ failingSince: string | null }>().failingSince !== null,
      )
      await listed.createDevice()
      answer = 200
      const head = async () =>
        (await listed.call('GET', '/api/v1/audit/chains'))
          .json<{ items: { chain: string; headSeq: number }[] }>()
          .items.find(({ chain }) => chain === 'own')!.headSeq
      const reached = await head()
      await until(() => (seqs.at(-1) ?? 0) >= reached)
      expect([...new Set(seqs)]).toEqual(Array.from({ length: seqs.at(-1)! }, (_, n) => n + 1))
      // Told after the delivery that showed it.
      await until(async () => {
        const { items } = (await listed.call('GET', '/api/v1/audit/events?type=audit.sink.')).json<{ items: Found[] }>()
        return items.some(({ type }) => type === 'audit.sink.recover')
      })
    } finally {
      await listed.close()
      server.close()
      server.closeAllConnections()
    }
  })
})
