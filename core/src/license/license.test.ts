// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import fc from 'fast-check'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '../clock.ts'
import { systemClock } from '../clock.ts'
import { Db } from '../db/client.ts'
import { EventBus } from '../events.ts'
import type { LicenseEvent } from '../events.ts'
import { Secrets } from '../secrets.ts'
import { createTestContext } from '../testing.ts'
import type { TestContext } from '../testing.ts'
import { createLicense } from './create.ts'
import { FileSource } from './files.ts'
import { passGate } from './gate.ts'
import { installCrl, installLicense, removeLicense } from './install.ts'
import type { LicenseService } from './license.ts'
import { hashFactors } from './machine.ts'
import { verifyRequest } from './request.ts'
import { normaliseToken } from './text.ts'
import { damageToken } from './testing-damage.ts'
import { createTestJti, createTestVendor, findLeak } from './testing.ts'
import { decodeUnverified } from './jws.ts'

const dayMs = 86_400_000
const hourMs = 3_600_000
const admin = { id: 'admin-id', name: 'admin@example.com' }

/** Time of the test: real time, moved. */
let offset = 0
let monotonicOffset = 0
const clock: Clock = {
  now: () => Date.now() + offset,
  monotonic: () => performance.now() + monotonicOffset,
  after: (ms, callback) => systemClock.after(ms, callback),
}
const vendor = createTestVendor(() => clock.now())
const machine = new Map([
  ['install', 'id-1'],
  ['machine-id', 'id-2'],
  ['disk', 'id-3'],
  ['mac', 'id-4'],
])
let factors = new Map(machine)

let context: TestContext
let license: LicenseService
let logged = ''
let events: LicenseEvent[] = []
const others: { stop(): void }[] = []
beforeAll(async () => {
  context = await createTestContext()
})
afterAll(() => context.close())

/** A server's license on the database of the test. */
async function openServer(
  change: { db?: Db; secrets?: Secrets; env?: 'staging'; file?: string; text?: string } = {},
): Promise<LicenseService> {
  const log = pino({ level: 'debug' }, { write: (line: string) => (logged += line) })
  const bus = new EventBus(log)
  const config = {
    ...context.config,
    license: { file: change.file, text: change.text, env: change.env ?? ('production' as const) },
  }
  const { db = context.db, secrets = context.secrets } = change
  const server = createLicense(
    { ...context, config, log, clock, events: bus, db, secrets },
    { licenseKeys: vendor.keys, factors: async () => factors, builtAt: 0 },
  )
  bus.on('license.event', (event) => events.push(event))
  return server
}

beforeEach(async () => {
  offset = 0
  monotonicOffset = 0
  logged = ''
  events = []
  factors = new Map(machine)
  for (const one of others.splice(0)) one.stop()
  // The history is for ever, but this database is the test's own.
  await context.db.withTenant(context.rootTenant, async (tx) => {
    await tx.execute(sql`update license_tokens set removed_at = now(), sub = 'former ' || jti`)
    await tx.execute(sql`update license_state set current_sub = null, crl = null, crl_seq = 0, pending_minutes = 0, noted_state = 'COMMUNITY',
      high_water = floor(extract(epoch from now()) * 1000)`)
  })
  license = await openServer()
  await license.open()
})

const install = (text: string, acknowledge = false, service = license) =>
  installLicense(service, { text, actor: admin, source: 'upload', acknowledge })
const preview = (text: string) => installLicense(license, { text, actor: admin, source: 'upload', acknowledge: false, isPreview: true })
/** The code of the refusal and its further members. */
const refusal = async (work: Promise<unknown>) =>
  work.then(
    () => ({ code: 'none' }),
    (thrown: unknown) => {
      const error = thrown as { code: string; members?: (language: 'en') => object }
      return { code: error.code, ...error.members?.('en') }
    },
  )
const lastEvents = async (count: number) =>
  context.db.withTenant(context.rootTenant, (tx) =>
    tx.execute<{ action: string; outcome: string; code: string | null; jti: string | null; text: string }>(
      sql`select action, outcome, code, jti, e::text as text from license_events e order by id desc limit ${count}`,
    ),
  )
const countEvents = async () =>
  Number(
    (await context.db.withTenant(context.rootTenant, (tx) => tx.execute<{ n: string }>(sql`select count(*) as n from license_events`)))[0]!
      .n,
  )
const machineClaim = (change: object = {}, values: Map<string, string> = machine) => {
  const salt = randomBytes(16).toString('base64url')
  return { mode: 'host', salt, min: 3, anchors: 1, factors: hashFactors(salt, values), ...change }
}
const jtiOf = (token: string) => String(decodeUnverified(token)!.payload['jti'])
const seconds = (ms: number) => Math.floor(ms / 1000)

async function until(matches: () => boolean | Promise<boolean>, ms = 20_000): Promise<void> {
  for (let waited = 0; waited < ms; waited += 20) {
    if (await matches()) return
    await sleep(20)
  }
  throw new Error('it did not come to that')
}

describe('installing a license', () => {
  it('grants its features and nothing else [L-3]', async () => {
    expect(license.get().state).toBe('COMMUNITY')
    const { result, changes } = await install(vendor.license({ features: ['vehicle'], limits: { devices: 1000, overage_pct: 10 } }))
    expect(result).toBe('installed')
    expect(changes).toEqual([{ change: 'FEATURE_ADDED', feature: 'vehicle', title: { zh: '车联网', en: 'Vehicles' } }])
    expect(license.get()).toMatchObject({ state: 'ACTIVE', devices: { limit: 1000, hard: 1100 } })
    expect([license.status('vehicle'), license.status('sso'), license.limit('tenants')]).toEqual(['active', 'locked', 1])
  })

  it('of the same token again changes nothing and writes nothing [L-70]', async () => {
    const token = vendor.license()
    await install(token)
    const before = await countEvents()
    expect((await install(token)).result).toBe('unchanged')
    expect(await countEvents()).toBe(before)
  })

  it('refuses an older one with the highest known number [L-70]', async () => {
    await install(vendor.license({ seq: 500 }))
    expect(await refusal(install(vendor.license({ seq: 500 })))).toEqual({ code: 'LIC_SUPERSEDED', seq: 500, highest: 500 })
    expect(await refusal(install(vendor.license({ seq: 499 }), true))).toMatchObject({ code: 'LIC_SUPERSEDED' })
  })

  it('asks to acknowledge every loss and changes nothing before [L-72, L-73]', async () => {
    const now = clock.now()
    await install(vendor.license({ features: ['vehicle', 'sso'], limits: { devices: 100, tenants: 5 }, exp: seconds(now + 300 * dayMs) }))
    const poorer = vendor.license({
      features: ['vehicle', 'audit'],
      limits: { devices: 50, tenants: -1 },
      exp: seconds(now + 200 * dayMs),
      kind: 'nfr',
      edition: 'saas',
      sub: 'other',
    })
    const refused = (await refusal(install(poorer))) as { code: string; changes?: { change: string; ack?: boolean }[] }
    expect(refused.code).toBe('LIC_NEEDS_ACK')
    expect(refused.changes!.map(({ change, ack }) => `${change}${ack ? ' !' : ''}`).sort()).toEqual([
      'CUSTOMER_CHANGED !',
      'EDITION_CHANGED',
      'EXPIRES_EARLIER !',
      'FEATURE_ADDED',
      'FEATURE_REMOVED !',
      'KIND_CHANGED !',
      'LIMIT_LOWERED !',
      'LIMIT_RAISED',
    ])
    expect(refused.changes).toContainEqual({ change: 'LIMIT_LOWERED', limit: 'devices', from: 100, to: 50, used: 0, ack: true })
    expect([...license.get().features].sort()).toEqual(['sso', 'vehicle'])
    await install(poorer, true)
    expect([...license.get().features].sort()).toEqual(['audit', 'vehicle'])
    expect(license.get().conditions).toContain('NOT_PRODUCTION')
  })

  it('shows beforehand what it would do, and writes nothing [§13]', async () => {
    const before = await countEvents()
    const { result, changes } = await preview(vendor.license({ features: ['sso'] }))
    expect([result, changes[0]!.change]).toEqual(['installed', 'FEATURE_ADDED'])
    expect([license.get().state, await countEvents()]).toEqual(['COMMUNITY', before])
    expect(await refusal(preview('nonsense'))).toEqual({ code: 'LIC_MALFORMED' })
    expect((await lastEvents(1))[0]).toMatchObject({ action: 'license.preview', outcome: 'refused', code: 'LIC_MALFORMED' })
  })

  it('notes each refusal once and never a run of the token, and leaves what is in force [L-4]', async () => {
    await install(vendor.license({ features: ['vehicle'] }))
    const good = vendor.license()
    const [head, body] = good.split('.') as [string, string, string]
    const bad = [
      good.slice(0, -4),
      `${head}.${body}.`,
      `${head}.${vendor.license().split('.')[1]}.${good.split('.')[2]}`,
      vendor.license({ iat: seconds(clock.now()) + 90_000, exp: seconds(clock.now()) + 9_000_000 }),
      vendor.license({ features: ['*'] }),
      vendor.license({ crl_seq: 9 }),
    ]
    for (const token of bad) {
      const before = await countEvents()
      const error = (await install(token).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )) as Error & { members: (language: 'en') => object; code: string }
      expect(error?.code).toMatch(/^LIC_/)
      expect(await countEvents()).toBe(before + 1)
      const [row] = await lastEvents(1)
      const said = JSON.stringify([error.message, error.members('en'), row, events]) + logged
      expect(findLeak(said, token)).toBeUndefined()
    }
    expect([...license.get().features]).toEqual(['vehicle'])
    expect((await lastEvents(1))[0]).toMatchObject({ code: 'LIC_CRL_REQUIRED', jti: jtiOf(bad.at(-1)!) })
    expect((await lastEvents(3))[2]).toMatchObject({ code: 'LIC_CLOCK' })
  })

  it(
    'refuses 10,000 damaged tokens without a run of one of them in a log line, an event or an answer [L-4]',
    { timeout: 600_000 },
    async () => {
      const inForce = vendor.license({ features: ['vehicle'] })
      await install(inForce)
      const [good, other] = [vendor.license({ cust: { name: 'ACME' }, limits: { devices: 1000 } }), vendor.license()]
      const before = await countEvents()
      const said = new Set<string>()
      let refused = 0
      const attempt = fc.asyncProperty(damageToken(good, other), async (text) => {
        if (normaliseToken(text) === good) return
        const error = (await install(text).catch((thrown: unknown) => thrown)) as Error & {
          members: (language: 'en') => object
          code: string
        }
        expect(error?.code).toMatch(/^LIC_/)
        refused++
        said.add(JSON.stringify([error.message, error.stack, error.members('en')]))
      })
      await fc.assert(attempt, { numRuns: 10_000 })
      expect(await countEvents()).toBe(before + refused)
      const rows = await lastEvents(refused)
      const all = [...said, JSON.stringify(events), ...rows.map(({ text }) => text), logged].join('\n')
      for (const token of [inForce, good, other]) expect(findLeak(all, token)).toBeUndefined()
      // The same search finds what is there.
      expect(findLeak(`${all} ${good.slice(100, 130)}`, good)).toBeDefined()
      expect([...license.get().features]).toEqual(['vehicle'])
    },
  )

  it('says plainly that a build has no vendor key [L-22]', async () => {
    const bare = createLicense({ ...context, clock }, { licenseKeys: new Map(), factors: async () => factors })
    await bare.open()
    expect(await refusal(install(vendor.license(), false, bare))).toMatchObject({
      code: 'LIC_KID_UNKNOWN',
      detail: expect.stringContaining('This build carries no license key'),
    })
  })

  it('takes an expired or a foreign one knowingly only [L-73]', async () => {
    const now = seconds(clock.now())
    const old = { iat: now - 400 * 86_400, nbf: now - 400 * 86_400 }
    const expired = vendor.license({ ...old, exp: now - 10 * 86_400 })
    expect(await refusal(install(expired))).toMatchObject({
      code: 'LIC_NEEDS_ACK',
      changes: expect.arrayContaining([{ change: 'STATE_AFTER', state: 'GRACE', ack: true }]),
    })
    await install(expired, true)
    expect(license.get().state).toBe('GRACE')
    const foreign = vendor.license({
      machine: machineClaim(
        {},
        new Map([
          ['install', 'x'],
          ['disk', 'y'],
          ['mac', 'z'],
        ]),
      ),
    })
    const refused = (await refusal(install(foreign))) as { changes?: object[] }
    expect(refused.changes).toContainEqual({
      change: 'STATE_AFTER',
      state: 'MISMATCH',
      matched: 0,
      min: 3,
      total: 3,
      kinds: ['install', 'disk', 'mac'],
      ack: true,
    })
  })

  it('lets one wait whose time has not come, and lets it take over by itself [L-52]', async () => {
    await install(vendor.license({ features: ['vehicle'] }))
    const nbf = seconds(clock.now()) + 2
    const next = vendor.license({ features: ['vehicle', 'sso'], nbf })
    expect((await install(next)).result).toBe('scheduled')
    expect((await install(next)).result).toBe('unchanged')
    expect(license.get().scheduled?.claims.jti).toBe(jtiOf(next))
    expect(license.status('sso')).toBe('locked')
    // Its own timer, not the look of every minute.
    await until(() => license.status('sso') === 'active')
    expect(clock.now()).toBeGreaterThanOrEqual(nbf * 1000)
    license.stop()
  })
})

describe('removing a license', () => {
  it('asks first, keeps the row, and lets a lower stored one take over [§9.2]', async () => {
    await install(vendor.license({ features: ['vehicle'] }))
    const second = vendor.license({ features: ['vehicle', 'sso'] })
    await install(second)
    expect(await refusal(removeLicense(license, admin, false))).toMatchObject({
      code: 'LIC_NEEDS_ACK',
      changes: [{ change: 'FEATURE_REMOVED', feature: 'sso', ack: true }],
    })
    await removeLicense(license, admin, true)
    expect([...license.get().features]).toEqual(['vehicle'])
    // A removed one may come back while nothing newer of its customer was installed.
    expect((await install(second)).result).toBe('installed')
    await removeLicense(license, admin, true)
    await removeLicense(license, admin, true)
    expect(license.get().state).toBe('COMMUNITY')
    expect(await refusal(removeLicense(license, admin, true))).toEqual({ code: 'LIC_NOT_INSTALLED' })
  })

  it('for good gives it back: the same one never comes in again [§16]', async () => {
    const token = vendor.license()
    await install(token)
    await removeLicense(license, admin, true, true)
    expect(await refusal(install(token, true))).toMatchObject({ code: 'LIC_SUPERSEDED' })
  })
})

describe('the machine', () => {
  it('may lose a part and is told so once [L-37]', async () => {
    await install(vendor.license({ machine: machineClaim() }))
    expect(license.get().conditions).toEqual([])
    factors.delete('mac')
    await license.readFactors()
    await license.load()
    await license.load()
    expect(license.get()).toMatchObject({ state: 'ACTIVE', conditions: ['DRIFT'], match: { matched: 3, total: 4 } })
    expect(events.filter(({ action }) => action === 'license.drift')).toMatchObject([{ detail: { kinds: ['mac'] } }])
  })

  it('that is another one has 14 days, which removing and installing does not start again [L-38]', async () => {
    const token = vendor.license({ machine: machineClaim() })
    await install(token)
    factors = new Map([
      ['install', 'id-1'],
      ['mac', 'other'],
    ])
    await license.readFactors()
    await license.load()
    expect(license.get().state).toBe('MISMATCH')
    const { mismatchSince } = license.get().inForce!
    offset = 13 * dayMs
    monotonicOffset = 13 * dayMs
    await removeLicense(license, admin, true)
    await install(token, true)
    expect(license.get()).toMatchObject({ state: 'MISMATCH', inForce: { mismatchSince } })
    offset = 14 * dayMs + 1000
    monotonicOffset = 14 * dayMs + 1000
    await license.tick()
    expect([license.get().state, license.status('vehicle')]).toEqual(['RESTRICTED', 'readonly'])
    // Bound again: full function at once, forgotten after a day without a break.
    factors = new Map(machine)
    await license.readFactors()
    await license.load()
    expect(license.get()).toMatchObject({ state: 'ACTIVE', inForce: { mismatchSince } })
    offset += dayMs
    monotonicOffset += dayMs
    await license.tick()
    expect(license.get().inForce!.mismatchSince).toBeUndefined()
  })

  it('is asked for its own key where the license names one [L-36, L-42]', async () => {
    await install(vendor.license({ machine: machineClaim(), cnf: { jkt: license.instanceKey.jkt } }))
    expect(license.get().state).toBe('ACTIVE')
    // Another secret key does not open the stored instance key: a new one is made, and nothing stops.
    const other = await openServer({ secrets: new Secrets(randomBytes(32)) })
    await other.open()
    expect(other.instanceKey.jkt).not.toBe(license.instanceKey.jkt)
    expect(other.get()).toMatchObject({ state: 'MISMATCH', conditions: ['INSTANCE_KEY_CHANGED'] })
    expect(other.status('vehicle')).toBe('active')
  })

  it('is described by a request that the vendor can check, without a raw value [L-31, L-40]', async () => {
    const request = await license.makeRequest({ mode: 'host', note: 'please', present: ['vehicle', 'audit'], actor: 'admin-id' })
    const text = JSON.stringify(request)
    expect(verifyRequest(text)).toMatchObject({ note: 'please', present: ['audit', 'vehicle'], prev: null, strength: 'strong' })
    for (const value of machine.values()) expect(text).not.toContain(value)
    const again = await license.makeRequest({ present: [], actor: 'admin-id' })
    expect([again.salt === request.salt, again.nonce === request.nonce]).toEqual([false, false])
  })
})

describe('time', () => {
  it('makes a license expire by its states, and tells of each once [L-54]', async () => {
    const now = clock.now()
    await install(vendor.license({ exp: seconds(now + 20 * dayMs) }))
    const pass = async (ms: number) => {
      offset = ms
      monotonicOffset = ms
      await license.tick()
      await license.tick()
      return license.get().state
    }
    expect(await pass(0)).toBe('EXPIRING')
    expect(await pass(7 * dayMs)).toBe('EXPIRING')
    expect(await pass(20 * dayMs)).toBe('GRACE')
    expect(await pass(50 * dayMs)).toBe('RESTRICTED')
    expect(events.filter(({ action }) => action === 'license.expiring').map(({ detail }) => detail['days'])).toEqual([30, 14])
    expect(events.filter(({ action }) => action === 'license.grace')).toHaveLength(1)
    expect(events.filter(({ action }) => action === 'license.state').map(({ detail }) => detail['to'])).toEqual([
      'EXPIRING',
      'GRACE',
      'RESTRICTED',
    ])
  })

  it('does not go back: a clock set back brings no expired license to life [L-93]', async () => {
    await install(vendor.license({ exp: seconds(clock.now() + 10 * dayMs), grace_days: 0 }))
    offset = 11 * dayMs
    monotonicOffset = 11 * dayMs
    await license.tick()
    expect(license.get().state).toBe('RESTRICTED')
    offset = 0
    await license.tick()
    expect(license.get()).toMatchObject({ state: 'RESTRICTED', conditions: ['CLOCK_SUSPECT'] })
    // Nor does a restart help, and another server on the same database knows it, too.
    const other = await openServer()
    await other.open()
    expect(other.get()).toMatchObject({ state: 'RESTRICTED', conditions: ['CLOCK_SUSPECT'] })
    expect(events.filter(({ action }) => action === 'license.clock')).toHaveLength(1)
  })

  it('is not poisoned by one wrong answer far ahead, and believes it after a day of running [L-90, L-92]', async () => {
    await install(vendor.license())
    const year = 365 * dayMs
    offset = 70 * year
    monotonicOffset = 60_000
    await license.tick()
    expect(license.get().state).toBe('ACTIVE')
    offset = 0
    await license.tick()
    expect(license.get()).toMatchObject({ state: 'ACTIVE', conditions: [] })
    offset = 70 * year
    for (let hour = 0; hour <= 25; hour++) {
      monotonicOffset += hourMs
      await license.tick()
      if (hour === 12) expect(license.get().state).toBe('ACTIVE')
    }
    expect(license.get().state).toBe('RESTRICTED')
    // A license signed in the right time heals the mark [L-94].
    offset = 0
    await install(vendor.license(), true)
    expect(license.get()).toMatchObject({ state: 'ACTIVE', conditions: [] })
  })

  it('after a long stop does not make a license signed today come from the future', async () => {
    const server = await openServer()
    offset = 10 * dayMs
    await server.open()
    await install(vendor.license(), false, server)
    expect(server.get().state).toBe('ACTIVE')
  })
})

describe('revocation', () => {
  const revoke = (jti: string, seq = 1, change: object = {}) =>
    installCrl(license, admin, vendor.crl({ seq, revoked: [{ jti, at: seconds(clock.now()), reason: 'misuse' }], ...change }))

  it('takes a license back at once, and gives it back when the newest list does not name it [L-81, L-83]', async () => {
    const token = vendor.license()
    await install(token)
    expect(await revoke(jtiOf(token))).toEqual({ result: 'installed', seq: 1 })
    expect([license.get().state, license.status('vehicle')]).toEqual(['REVOKED', 'readonly'])
    expect(await refusal(install(token, true))).toEqual({ code: 'LIC_REVOKED' })
    expect(await installCrl(license, admin, vendor.crl({ seq: 2 }))).toEqual({ result: 'installed', seq: 2 })
    expect(license.get().state).toBe('ACTIVE')
  })

  it('takes all licenses of a stolen key but those on its list [L-80]', async () => {
    const [kept, other] = [vendor.license(), vendor.license()]
    await install(kept)
    await revoke(createTestJti(), 1, { keys: [{ kid: vendor.kid(), mode: 'revoked', allow: [jtiOf(kept)] }] })
    expect(license.get().state).toBe('ACTIVE')
    expect(await refusal(install(other))).toEqual({ code: 'LIC_KEY_REVOKED' })
  })

  it('refuses an older list, repeats of the same change nothing, one from the future waits [L-81]', async () => {
    await revoke(createTestJti(), 5)
    expect(await refusal(revoke(createTestJti(), 4))).toEqual({ code: 'CRL_STALE' })
    expect(await revoke(createTestJti(), 5)).toEqual({ result: 'unchanged', seq: 5 })
    const iat = seconds(clock.now()) + 90_000
    expect(await refusal(installCrl(license, admin, vendor.crl({ seq: 6, iat })))).toEqual({ code: 'CRL_CLOCK' })
    expect((await lastEvents(1))[0]).toMatchObject({ action: 'license.crl', outcome: 'refused', code: 'CRL_CLOCK' })
  })

  it('warns when the next list is overdue, and changes no function [L-82]', async () => {
    await install(vendor.license())
    const now = seconds(clock.now())
    await installCrl(license, admin, vendor.crl({ iat: now - 100 * 86_400, next_update: now - 1 }))
    expect(license.get()).toMatchObject({ state: 'ACTIVE', conditions: ['CRL_OUTDATED'] })
  })

  it('is needed first by a license that asks for it', async () => {
    const token = vendor.license({ crl_seq: 3 })
    expect(await refusal(install(token))).toEqual({ code: 'LIC_CRL_REQUIRED', needed: 3, have: 0 })
    await revoke(createTestJti(), 3)
    expect((await install(token)).result).toBe('installed')
  })
})

describe('several servers on one database', () => {
  it('all follow an install, a list and a removal without a restart [L-101]', async () => {
    const databases = [new Db(context.database.url, 3), new Db(context.database.url, 3)]
    const servers = await Promise.all([...databases, context.db].map((db) => openServer({ db })))
    await Promise.all(servers.map((server) => server.start()))
    others.push(...servers)
    const token = vendor.license({ features: ['vehicle'] })
    await install(token, false, servers[0])
    await until(() => servers.every((server) => server.status('vehicle') === 'active'))
    await installCrl(servers[1]!, admin, vendor.crl({ revoked: [{ jti: jtiOf(token), at: 1, reason: 'lost' }] }))
    await until(() => servers.every((server) => server.get().state === 'REVOKED'))
    await removeLicense(servers[2]!, admin, true)
    await until(() => servers.every((server) => server.get().state === 'COMMUNITY'))
    for (const server of servers) server.stop()
    await Promise.all(databases.map((db) => db.stop()))
    // One change of state is one event, however many servers saw it.
    const told = events.filter(({ action }) => action === 'license.state').map(({ detail }) => detail['to'])
    expect(told).toEqual(['ACTIVE', 'REVOKED', 'COMMUNITY'])
  })

  it('hear of changes again after their connection was cut [L-101]', async () => {
    const db = new Db(context.database.url, 3)
    const server = await openServer({ db })
    await server.start()
    others.push(server)
    const { default: postgres } = await import('postgres')
    const admin2 = postgres(context.database.adminUrl, { max: 1 })
    const cut =
      await admin2`select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%' and datname = current_database()`
    expect(cut.length).toBeGreaterThan(0)
    await install(vendor.license({ features: ['sso'] }))
    await until(() => server.status('sso') === 'active')
    // The first change may have been seen by the reload on connecting; the second one is heard.
    await install(vendor.license({ features: ['sso', 'audit'] }))
    await until(() => server.status('audit') === 'active')
    server.stop()
    await db.stop()
    await admin2.end()
  })

  it('installing at the same moment wait for each other', async () => {
    const tokens = Array.from({ length: 8 }, () => vendor.license({ features: ['vehicle'] }))
    const results = await Promise.all(tokens.map((token) => refusal(install(token, true))))
    const codes = results.map(({ code }) => code)
    expect(codes.every((code) => code === 'none' || code === 'LIC_SUPERSEDED')).toBe(true)
    expect(license.get().inForce?.claims.jti).toBe(jtiOf(tokens.at(-1)!))
  })

  it('use the next lower token when the highest no longer verifies, and none when none does [L-71]', async () => {
    const [first, second] = [vendor.license({ features: ['vehicle'] }), vendor.license({ features: ['vehicle', 'sso'] })]
    await install(first)
    await install(second)
    const spoil = (token: string) =>
      context.db.withTenant(context.rootTenant, (tx) =>
        tx.execute(sql`update license_tokens set token = token || 'A' where jti = ${jtiOf(token)}`),
      )
    await spoil(second)
    await license.load()
    expect(license.get()).toMatchObject({ state: 'ACTIVE', conditions: ['TOKEN_SKIPPED'], inForce: { claims: { jti: jtiOf(first) } } })
    await spoil(first)
    await license.load()
    expect([license.get().state, license.status('vehicle'), license.limit('devices')]).toEqual(['INVALID', 'locked', -1])
  })

  it('on a staging instance take staging licenses and say so [L-25]', async () => {
    const staging = await openServer({ env: 'staging' })
    await staging.open()
    expect(await refusal(install(vendor.license(), false, staging))).toEqual({ code: 'LIC_ENV', expected: 'staging', found: 'production' })
    await install(vendor.license({ env: 'staging' }), false, staging)
    expect(staging.get()).toMatchObject({ state: 'ACTIVE', conditions: ['STAGING'] })
  })
})

describe('license files', () => {
  it('come into force from a folder, a newer one when it appears, and stay when they vanish [L-74, L-76]', async () => {
    const folder = mkdtempSync(join('/tmp', 'iot-pms-license-'))
    const token = vendor.license({ features: ['vehicle'], crl_seq: 1 })
    writeFileSync(join(folder, 'a.lic'), token)
    writeFileSync(join(folder, 'z.crl'), vendor.crl())
    writeFileSync(join(folder, 'notes.txt'), 'nothing')
    const server = await openServer({ file: folder })
    await server.open()
    const files = new FileSource(server)
    await files.start()
    expect(server.get()).toMatchObject({ state: 'ACTIVE', inForce: { source: 'file' }, conditions: [] })
    writeFileSync(join(folder, 'b.lic'), vendor.license({ features: ['vehicle', 'sso'] }))
    await until(() => server.status('sso') === 'active')
    rmSync(join(folder, 'b.lic'))
    await until(() => server.get().conditions.includes('SOURCE_MISSING'))
    expect(server.status('sso')).toBe('active')
    // Removed by hand, it does not come back from the file.
    await removeLicense(server, admin, true)
    await files.read()
    expect(server.get().inForce?.claims.jti).toBe(jtiOf(token))
    files.stop()
    rmSync(folder, { recursive: true })
  })

  it('that are refused are told once per content, and shown [L-75]', async () => {
    const folder = mkdtempSync(join('/tmp', 'iot-pms-license-'))
    const [head, body] = vendor.license().split('.')
    writeFileSync(join(folder, 'bad.lic'), `${head}.${body}.${vendor.license().split('.')[2]}`)
    writeFileSync(join(folder, 'large.lic'), 'x'.repeat(70_000))
    const server = await openServer({ file: folder })
    await server.open()
    const before = await countEvents()
    const files = new FileSource(server)
    for (let n = 0; n < 3; n++) await files.read()
    expect(files.refusals.map(({ file, code }) => [file, code])).toEqual([
      ['bad.lic', 'LIC_SIGNATURE'],
      ['large.lic', 'LIC_SIZE'],
    ])
    // Nor does the next start tell it again.
    await new FileSource(server).read()
    expect(await countEvents()).toBe(before + 2)
    rmSync(folder, { recursive: true })
  })

  it('need no acknowledgement but never replace the upload of another customer [L-75]', async () => {
    await install(vendor.license({ features: ['vehicle', 'sso'], sub: 'first' }))
    const foreign = vendor.license({ features: [], sub: 'second' })
    const server = await openServer({ text: foreign })
    await server.open()
    const files = new FileSource(server)
    await files.read()
    expect(files.refusals).toMatchObject([{ file: 'IOT_PMS_LICENSE_TEXT', code: 'LIC_NEEDS_ACK' }])
    const own = await openServer({ text: vendor.license({ features: ['vehicle'], sub: 'first' }) })
    await own.open()
    await new FileSource(own).read()
    expect([...own.get().features]).toEqual(['vehicle'])
    expect(own.get().inForce?.source).toBe('env')
  })
})

describe('the gate', () => {
  it('refuses what is not granted, and writes only when the license has run out [§7]', async () => {
    const now = seconds(clock.now())
    const codeOf = (feature: string, act: 'read' | 'write') => {
      try {
        passGate(license, feature, act)
        return 'passes'
      } catch (error) {
        return (error as { code: string }).code
      }
    }
    expect([codeOf('vehicle', 'read'), codeOf('vehicle', 'write')]).toEqual(['LICENSE_FEATURE_REQUIRED', 'LICENSE_FEATURE_REQUIRED'])
    await install(vendor.license({ iat: now - 86_400 * 400, nbf: now - 86_400 * 400, exp: now - 86_400 * 100 }), true)
    expect(license.get().state).toBe('RESTRICTED')
    expect([codeOf('vehicle', 'read'), codeOf('vehicle', 'write'), codeOf('sso', 'read')]).toEqual([
      'passes',
      'LICENSE_EXPIRED_READONLY',
      'LICENSE_FEATURE_REQUIRED',
    ])
    await install(vendor.license())
    expect(codeOf('vehicle', 'write')).toBe('passes')
  })
})

describe('the history', () => {
  it('tells once an hour how often a limit refused [§15]', async () => {
    await license.tick()
    for (let n = 0; n < 3; n++) license.countRefusal('LIMIT_DEVICES')
    await license.tick()
    expect(events.filter(({ action }) => action === 'license.limit_refused')).toEqual([])
    offset = hourMs
    monotonicOffset = hourMs
    await license.tick()
    await license.tick()
    expect(events.filter(({ action }) => action === 'license.limit_refused')).toMatchObject([
      { code: 'LIMIT_DEVICES', detail: { count: 3 } },
    ])
    expect(license.refused.get('LIMIT_DEVICES')).toBe(3)
  })

  it('cannot be changed or deleted by the application [§15]', async () => {
    for (const statement of [sql`update license_events set code = 'x'`, sql`delete from license_events`, sql`delete from license_tokens`]) {
      await expect(context.db.withTenant(context.rootTenant, (tx) => tx.execute(statement))).rejects.toMatchObject({
        cause: { code: '42501' },
      })
    }
  })

  it('and the tokens are seen by no other tenant', async () => {
    await install(vendor.license())
    const stranger = { tenantId: '01920000-0000-7000-8000-000000000000', tenantNo: 99 }
    for (const table of ['license_state', 'license_tokens', 'license_events', 'license_usage_days']) {
      const rows = await context.db.withTenant(stranger, (tx) => tx.execute(sql`select 1 from ${sql.identifier(table)}`))
      expect([...rows], table).toEqual([])
    }
  })
})
