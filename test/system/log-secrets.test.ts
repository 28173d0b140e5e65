// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { IClientOptions } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Installation } from '../faults/installation.ts'
import { freePort } from '../faults/ports.ts'
import { ThingsBoardClient, provision } from './thingsboard-client.ts'

/** A server as users run it, at the level that says most. */
const providerPort = await freePort()
/** A provider of notifications that refuses everything and says back what it was told. */
const provider = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    const msg = `${request.url} ${JSON.stringify(request.headers)} ${Buffer.concat(chunks).toString()}`
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ code: 19001, errcode: 310000, errmsg: msg, msg }))
  })
})
const providerUrl = `http://127.0.0.1:${providerPort}`
const installation = new Installation({
  name: 'log',
  environment: {
    IOT_PMS_LOG_LEVEL: 'debug',
    IOT_PMS_NOTIFY_ENDPOINTS: JSON.stringify({ feishu: providerUrl, dingtalk: providerUrl }),
    IOT_PMS_OUTBOUND_ALLOW: '127.0.0.1',
  },
})
/** Everything that must not be in the log, by what it is. */
const secrets = new Map<string, string>()
let admin = ''

/** A secret nobody else has said; kept to be looked for. */
function secret(what: string, text = `${what.replaceAll(' ', '-')}-${randomBytes(9).toString('hex')}`): string {
  secrets.set(what, text)
  return text
}

const mqttUrl = () => `mqtt://127.0.0.1:${installation.ports.mqtt}`
const http = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) =>
  fetch(`http://127.0.0.1:${installation.ports.http}${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
const asAdmin = <T>(method: string, path: string, body?: unknown) => installation.call(method, path, body, admin) as Promise<T>
/** Connects, whatever comes of it. */
async function tryConnect(options: IClientOptions): Promise<void> {
  const session = await ThingsBoardClient.connect(mqttUrl(), options).catch(() => undefined)
  await session?.end()
}

beforeAll(async () => {
  await new Promise<void>((resolve) => provider.listen(providerPort, '127.0.0.1', resolve))
  await installation.start()
  admin = await installation.login()
  secret('session of the administrator', admin.replace('Bearer ', ''))
  await installation.openApi()
}, 120_000)
afterAll(async () => {
  provider.close()
  await installation.dispose(false)
})

describe('the log', { timeout: 120_000 }, () => {
  it('says nothing of the secrets of provisioning, whatever comes of it [P-6]', async () => {
    const keys = { provisionDeviceKey: secret('provisioning key'), provisionDeviceSecret: secret('provisioning secret') }
    const provisioning = { strategy: 'create', key: keys.provisionDeviceKey, secret: keys.provisionDeviceSecret }
    await asAdmin('POST', '/api/v1/products', { name: 'provisioned', provisioning })
    const made = await provision(mqttUrl(), { deviceName: 'provisioned-1', ...keys })
    secret('token that was made', made.credentialsValue)
    await (await ThingsBoardClient.connect(mqttUrl(), { username: made.credentialsValue })).end()
    const given = { credentialsType: 'ACCESS_TOKEN', token: secret('token that was given') }
    expect(await provision(mqttUrl(), { deviceName: 'provisioned-2', ...given, ...keys })).toMatchObject({ status: 'SUCCESS' })
    // The same token once more, which the database refuses.
    expect(await provision(mqttUrl(), { deviceName: 'provisioned-3', ...given, ...keys })).toMatchObject({ status: 'FAILURE' })
    const basic = {
      credentialsType: 'MQTT_BASIC',
      clientId: 'basic-1',
      username: 'basic-user',
      password: secret('password that was given'),
    }
    expect(await provision(mqttUrl(), { deviceName: 'provisioned-4', ...basic, ...keys })).toMatchObject({ status: 'SUCCESS' })
    await tryConnect({ clientId: 'basic-1', username: 'basic-user', password: basic.password })
    await tryConnect({ clientId: 'basic-1', username: 'basic-user', password: secret('wrong password') })
    // More than ten wrong ones a minute are slowed down, and said to be.
    const wrong = { ...keys, provisionDeviceSecret: secret('wrong provisioning secret') }
    const statuses = new Set<number>()
    for (let count = 0; count < 12; count++) statuses.add((await http('POST', '/api/v1/provision', wrong)).status)
    expect([...statuses]).toEqual([200, 429])
    await http('POST', '/api/v1/provision', `{"provisionDeviceSecret":"${secret('secret in broken JSON')}"`)
  })

  it('says nothing of tokens and passwords of devices, in whatever place they stand', async () => {
    const chosen = secret('token of a compat device', randomBytes(16).toString('hex'))
    const { id } = await asAdmin<{ id: { id: string } }>('POST', `/api/device?accessToken=${chosen}`, { name: 'compat' })
    expect((await http('POST', `/api/v1/${chosen}/telemetry`, { a: 1 })).status).toBe(200)
    await http('POST', `/api/v1/${chosen}/telemetry`, 'no JSON')
    await http('GET', `/api/v1/${chosen}/nothing/here?with=${chosen}`)
    await http('PUT', `/api/v1/${chosen}`)
    await http('GET', `/API/V1/${chosen}/attributes`)
    await http('GET', `/api//v1/${chosen}/attributes`)
    expect((await http('POST', `/api/v1/${secret('unknown token in a path')}/telemetry`, { a: 1 })).status).toBe(401)
    await http('POST', '/api/v2/write', 'm v=1', { authorization: `Token ${chosen}` })
    await http('POST', `/write?p=${chosen}`, 'm v=1')
    await tryConnect({ username: chosen })
    await tryConnect({ username: secret('unknown token of a CONNECT') })
    await tryConnect({ clientId: 'x', username: 'nobody', password: secret('unknown password of a CONNECT') })
    const { token } = await asAdmin<{ token: string }>('POST', `/api/v1/devices/${id.id}/credentials/rotate`, { graceSeconds: 0 })
    secret('token after rotation', token)
    await tryConnect({ username: token })
    const pair = { type: 'access_token', token }
    await http('POST', '/api/v1/devices', { name: 'other', credentials: pair }, { authorization: admin })
  })

  it('says nothing of what devices are claimed with [CL-1]', async () => {
    const { credentials } = await asAdmin<{ credentials: { token: string } }>('POST', '/api/v1/devices', { name: 'claimed', gateway: true })
    const device = await ThingsBoardClient.connect(mqttUrl(), { username: secret('token of the claimed device', credentials.token) })
    await device.publish('v1/devices/me/claim', { secretKey: secret('claim key') })
    await device.publish('v1/gateway/claim', { child: { secretKey: secret('claim key of a child') } })
    const overHttp = await http('POST', `/api/v1/${credentials.token}/claim`, { secretKey: secret('claim key over HTTP') })
    expect(overHttp.status).toBe(200)
    await http('POST', `/api/v1/${credentials.token}/claim`, `{"secretKey":"${secret('claim key in broken JSON')}"`)
    await device.client.publishAsync('v1/devices/me/claim', `{"secretKey":["${secret('claim key of a wrong shape')}"]}`, { qos: 0 })
    await device.end()
    await http('POST', '/api/v1/devices/claim', { name: 'claimed', secretKey: secret('claim key of a user') }, { authorization: admin })
  })

  it('says nothing of what people sign in with', async () => {
    await http('POST', '/api/v1/auth/login', { email: 'faults@example.com', password: secret('wrong password of a person') })
    await http('GET', '/api/v1/devices', undefined, { authorization: `ApiKey ${secret('unknown API key')}` })
    await http('GET', '/api/v1/devices', undefined, { 'x-authorization': `Bearer ${secret('unknown session')}` })
    const { key } = await asAdmin<{ key: string }>('POST', '/api/v1/api-keys', { name: 'log', scopes: ['device.read'], expiresInDays: 1 })
    expect((await http('GET', '/api/v1/devices', undefined, { authorization: `ApiKey ${secret('API key', key)}` })).status).toBe(200)
    await http('GET', `/api/ws/plugins/telemetry?token=${secret('session in an address')}`)
  })

  it('says nothing of the secrets of notification channels, of numbers and of what was said', async () => {
    const channels = [
      ['feishu', { token: secret('token of feishu'), signSecret: secret('sign secret of feishu') }],
      ['dingtalk', { accessToken: secret('token of dingtalk', randomBytes(32).toString('hex')), signSecret: secret('secret of dingtalk') }],
      ['webhook', { url: `${providerUrl}/hook`, headerSecrets: { 'x-key': secret('header of a webhook') } }],
      [
        'email',
        { host: '127.0.0.1', port: providerPort, security: 'none', from: 'a@example.com', user: 'u', password: secret('SMTP password') },
      ],
    ] as const
    for (const [type, config] of channels) {
      const { id } = await asAdmin<{ id: string }>('POST', '/api/v1/notifications/channels', { name: type, type, config })
      await asAdmin('POST', `/api/v1/notifications/channels/${id}/test`, { text: secret(`test by ${type}`) })
      const address = type === 'email' ? { address: `${secret('recipient')}@example.com` } : {}
      const { id: message } = await asAdmin<{ id: string }>('POST', '/api/v1/notifications/messages', {
        to: { channelId: id, ...address },
        title: secret(`title by ${type}`),
        text: secret(`text by ${type}`),
      })
      const tried = () => asAdmin<{ deliveries: { log: unknown[] }[] }>('GET', `/api/v1/notifications/messages/${message}`)
      await vi.waitFor(async () => expect((await tried()).deliveries[0]!.log.length).toBeGreaterThan(0), { timeout: 90_000, interval: 200 })
    }
    const made = { type: 'feishu', config: { token: secret('token of no channel'), surprise: 1 } }
    await http('POST', '/api/v1/notifications/channel-tests', made, { authorization: admin })
    await http('POST', '/api/v1/notifications/channels', `{"config":"${secret('channel in broken JSON')}"`, { authorization: admin })
  })

  it('was written all the time, and holds none of them', async () => {
    expect((await installation.stop()).code).toBe(0)
    const { log } = installation
    expect(secrets.size).toBeGreaterThan(20)
    expect(log).toContain('"level":"info"')
    // Requests and refusals are in it, so it would show what they carried.
    expect(log).toContain('/api/v1/…')
    const found = [...secrets].filter(([, text]) => log.includes(text)).map(([what]) => what)
    expect(found).toEqual([])
  })
})
