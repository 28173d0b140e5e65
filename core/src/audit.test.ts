// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { AuditRecord } from './audit.ts'
import { connectPatiently } from './ingest/mqtt/testing.ts'
import { defineJob } from './jobs/define.ts'
import { testApp } from './modules/testing.ts'
import type { TestApp } from './modules/testing.ts'
import { testAdmin } from './testing.ts'
import type { TestAnswer } from './testing.ts'

/** Successful calls of these are no acts that are recorded; each with its reason [AU-13]. */
const exceptions = [
  'POST /api/v1/setup', // only before there is anybody; recorded as user.create where the set-up runs
  'POST /api/v1/auth/refresh', // goes on with a login; the theft of a token is recorded
  'POST /api/auth/token', // the same for compatible clients
  'POST /api/v1/stream/ticket', // opens a stream of what the user may read
  'POST /api/v1/client-errors', // a page tells of its own mistake
  'POST /api/v1/telemetry/latest', // reads
  'POST /api/v1/telemetry/history', // reads
  'POST /api/v1/license/preview', // writes nothing
  'POST /api/v1/connectors/preview', // tries a mapping on a message that was sent along
  'POST /api/v1/modules/{name}/retry', // what comes of it is recorded as module.start or module.fail
  'POST /api/v1/notifications/routing/test', // writes nothing
  'POST /api/v1/rules/preview', // writes nothing
  'POST /api/v1/notifications/simulate', // writes nothing
  'POST /api/v1/notifications/templates/preview', // writes nothing
  'POST /api/v1/notifications/inbox/read', // what one has read oneself
  'POST /api/v1/notifications/inbound/{channelId}/{pathToken}', // providers report
  'POST /api/v1/{token}/telemetry', // devices
  'POST /api/v1/{token}/attributes',
  'POST /api/v1/{token}/claim',
  'POST /api/v1/{token}/rpc',
  'POST /api/v1/{token}/rpc/{requestId}',
  'POST /api/v2/write',
  'POST /write',
]

let app: TestApp
const records: AuditRecord[] = []
const sink = {
  append: async (_: unknown, __: unknown, some: readonly AuditRecord[]) => {
    records.push(...some)
  },
}
beforeAll(async () => {
  app = await testApp({ modules: [], license: 'none', config: { outbound: { policy: 'lan', allow: ['127.0.0.1:9'] } } })
  app.context.audit.addSink(sink)
})
afterAll(() => app.close())

const call = async (method: string, path: string, body?: unknown, token?: string): Promise<TestAnswer> => {
  const answer = await app.call(method, path, { ...(body === undefined ? {} : { body }), ...(token ? { token } : {}) })
  expect(answer.status, `${method} ${path} ${answer.text}`).toBeLessThan(300)
  return answer
}
const idOf = (answer: TestAnswer) => answer.json<{ id: string }>().id

/** A user of a customer, who alone may claim. */
async function createCustomerUser(): Promise<string> {
  const { db, rootTenant } = app.context
  const id = randomUUID()
  const email = `${id}@example.com`
  await call('POST', '/api/v1/users', { name: 'c', email, role: 'viewer', password: testAdmin.password })
  await db.withTenant(rootTenant, async (tx) => {
    await tx.execute(sql`insert into customers (tenant_id, id, path, name) values (${rootTenant.tenantId}, ${id}, array[${id}::uuid], 'c')`)
    await tx.execute(sql`update users set customer_id = ${id} where email = ${email}`)
  })
  return (await app.call('POST', '/api/v1/auth/login', { body: { email, password: testAdmin.password }, token: null })).json<{
    accessToken: string
  }>().accessToken
}

async function actOnPeople(): Promise<void> {
  const { user } = (await call('POST', '/api/v1/users', { name: 'u', email: 'u@example.com', role: 'viewer' })).json<{
    user: { id: string }
  }>()
  await call('PATCH', `/api/v1/users/${user.id}`, { name: 'v' })
  const { link } = (await call('POST', `/api/v1/users/${user.id}/reset-link`)).json<{ link: string }>()
  const body = { token: link.split('#t=')[1], password: testAdmin.password }
  await app.call('POST', '/api/v1/auth/reset', { body, token: null })
  const signIn = async () => {
    const answer = await app.call('POST', '/api/v1/auth/login', {
      body: { email: 'u@example.com', password: testAdmin.password },
      token: null,
    })
    return {
      token: answer.json<{ accessToken: string }>().accessToken,
      cookie: answer.headers
        .getSetCookie()
        .map((one) => one.split(';')[0])
        .join('; '),
    }
  }
  const one = await signIn()
  await call('PATCH', '/api/v1/me', { name: 'w', prefs: { token: 'hidden' } }, one.token)
  await call('POST', '/api/v1/auth/reauth', { password: testAdmin.password }, one.token)
  await call('POST', '/api/v1/me/password', { current: testAdmin.password, password: 'another-Horse-12-battery' }, one.token)
  await call('POST', '/api/v1/me/password', { current: 'another-Horse-12-battery', password: testAdmin.password }, one.token)
  const headers = { cookie: one.cookie, origin: app.url }
  await app.call('POST', '/api/v1/auth/logout', { headers, token: null, body: {} })
  const two = await signIn()
  const sessions = (await call('GET', '/api/v1/me/sessions', undefined, two.token)).json<{ items: { id: string }[] }>().items
  const three = await signIn()
  await call('DELETE', `/api/v1/me/sessions/${sessions[0]!.id}`, undefined, three.token)
  await call('DELETE', '/api/v1/me/sessions', undefined, three.token)
  const compat = { username: 'u@example.com', password: testAdmin.password }
  const { token } = (await app.call('POST', '/api/auth/login', { body: compat, token: null })).json<{ token: string }>()
  await call('POST', '/api/auth/logout', undefined, token)
  await call('DELETE', `/api/v1/users/${user.id}`)
  const key = (await call('POST', '/api/v1/api-keys', { name: 'k', scopes: ['device.write'], expiresInDays: 1 })).json<{
    id: string
    key: string
  }>()
  await app.call('POST', '/api/v1/devices', { body: { name: 'by key' }, token: null, headers: { authorization: `ApiKey ${key.key}` } })
  await call('DELETE', `/api/v1/api-keys/${key.id}`)
}

async function actOnDevices(): Promise<void> {
  const device = await app.createDevice()
  const at = `/api/v1/devices/${device.id}`
  const client = await connectPatiently(`mqtt://127.0.0.1:${app.ports.mqtt}`, { username: device.token })
  client.on('message', (topic) => client.publish(topic.replace('request', 'response'), '{}'))
  await client.subscribeAsync('v1/devices/me/rpc/request/+')
  await call('POST', `${at}/commands`, { method: 'm', params: { secret: 'hidden' } })
  for (const path of ['/api/rpc', '/api/plugins/rpc']) await call('POST', `${path}/oneway/${device.id}`, { method: 'm', params: {} })
  for (const path of ['/api/rpc', '/api/plugins/rpc']) await call('POST', `${path}/twoway/${device.id}`, { method: 'm', params: {} })
  await call('DELETE', `${at}/session`)
  await client.endAsync(true)
  await answerCall(device)
  const commandId = idOf(await call('POST', `${at}/commands`, { method: 'm', params: {}, persistent: true }))
  await call('DELETE', `${at}/commands/${commandId}`)
  const { rpcId } = (await call('POST', `/api/rpc/oneway/${device.id}`, { method: 'm', params: {}, persistent: true })).json<{
    rpcId: string
  }>()
  await call('DELETE', `/api/rpc/persistent/${rpcId}`)
  await call('PATCH', at, { label: 'l' })
  await call('GET', `${at}/credentials`)
  await call('PUT', `${at}/credentials`, { type: 'access_token', token: 'abcdefghij0123456789' })
  await call('POST', `${at}/credentials/rotate`, {})
  await call('DELETE', `${at}/rejects`)
  await call('POST', `${at}/telemetry`, { a: 1 })
  await call('GET', `${at}/telemetry/export?keys=a&from=0&to=${Date.now() + 1}&format=csv`)
  await call('POST', '/api/v1/telemetry/export', { deviceIds: [device.id], keys: ['a'], from: 0, to: Date.now() + 1, format: 'csv' })
  await call('DELETE', `${at}/telemetry?keys=a&from=0&to=${Date.now()}`)
  await call('PATCH', `${at}/attributes/shared`, { a: 1, password: 'hidden' })
  await call('DELETE', `${at}/attributes/shared?keys=a`)
  const plugin = `/api/plugins/telemetry/DEVICE/${device.id}`
  await call('POST', `${plugin}/timeseries/ANY`, { b: 1 })
  await call('POST', `${plugin}/timeseries/ANY/0`, { b: 1 })
  await call('DELETE', `${plugin}/timeseries/delete?keys=b&deleteAllDataForKeys=true`)
  await call('POST', `${plugin}/SERVER_SCOPE`, { c: 1 })
  await call('POST', `${plugin}/attributes/SERVER_SCOPE`, { c: 1 })
  await call('POST', `/api/plugins/telemetry/${device.id}/SERVER_SCOPE`, { c: 1 })
  await call('DELETE', `${plugin}/SERVER_SCOPE?keys=c`)
  await call('DELETE', at)
  await call('POST', '/api/v1/bin/restore', { ids: [device.id] })
  await call('DELETE', at)
  await call('DELETE', '/api/v1/bin', { ids: [device.id] })
  const made = (await call('POST', '/api/device', { name: 'compat' })).json<{ id: { id: string } }>()
  const credentials = (await call('GET', `/api/device/${made.id.id}/credentials`)).json()
  await call('POST', '/api/device/credentials', { ...credentials, credentialsId: 'klmnopqrst0123456789' })
  await call('DELETE', `/api/device/${made.id.id}`)
}

/** A device asks, a user answers. */
async function answerCall({ id, token }: { id: string; token: string }): Promise<void> {
  const asked = new Promise<number>((resolve) => app.context.events.on('device.called', ({ requestId }) => resolve(requestId)))
  const answered = app.call('POST', `/api/v1/${token}/rpc`, { body: { method: 'openDoor', params: {} }, token: null })
  await call('POST', `/api/v1/devices/${id}/client-rpc/${await asked}`, { reply: { ok: true } })
  expect((await answered).status).toBe(200)
}

async function actOnConnectors(): Promise<void> {
  const connector = {
    name: 'broker',
    enabled: false,
    url: 'mqtt://127.0.0.1:9',
    topics: ['#'],
    password: 'hidden',
    rules: [{ topic: 'a/+', name: '{topic.2}' }],
  }
  const id = idOf(await call('POST', '/api/v1/connectors', connector))
  await call('PATCH', `/api/v1/connectors/${id}`, { topics: ['a/#'] })
  await call('POST', '/api/v1/connectors/test', { url: 'mqtt://127.0.0.1:9', topics: ['#'] })
  await call('DELETE', `/api/v1/connectors/${id}`)
}

async function actOnClaims(): Promise<void> {
  const device = await app.createDevice()
  const user = await createCustomerUser()
  for (const path of ['/api/v1/devices/claim', `/api/customer/device/${device.name}/claim`]) {
    await app.call('POST', `/api/v1/${device.token}/claim`, { body: { secretKey: 'hidden' }, token: null })
    const name = path.includes('customer') ? {} : { name: device.name }
    await call('POST', path, { ...name, secretKey: 'hidden' }, user)
    await call('DELETE', path.includes('customer') ? path : `${path}?name=${device.name}`, undefined, user)
  }
}

async function actOnProducts(): Promise<void> {
  const product = (
    await call('POST', '/api/v1/products', {
      name: 'p',
      provisioning: { strategy: 'create', key: 'the-provision-key', secret: 'hidden-provision' },
    })
  ).json<{ id: string }>()
  await call('PATCH', `/api/v1/products/${product.id}`, { description: 'd' })
  const provision = { deviceName: 'new', provisionDeviceKey: 'the-provision-key', provisionDeviceSecret: 'hidden-provision' }
  await app.call('POST', '/api/v1/provision', { body: provision, token: null })
  const pack = idOf(await call('POST', '/api/v1/ota-packages', { productId: product.id, kind: 'firmware', title: 't', version: '1' }))
  const content = { body: randomBytes(10), headers: { 'content-type': 'application/octet-stream' } }
  expect((await app.call('PUT', `/api/v1/ota-packages/${pack}/content`, content)).status).toBeLessThan(300)
  const soft = idOf(
    await call('POST', '/api/v1/ota-packages', {
      productId: product.id,
      kind: 'software',
      title: 't',
      version: '1',
      url: 'https://example.com/x',
    }),
  )
  const device = await app.createDevice({ productId: product.id })
  for (const [kind, packageId] of [
    ['firmware', pack],
    ['software', soft],
  ] as const) {
    await call('PUT', `/api/v1/devices/${device.id}/${kind}`, { packageId })
    await call('DELETE', `/api/v1/devices/${device.id}/${kind}`)
    await call('DELETE', `/api/v1/ota-packages/${packageId}`)
  }
  await call('DELETE', `/api/v1/products/${idOf(await call('POST', '/api/v1/products', { name: 'q' }))}`)
}

async function actOnJobs(): Promise<void> {
  const { jobs, rootTenant } = app.context
  const { tenantId } = rootTenant
  const def = defineJob({
    name: 'test-audit',
    title: { zh: '测试', en: 'Test' },
    data: Type.Object({ tenantId: Type.String(), n: Type.Integer() }),
    batch: 2,
    perNode: 1,
    retry: { strategy: 'never' },
    expireMs: 60_000,
    deadLetter: true,
  })
  await jobs.declare(def)
  const later = await jobs.send(def, { tenantId, n: 1 }, { delayMs: 3_600_000 })
  await call('POST', `/api/v1/job-queues/test-audit/jobs/${later}/cancel`, {})
  const failed = await jobs.send(def, { tenantId, n: 2 })
  await jobs.boss.fetch(def.name)
  await jobs.boss.fail(def.name, failed!)
  await call('POST', `/api/v1/job-queues/test-audit/jobs/${failed}/retry`, {})
  await call('POST', '/api/v1/job-queues/test-audit/dead/redrive', {})
  for (let i = 0; i < 3; i++) await jobs.poison.note(def.name, { tenantId, n: 3 })
  const [poison] = await jobs.poison.list(rootTenant)
  await call('POST', '/api/v1/job-quarantine/release', { queue: def.name, hash: poison!.hash })
  await call('POST', '/api/v1/workers/schedules/restart', {})
  const schedule = idOf(await call('POST', '/api/v1/schedules', { name: 's', queue: def.name, cron: '0 0 1 1 *', data: { n: 4 } }))
  await call('PATCH', `/api/v1/schedules/${schedule}`, { enabled: false })
  await call('POST', `/api/v1/schedules/${schedule}/run`, {})
  await call('DELETE', `/api/v1/schedules/${schedule}`)
}

async function actOnNotifications(): Promise<void> {
  const base = '/api/v1/notifications'
  // Nobody listens there, and nothing is to arrive.
  const config = { url: 'http://127.0.0.1:9/' }
  const channel = idOf(await call('POST', `${base}/channels`, { name: 'c', type: 'webhook', config }))
  await call('PATCH', `${base}/channels/${channel}`, { name: 'd' })
  await call('POST', `${base}/channels/${channel}/disable`, {})
  await call('POST', `${base}/channels/${channel}/enable`, {})
  await call('POST', `${base}/channels/${channel}/rotate-secret`, {})
  await call('POST', `${base}/channels/${channel}/test`, {})
  await call('POST', `${base}/channel-tests`, { type: 'webhook', config })
  const scheduledAt = new Date(Date.now() + 3_600_000).toISOString()
  const message = { to: { channelId: channel }, text: 'x', scheduledAt }
  const { id, deliveries } = (await call('POST', `${base}/messages`, message)).json<{ id: string; deliveries: { id: string }[] }>()
  await call('POST', `${base}/messages/batch`, { messages: [message] })
  await call('POST', `${base}/messages/${id}/cancel`, {})
  const { db, rootTenant } = app.context
  await db.withTenant(rootTenant, (tx) => tx.execute(sql`update notify_deliveries set state = 'failed' where id = ${deliveries[0]!.id}`))
  await call('POST', `${base}/deliveries/${deliveries[0]!.id}/retry`, {})
  await call('POST', `${base}/deliveries/bulk-retry`, { state: 'failed' })
  await call('PUT', `${base}/routing`, { route: { receiver: 'r' }, receivers: [{ name: 'r', targets: [] }] })
  await call('POST', `${base}/deliveries/retry-all`, { channelId: randomUUID() })
  // Two that no worker knows of.
  for (const [state, act] of [
    ['queued', 'cancel'],
    ['failed', 'retry'],
  ] as const) {
    const operation = randomUUID()
    await db.withTenant(rootTenant, (tx) =>
      tx.execute(sql`insert into operations (tenant_id, id, kind, state, input, failures, created_by_id, created_by)
        values (${rootTenant.tenantId}, ${operation}, 'notification.retry', ${state}, '{}', '[{"item": "", "code": "X", "detail": ""}]', ${randomUUID()}, 'x')`),
    )
    await call('POST', `/api/v1/jobs/${operation}/${act}`, {})
  }
  const key = idOf(await call('POST', '/api/v1/api-keys', { name: 'send', scopes: ['notify.send'], expiresInDays: 1 }))
  await call('PUT', `${base}/send-keys/${key}`, { receiver: 'r' })
  await call('DELETE', `${base}/send-keys/${key}`)
  const steps = [{ afterMs: 0, targets: [{ channelId: channel }] }]
  const escalation = idOf(await call('POST', `${base}/escalations`, { name: 'e', steps }))
  await call('PATCH', `${base}/escalations/${escalation}`, { repeat: 1 })
  await call('DELETE', `${base}/escalations/${escalation}`)
  const span = { startsAt: new Date().toISOString(), endsAt: scheduledAt }
  const silence = idOf(await call('POST', `${base}/silences`, { matchers: ['a="b"'], comment: 'c', ...span }))
  await call('PATCH', `${base}/silences/${silence}`, { comment: 'd' })
  await call('DELETE', `${base}/silences/${silence}`)
  const template = idOf(await call('POST', `${base}/templates`, { name: 't', locales: { zh: { body: 'x' } } }))
  await call('PATCH', `${base}/templates/${template}`, { locales: { zh: { body: 'y' } } })
  await call('POST', `${base}/templates/${template}/restore`, { version: 1 })
  await call('DELETE', `${base}/templates/${template}`)
  await call('DELETE', `${base}/channels/${channel}`)
  await actOnOwnNotifications(base)
}

async function actOnOwnNotifications(base: string): Promise<void> {
  const config = { host: '127.0.0.1', port: 9, security: 'none', from: 'a@example.com' }
  await call('POST', `${base}/channels`, { name: 'm', type: 'email', config })
  await call('PUT', `${base}/preferences/me`, { minSeverity: 'major' })
  const point = idOf(await call('POST', `${base}/contact-points/me`, { type: 'email', address: 'p@example.com' }))
  await call('POST', `${base}/contact-points/me/${point}/code`, {})
  const { db, rootTenant } = app.context
  const [said] = await db.withTenant(rootTenant, (tx) =>
    tx.execute<{ text: string }>(sql`select text from notify_messages where topic = 'verify' order by created_at desc limit 1`),
  )
  await call('POST', `${base}/contact-points/me/${point}/verify`, { code: /\d{6}/.exec(said!.text)![0] })
  await call('DELETE', `${base}/contact-points/me/${point}`)
  const dead = randomUUID()
  await db.withTenant(rootTenant, (tx) =>
    tx.execute(
      sql`insert into notify_suppressions (tenant_id, id, type, address, reason) values (${rootTenant.tenantId}, ${dead}, 'email', 'x', 'mailbox')`,
    ),
  )
  await call('DELETE', `${base}/suppressions/${dead}`)
}

async function actOnAlarms(): Promise<void> {
  const device = await app.createDevice()
  const raise = () => call('POST', '/api/v1/alarms', { deviceId: device.id, type: randomUUID(), severity: 'major', title: 't' }).then(idOf)
  const id = await raise()
  const at = `/api/v1/alarms/${id}`
  for (const action of ['ack', 'unack', 'clear']) await call('POST', `${at}/${action}`, {})
  const { items } = (await call('GET', '/api/v1/users')).json<{ items: { id: string }[] }>()
  await call('POST', `${at}/assign`, { assigneeId: items[0]!.id })
  await call('POST', `${at}/comments`, { comment: 'c' })
  const timeline = (await call('GET', `${at}/events`)).json<{ items: { id: string }[] }>().items
  await call('PATCH', `${at}/comments/${timeline.at(-1)!.id}`, { comment: 'd' })
  await call('DELETE', at)
  await call('POST', '/api/v1/alarms/bulk', { ids: [await raise()], action: 'ack' })
}

async function actOnRules(): Promise<void> {
  const rule = { kind: 'alarm', name: 'r', target: { all: true }, levels: [{ severity: 'major', when: { connection: 'offline' } }] }
  const id = idOf(await call('POST', '/api/v1/rules', rule))
  const change = async (method: string, body?: object) => {
    const headers = { 'if-match': '*' }
    const answer = await app.call(method, `/api/v1/rules/${id}`, { headers, ...(body ? { body } : {}) })
    expect(answer.status, answer.text).toBeLessThan(300)
  }
  await change('PUT', { ...rule, name: 's' })
  await change('PATCH', { mode: 'off' })
  await call('POST', '/api/v1/rules/bulk', { ids: [id], action: 'enable' })
  await change('DELETE')
  await call('POST', `/api/v1/rules/${id}/restore`, { version: 1 })
}

async function actOnSettings(): Promise<void> {
  await call('PATCH', '/api/v1/settings/site', { name: 'site' })
  await call('PATCH', '/api/v1/settings/device-limits', { device: { messages: '100:1' } })
  const rule = idOf(await call('POST', '/api/v1/retention-rules', { keepDays: 30, keyPattern: 'x' }))
  await call('PATCH', `/api/v1/retention-rules/${rule}`, { keepDays: 31 })
  await call('DELETE', `/api/v1/retention-rules/${rule}`)
  await call('POST', '/api/v1/system/backups')
  await call('POST', '/api/v1/demo')
  await call('DELETE', '/api/v1/demo')
  await call('POST', '/api/v1/license/request', {})
  const license = app.vendor.license({ limits: { devices: -1 } })
  await call('POST', '/api/v1/license', { license })
  await call('POST', '/api/v1/license/crl', { crl: app.vendor.crl() })
  await call('DELETE', '/api/v1/license?acknowledge=true')
  await call('POST', '/api/v1/license', { license: app.vendor.license({ limits: { devices: -1 } }) })
  await call('POST', '/api/v1/license/release', { acknowledge: true })
}

describe('what is done', { timeout: 120_000 }, () => {
  it('is recorded with its route, for every route that changes anything [AU-13]', async () => {
    await actOnPeople()
    await actOnDevices()
    await actOnClaims()
    await actOnConnectors()
    await actOnProducts()
    await actOnSettings()
    await actOnJobs()
    await actOnNotifications()
    await actOnAlarms()
    await actOnRules()
    const seen = new Set(records.filter(({ outcome }) => outcome === 'success').map(({ context }) => context.route))
    const routes = app.routes
      .filter(({ method, path }) => !['GET', 'HEAD'].includes(method) && path.startsWith('/api/'))
      .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`)
    expect(routes.length).toBeGreaterThan(60)
    expect(exceptions.length).toBeLessThanOrEqual(24)
    expect(routes.filter((route) => !seen.has(route) && !exceptions.includes(route))).toEqual([])
  })

  it('says who did it, from where, and with which key [AU-10]', () => {
    const created = records.find(({ type, actor }) => type === 'device.create' && actor.auth === 'password')!
    expect(created.actor).toMatchObject({ id: expect.stringMatching(/^user:/), auth: 'password', session: expect.any(String) })
    expect(created.context).toMatchObject({ ip: '127.0.0.1', requestId: expect.any(String) })
    const byKey = records.find(({ targetName }) => targetName === 'by key')!
    expect(byKey.actor).toMatchObject({ id: expect.stringMatching(/^api_key:/), auth: 'api_key', session: null })
    expect(records.some(({ type, actor }) => type === 'api_key.first_use' && actor.id === byKey.actor.id)).toBe(true)
  })

  it('is no act of whoever asked when it goes on by itself', async () => {
    const background: Promise<void>[] = []
    const stop = app.context.events.on('device.changed', () => {
      background.push(app.context.audit.note(app.context.rootTenant, { type: 'test.background', subject: '-', actor: 'system' }))
    })
    await app.createDevice()
    stop()
    await Promise.all(background)
    const told = records.find(({ type }) => type === 'test.background')!
    expect(told).toMatchObject({ actor: { id: 'system', name: null, session: null }, context: { ip: null, route: null } })
  })

  it('is told by no one when it was rolled back, and not done when it cannot be told [AU-1, AU-32]', async () => {
    const before = records.length
    const taken = await app.createDevice({ name: 'taken' })
    expect((await app.call('POST', '/api/v1/devices', { body: { name: 'taken' } })).status).toBe(409)
    expect(records.slice(before).map(({ targetName }) => targetName)).toEqual(['taken'])
    const leave = app.context.audit.addSink({ append: () => Promise.reject(new Error('broken')) })
    const failed = await app.call('PATCH', `/api/v1/devices/${taken.id}`, { body: { label: 'x' } })
    leave()
    expect([failed.status, failed.json<{ code: string }>().code]).toEqual([500, 'AUDIT_UNAVAILABLE'])
    expect((await app.call('GET', `/api/v1/devices/${taken.id}`)).json<{ label: string | null }>().label).toBe(null)
  })

  it('is recorded when it was refused, one by one up to a hundred a minute [AU-12]', async () => {
    const viewer = await app.login('viewer')
    const denied = () => records.filter(({ outcome, reason }) => outcome === 'denied' && reason === 'PERMISSION_DENIED').length
    const before = denied()
    for (let n = 0; n < 103; n++) await app.call('DELETE', `/api/v1/devices/${randomUUID()}`, { token: viewer })
    for (let waited = 0; waited < 20_000 && denied() - before < 100; waited += 50) await sleep(50)
    expect(denied() - before).toBe(100)
    const failures = records.filter(({ type, outcome }) => type === 'auth.login' && outcome === 'failure').length
    await app.call('POST', '/api/v1/auth/login', { body: { email: testAdmin.email, password: 'wrong-wrong-1' }, token: null })
    expect(records.filter(({ type, outcome }) => type === 'auth.login' && outcome === 'failure').length).toBe(failures + 1)
  })

  it('goes to those who listen at the moment', async () => {
    const { db, rootTenant, audit } = app.context
    const leave = audit.addSink({ append: () => Promise.reject(new Error('gone')) })
    leave()
    await db.withTenant(rootTenant, async (tx) => audit.record(tx, { type: 'x', subject: '-' }))
    expect(records.some(({ type }) => type === 'x')).toBe(true)
  })
})
