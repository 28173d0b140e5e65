// SPDX-License-Identifier: AGPL-3.0-only
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listRoutes } from '../http/server.ts'
import { createLog } from '../log.ts'
import { startPlatform } from '../start.ts'
import { rootDir, version } from '../version.ts'
import { discoverModules, isInRange } from './discovery.ts'
import { testApp } from './testing.ts'
import type { TestApp } from './testing.ts'

const example = join(rootDir, 'test/modules/greenhouse')
const made = mkdtempSync(join('/tmp', 'iot-pms-modules-'))
/** Counts what fixture modules do in this process. */
const seen = globalThis as unknown as { fixtures?: Record<string, number> }
seen.fixtures = {}

type Fixture = { block?: Record<string, unknown>; code?: string; migration?: string }

/** Writes a module package; its code counts each evaluation. */
function writeModule(name: string, { block = {}, code = '{}', migration }: Fixture = {}): string {
  const folder = join(made, name)
  mkdirSync(join(folder, 'migrations'), { recursive: true })
  const iotPms = {
    name,
    feature: 'vehicle',
    core: '*',
    entry: './module.mjs',
    title: { zh: '测试', en: 'Test' },
    summary: { zh: '测试', en: 'Test' },
    prefixes: [`/api/v1/x-${name}`],
    ...(migration ? { migrations: './migrations' } : {}),
    ...block,
  }
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name, version: '1.2.3', type: 'module', iotPms }))
  const counter = `globalThis.fixtures['${name}'] = (globalThis.fixtures['${name}'] ?? 0) + 1`
  writeFileSync(join(folder, 'module.mjs'), `${counter}\nexport default { name: '${name}', ...${code} }\n`)
  if (migration) writeFileSync(join(folder, 'migrations/0001_a.sql'), migration)
  return folder
}

async function until(matches: () => boolean | Promise<boolean>, ms = 30_000): Promise<void> {
  for (let waited = 0; waited < ms; waited += 25) {
    if (await matches()) return
    await sleep(25)
  }
  throw new Error('it did not come to that')
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

afterAll(() => rmSync(made, { recursive: true }))

describe('the example module', () => {
  let app: TestApp
  let port: number
  beforeAll(async () => {
    port = await freePort()
    app = await testApp({ modules: [example], license: 'none', settings: { IOT_PMS_GREENHOUSE_DRIP_PORT: String(port) } })
  })
  afterAll(() => app.close())

  const houses = (method: string, body?: unknown, token?: string | null) =>
    app.call(method, '/api/v1/greenhouse/houses', { ...(body ? { body } : {}), ...(token === undefined ? {} : { token }) })
  const codeOf = async (answer: Promise<{ status: number; text: string }>) => {
    const { status, text } = await answer
    return [status, text ? (JSON.parse(text) as { code?: string }).code : undefined]
  }
  /** The gateway's answer to one line, or why there is none. */
  const say = async (line: string) => {
    const socket = connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      socket.write(line)
      const [data] = (await once(socket, 'data')) as [Buffer]
      return data.toString().trim()
    } catch (error) {
      return (error as { code?: string }).code ?? 'failed'
    } finally {
      socket.destroy()
    }
  }

  it('answers 401 to nobody and 403 to anybody while it is locked, and no port of it listens [MO-1]', async () => {
    expect(await codeOf(houses('GET', undefined, null))).toEqual([401, 'TOKEN_INVALID'])
    const answer = await houses('GET')
    expect(answer.json()).toMatchObject({ status: 403, code: 'LICENSE_FEATURE_REQUIRED', feature: 'greenhouse', editions: ['enterprise'] })
    expect(await codeOf(houses('POST', { name: 'a' }))).toEqual([403, 'LICENSE_FEATURE_REQUIRED'])
    expect(await codeOf(app.call('GET', '/api/v1/greenhouse/nothing/at/all'))).toEqual([403, 'LICENSE_FEATURE_REQUIRED'])
    expect(await say('x')).toBe('ECONNREFUSED')
    expect((await app.call('GET', '/api/v1/modules')).json()).toMatchObject({
      items: [{ name: 'greenhouse', status: 'locked', version: '0.1.0' }],
    })
    expect((await app.call('GET', '/api/v1/editions')).json()).toMatchObject({
      edition: 'community',
      modules: [{ name: 'greenhouse', status: 'locked' }],
    })
    const [schema] = await app.context.db.withRole('pms_jobs', (tx) =>
      tx.execute(sql`select 1 from pg_namespace where nspname = 'greenhouse'`),
    )
    expect(schema).toBeUndefined()
  })

  it('is there as soon as the license grants it: routes, tables, port, codec, hook, document [MO-2]', async () => {
    await app.relicense({ features: ['greenhouse'] })
    const device = await app.createDevice()
    const created = await houses('POST', { name: 'warm', deviceId: device.id })
    expect(created.status).toBe(201)
    expect(await say(`${device.token} temperature 31.5`)).toBe('stored')
    expect(await say(`${device.token} temperature hot`)).toBe('refused')
    expect(await say('nobody temperature 1')).toBe('unknown')
    const list = async () => (await houses('GET')).json<{ items: { name: string; warmest: number | null }[] }>().items
    await until(async () => (await list())[0]?.warmest === 31.5)
    const latest = await app.call('GET', `/api/v1/devices/${device.id}/telemetry`)
    expect(latest.text).toContain('31.5')
    expect(await app.metrics.metrics()).toContain('iot_pms_greenhouse_waiting_lines 0')
    const openapi = (await app.call('GET', '/api/v1/openapi.json')).json<{
      paths: Record<string, unknown>
      components: { schemas: object }
    }>()
    expect(openapi.paths).toHaveProperty(['/api/v1/greenhouse/houses'])
    expect(openapi.paths).toHaveProperty(['/api/v1/devices'])
    expect(openapi.components.schemas).toHaveProperty(['Greenhouse.House'])
    expect((await app.call('GET', '/api/v1/license')).json<{ features: object[] }>().features).toContainEqual(
      expect.objectContaining({ id: 'greenhouse', granted: true, present: true, status: 'active', onExpire: 'stop_new' }),
    )
  })

  it('has the permissions, headers, codes and 404 of core on its routes [MO-40]', async () => {
    const viewer = await app.login('viewer')
    expect((await houses('GET', undefined, viewer)).status).toBe(200)
    expect(await codeOf(houses('POST', { name: 'b' }, viewer))).toEqual([403, 'PERMISSION_DENIED'])
    const bad = await houses('POST', { name: 7 })
    expect(bad.json()).toMatchObject({ code: 'VALIDATION_FAILED', traceId: expect.stringMatching(/^[0-9a-f]{16}$/) })
    expect(bad.headers.get('x-content-type-options')).toBe('nosniff')
    expect(await codeOf(app.call('GET', '/api/v1/greenhouse/nothing'))).toEqual([404, 'NOT_FOUND'])
    expect(await codeOf(app.call('GET', '/api/v1/greenhouse/nothing', { token: null }))).toEqual([404, 'NOT_FOUND'])
    const inject = await app.inject({ url: '/api/v1/greenhouse/houses', headers: { authorization: `Bearer ${app.token}` } })
    expect(inject.statusCode).toBe(200)
    const headers = { 'idempotency-key': 'once' }
    const path = '/api/v1/greenhouse/houses'
    const first = await app.call('POST', path, { body: { name: 'idem' }, headers })
    const second = await app.call('POST', path, { body: { name: 'idem' }, headers })
    expect([first.status, second.status, second.headers.get('idempotency-replayed'), second.text]).toEqual([201, 201, 'true', first.text])
    const large = await app.call('POST', path, { body: `{"name":"${'x'.repeat(1_100_000)}"}` })
    expect(large.json()).toMatchObject({ status: 413, code: 'BODY_TOO_LARGE' })
    for (const route of app.mounts.routesOf('greenhouse')) expect(route.permission, route.path).toMatch(/^greenhouse\./)
    expect(listRoutes(app.app).map(({ path: own }) => own)).not.toContain('/api/v1/greenhouse')
  })

  it('is read-only when the license has run out: reads and deletes stay, creating is refused with its text [MO-33]', async () => {
    const cold = (await houses('POST', { name: 'gone' })).json<{ id: string }>()
    await app.relicense('restricted')
    expect((await houses('GET')).status).toBe(200)
    const refused = await app.call('POST', '/api/v1/greenhouse/houses', { body: { nonsense: true }, headers: { 'accept-language': 'en' } })
    expect(refused.json()).toMatchObject({
      status: 403,
      code: 'LICENSE_EXPIRED_READONLY',
      feature: 'greenhouse',
      message: 'Greenhouse has expired: you can read, export and delete, but not create houses.',
      state: 'RESTRICTED',
    })
    const operator = await app.login('operator')
    expect((await houses('POST', {}, operator)).json()).not.toHaveProperty('state')
    expect((await app.call('DELETE', `/api/v1/greenhouse/houses/${cold.id}`)).status).toBe(204)
    expect((await app.call('GET', '/api/v1/modules')).json()).toMatchObject({ items: [{ status: 'readonly' }] })
    // What was registered goes on: the gateway takes data, the core takes everything.
    const device = await app.createDevice()
    expect(await say(`${device.token} temperature 5`)).toBe('stored')
  })

  it('runs its job by the row of its feature', async () => {
    await app.relicense({ features: ['greenhouse'] })
    await houses('POST', { name: 'cold' })
    const has = async () => (await houses('GET')).text.includes('"cold"')
    await app.relicense('restricted')
    await app.upkeep.run()
    expect(await has()).toBe(true)
    await app.relicense({ features: ['greenhouse'] })
    await app.upkeep.run()
    expect(await has()).toBe(false)
  })

  it('goes when it is no longer granted, with its port, and finds its data again [MO-32, MO-53]', async () => {
    await app.relicense('none')
    expect(await codeOf(houses('GET'))).toEqual([403, 'LICENSE_FEATURE_REQUIRED'])
    expect(await say('x')).toBe('ECONNREFUSED')
    expect((await app.call('GET', '/api/v1/openapi.json')).text).not.toContain('greenhouse')
    expect(await app.metrics.metrics()).not.toContain('iot_pms_greenhouse')
    // Core deletes a device that a locked module refers to; the row of the module stays without it.
    const items = (await app.call('GET', '/api/v1/devices?limit=500')).json<{ items: { id: string }[] }>().items
    for (const { id } of items) await app.call('DELETE', `/api/v1/devices/${id}`)
    expect((await app.call('DELETE', '/api/v1/bin', { body: { ids: items.map(({ id }) => id) } })).status).toBe(204)
    await app.relicense({ features: ['greenhouse'] })
    const warm = (await houses('GET'))
      .json<{ items: { name: string; deviceId: string | null }[] }>()
      .items.find(({ name }) => name === 'warm')
    expect(warm).toMatchObject({ deviceId: null })
  })

  it('is unknown to a server on the same database whose build has no such folder [MO-3, MO-53]', async () => {
    const dataDir = mkdtempSync(join('/tmp', 'iot-pms-data-'))
    const community = await startPlatform({ ...app.context.config, dataDir }, createLog('error'), {
      licenseKeys: app.vendor.keys,
      moduleFolders: [],
    })
    for (const headers of [{}, { authorization: `Bearer ${app.token}` }]) {
      const answer = await community.app.inject({ url: '/api/v1/greenhouse/houses', headers })
      expect([answer.statusCode, answer.json<{ code: string }>().code]).toEqual([404, 'NOT_FOUND'])
    }
    // A license that grants it is as good as ever; there is just nothing to unlock.
    const editions = await community.app.inject({ url: '/api/v1/editions' })
    expect(editions.json()).toMatchObject({ features: ['greenhouse'], modules: [] })
    await community.stop()
    rmSync(dataDir, { recursive: true })
    expect((await houses('GET')).text).toContain('warm')
  })

  it('keeps tenants apart in its own schema [MO-51]', async () => {
    const stranger = { tenantId: '01920000-0000-7000-8000-000000000000', tenantNo: 99 }
    const rows = await app.context.db.withTenant(stranger, (tx) => tx.execute(sql`select 1 from greenhouse.houses`))
    expect([...rows]).toEqual([])
    await expect(
      app.context.db.withTenant(stranger, (tx) =>
        tx.execute(sql`insert into greenhouse.houses (tenant_id, name) values (${app.context.rootTenant.tenantId}, 'x')`),
      ),
    ).rejects.toMatchObject({ cause: { code: '42501' } })
  })

  it('answers every request while it is locked and unlocked again and again, and never with half of it [MO-31]', async () => {
    const run = { isOver: false }
    const statuses = new Set<number>()
    const codes = new Set<string | undefined>()
    const ask = async () => {
      while (!run.isOver) {
        const [status, code] = (await codeOf(houses('GET'))) as [number, string | undefined]
        statuses.add(status)
        if (status !== 200) codes.add(code)
      }
    }
    const asking = [ask(), ask(), ask()]
    for (let n = 0; n < 4; n++) {
      await app.relicense('none')
      await app.relicense({ features: ['greenhouse'] })
    }
    run.isOver = true
    await Promise.all(asking)
    expect([...statuses].filter((status) => ![200, 403, 503].includes(status))).toEqual([])
    expect([...codes].filter((code) => code !== 'LICENSE_FEATURE_REQUIRED' && code !== 'MODULE_STARTING')).toEqual([])
  })
})

describe('modules that go wrong', () => {
  let app: TestApp
  const busy = createServer()
  beforeAll(async () => {
    busy.listen(0, '127.0.0.1')
    await once(busy, 'listening')
    const { port } = busy.address() as AddressInfo
    const modules = [
      writeModule('good', {
        code: `{ routes: () => (app) => app.get('/', { config: { permission: 'session' } }, async () => ({ ok: 1 })) }`,
      }),
      writeModule('throws', { code: `(() => { throw new Error('in evaluation') })()` }),
      writeModule('misnamed', { code: `{ name: 'other' }` }),
      writeModule('surprising', { code: `{ colour: 'red' }` }),
      writeModule('too-new', { block: { core: '^99.0.0' } }),
      writeModule('lonely', { block: { requires: ['nobody'] } }),
      writeModule('needs-good', { block: { requires: ['good'] } }),
      writeModule('bad-config', {
        code: `{ config: { type: 'object', properties: { IOT_PMS_BAD_CONFIG_SIZE: { type: 'integer' } }, required: ['IOT_PMS_BAD_CONFIG_SIZE'] } }`,
      }),
      writeModule('bad-sql', { migration: 'CREATE TABLE public.intruder (id int);' }),
      writeModule('broken-sql', { migration: 'CREATE TABLE broken_sql.a (id nonsense);' }),
      writeModule('open-route', { code: `{ routes: () => (app) => app.get('/', async () => ({})) }` }),
      writeModule('fails-start', { code: `{ start: () => { throw new Error('no') }, stop: () => { globalThis.fixtures.stopped = 1 } }` }),
      writeModule('busy-port', {
        block: { ports: [{ name: 'p', env: 'IOT_PMS_BUSY_PORT_P', default: port, protocol: 'tcp' }] },
        code: `{ gateways: [{ name: 'p', port: 'IOT_PMS_BUSY_PORT_P', create: () => ({
          async listen(port) { const { createServer } = await import('node:net'); const s = createServer(); await new Promise((ok, no) => s.listen(port, '127.0.0.1', ok).on('error', no)) },
          async close() {} }) }] }`,
      }),
    ]
    app = await testApp({ modules, license: { features: ['vehicle'] } })
  })
  afterAll(async () => {
    busy.close()
    await app.close()
  })

  it('fail alone, each with its reason, and core and the others go on [MO-30]', async () => {
    const { items } = (await app.call('GET', '/api/v1/modules')).json<{ items: { name: string; status: string; reason?: string }[] }>()
    const shown = Object.fromEntries(items.map(({ name, status, reason }) => [name, reason ? reason.split(':')[0] : status]))
    expect(shown).toEqual({
      good: 'active',
      throws: 'IMPORT',
      misnamed: 'IMPORT',
      surprising: 'IMPORT',
      'too-new': 'CORE_VERSION',
      lonely: 'REQUIRES',
      'needs-good': 'active',
      'bad-config': 'CONFIG',
      'bad-sql': 'MIGRATION',
      'broken-sql': 'MIGRATION',
      'open-route': 'ROUTES',
      'fails-start': 'START',
      'busy-port': 'PORT',
    })
    expect(items.find(({ name }) => name === 'throws')!.reason).toContain('restart')
    expect(items.find(({ name }) => name === 'bad-config')!.reason).toContain('IOT_PMS_BAD_CONFIG_SIZE')
    expect((await app.call('GET', '/api/v1/x-good')).json()).toEqual({ ok: 1 })
    expect((await app.call('GET', '/api/v1/x-throws')).json()).toMatchObject({ status: 503, code: 'MODULE_FAILED' })
    expect((await app.call('GET', '/api/v1/devices')).status).toBe(200)
    expect(seen.fixtures!['stopped']).toBe(1)
    const viewer = await app.login('viewer')
    expect((await app.call('GET', '/api/v1/modules', { token: viewer })).text).not.toContain('reason')
    const [intruder] = await app.context.db.withRole('pms_jobs', (tx) => tx.execute(sql`select to_regclass('public.intruder') as name`))
    expect(intruder).toEqual({ name: null })
  })

  it('are tried again on demand [§4]', async () => {
    busy.close()
    await once(busy, 'close')
    expect((await app.call('POST', '/api/v1/modules/busy-port/retry', { body: {} })).status).toBe(202)
    await until(() => app.modules.list().find(({ name }) => name === 'busy-port')!.status === 'active')
    expect((await app.call('POST', '/api/v1/modules/nothing/retry', { body: {} })).status).toBe(404)
  })
})

describe('points and modules', () => {
  it('that throw or reject after a commit change no acknowledgement and no other module [MO-22]', async () => {
    const count = `globalThis.fixtures.points = (globalThis.fixtures.points ?? 0) + 1`
    const modules = [
      writeModule('thrower', { code: `{ onPoints: () => { throw new Error('no') } }` }),
      writeModule('rejecter', { code: `{ onPoints: async () => { throw new Error('no') } }` }),
      writeModule('counter', { code: `{ onPoints: () => { ${count} } }` }),
    ]
    const app = await testApp({ modules, license: { features: ['vehicle'] } })
    const device = await app.createDevice()
    for (let n = 0; n < 3; n++) {
      const answer = await app.call('POST', `/api/v1/${device.token}/telemetry`, { body: { a: n }, token: null })
      expect(answer.status).toBe(200)
    }
    await until(() => seen.fixtures!['points'] === 3)
    await app.close()
  })
})

describe('a locked module', () => {
  it('is not imported, and is imported once for many unlocks [MO-1]', async () => {
    const app = await testApp({ modules: [writeModule('silent')], license: { features: ['sso'] } })
    expect(seen.fixtures!['silent']).toBeUndefined()
    for (let n = 0; n < 3; n++) {
      await app.relicense({ features: ['vehicle'] })
      expect(seen.fixtures!['silent']).toBe(1)
      await app.relicense('none')
    }
    await app.close()
  })

  it('has no file opened but package.json, by the word of the process that may not [MO-1]', () => {
    // Node refuses every file outside the list: one look at the module's code would end this program.
    const program = `
      import { discoverModules } from '${join(rootDir, 'core/src/modules/discovery.ts')}'
      import { readFileSync } from 'node:fs'
      const { modules, problems } = discoverModules(['${example}'])
      let fence = 'open'
      try { readFileSync(modules[0].entry) } catch (error) { fence = error.code }
      console.log(JSON.stringify([modules.map(({ name }) => name), problems, fence]))`
    const file = join(made, 'discover.mjs')
    writeFileSync(file, program)
    const allowed = [file, join(rootDir, 'core'), join(rootDir, 'node_modules'), join(example, 'package.json')].map(
      (path) => `--allow-fs-read=${path}`,
    )
    const output = execFileSync(process.execPath, ['--permission', ...allowed, file], { encoding: 'utf8' })
    // The last word is the control: the fence does hold.
    expect(JSON.parse(output)).toEqual([['greenhouse'], [], 'ERR_ACCESS_DENIED'])
  })

  it('has a canary that its code holds and nothing of core does', () => {
    const canary = /IOT-PMS-CANARY-[0-9a-f]{32}/
    expect(readFileSync(join(example, 'src/module.ts'), 'utf8')).toMatch(canary)
    const core = readdirSync(join(rootDir, 'core/src'), { recursive: true, encoding: 'utf8' }).filter((path) =>
      /(?<!\.test)\.ts$/.test(path),
    )
    const holders = core.filter((path) => canary.test(readFileSync(join(rootDir, 'core/src', path), 'utf8')))
    expect([core.length > 100, holders]).toEqual([true, []])
  })

  it('evaluates without any right: its manifest is only an object [MO-21]', () => {
    const file = join(made, 'evaluate.mjs')
    writeFileSync(file, `import manifest from '${join(example, 'src/module.ts')}'\nconsole.log(manifest.name)\n`)
    const output = execFileSync(process.execPath, ['--permission', '--allow-fs-read=*', file], { encoding: 'utf8' })
    expect(output.trim()).toBe('greenhouse')
  })
})

describe('discovery', () => {
  const problemsOf = (block: Record<string, unknown>) => {
    const folder = writeModule('odd', { block })
    return discoverModules([folder]).problems.flatMap(({ problems }) => problems)
  }

  it('takes the example as it is', () => {
    expect(discoverModules([example])).toMatchObject({
      modules: [{ name: 'greenhouse', version: '0.1.0', row: { onExpire: 'stop_new' } }],
      problems: [],
    })
  })

  it.each([
    [{ name: 'other' }, /name must be that of the folder/],
    [{ feature: 'Bad' }, /feature must be/],
    [{ feature: 'unheard' }, /featureInfo/],
    [{ entry: './../../core/src/main.ts' }, /entry leads out/],
    [{ entry: '/etc/passwd' }, /entry must be/],
    [{ prefixes: [] }, /prefixes needs/],
    [{ prefixes: ['/api/v2/x'] }, /prefixes has an entry/],
    [{ title: { zh: '只有中文' } }, /title needs zh and en/],
    [{ ports: [{ name: 'p' }] }, /ports has an entry/],
    [{ requires: ['../x'] }, /requires has an entry/],
  ])('leaves out a block with %j and says why [MO-11]', (block, problem) => {
    expect(problemsOf(block).join('; ')).toMatch(problem)
  })

  it('leaves out the later of two with clashing prefixes, and folders that are no modules', () => {
    const [first, second] = [
      writeModule('first', { block: { prefixes: ['/api/v1/same'] } }),
      writeModule('second', { block: { prefixes: ['/api/v1/same/below'] } }),
    ]
    const { modules, problems } = discoverModules([first, second, join(made, 'nowhere')])
    expect([modules.map(({ name }) => name), problems.length]).toEqual([['first'], 1])
  })

  it('keeps paths of core from modules', async () => {
    const app = await testApp({
      modules: [writeModule('greedy', { block: { prefixes: ['/api/v1/devices'] } })],
      license: { features: ['vehicle'] },
    })
    expect(app.modules.list()).toEqual([])
    expect((await app.call('GET', '/api/v1/devices')).status).toBe(200)
    await app.close()
  })

  it('knows the ranges that package.json may give', () => {
    for (const [range, isGood] of [
      [`^${version}`, true],
      ['*', true],
      ['^0.0.1', false],
      ['~0.1.0', true],
      ['>=0.0.1', true],
      ['0.1.1', false],
      ['^1.0.0 || ^0.1.0', true],
      ['latest', false],
    ] as const) {
      expect(isInRange('0.1.0', range), range).toBe(isGood)
    }
  })
})
