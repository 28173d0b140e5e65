// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { randomBytes } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { inflateRawSync } from 'node:zlib'
import { testAdmin, testApp } from '@iot-pms/core/testing'
import type { TestAnswer, TestApp } from '@iot-pms/core/testing'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const home = join(import.meta.dirname, '..')

let app: TestApp
let server: Server
let owner: postgres.Sql
/** What the sink over HTTP was sent, addresses and headers aside. */
let received = ''
const lastAct = 'provision.create'
/** Everything that no record may hold, by what it is. */
const secrets = new Map<string, string>()

/** A secret nobody else has said; kept to be looked for. */
function secret(what: string, text = `${what.replaceAll(' ', '-')}-${randomBytes(9).toString('hex')}-Xy7`): string {
  secrets.set(what, text)
  return text
}

beforeAll(async () => {
  server = createServer((request, response) => {
    request.on('data', (chunk: Buffer) => (received += chunk.toString()))
    request.on('end', () => response.end())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  app = await testApp({
    modules: [home],
    license: { features: ['audit'] },
    config: { outbound: { policy: 'lan', allow: [`127.0.0.1:${port}`, '127.0.0.1:9'] } },
  })
  owner = postgres(app.context.config.database.migrateUrl!, { max: 1, onnotice: () => {} })
  secret('session of the administrator', app.token)
  secret('password of the administrator', testAdmin.password)
})
afterAll(async () => {
  await owner?.end()
  await app.close()
  server.close()
  server.closeAllConnections()
})

/** Whatever comes of it: refusals are records, too. */
const call = (method: string, path: string, body?: unknown, token?: string | null): Promise<TestAnswer> =>
  app.call(method, `/api/v1${path}`, { ...(body === undefined ? {} : { body }), ...(token === undefined ? {} : { token }) })
/** What has to succeed, or the search would look for nothing. */
async function act<T = { id: string }>(method: string, path: string, body?: unknown, token?: string | null): Promise<T> {
  const answer = await call(method, path, body, token)
  expect(answer.status, `${method} ${path} ${answer.text}`).toBeLessThan(300)
  return answer.text === '' ? (undefined as T) : answer.json<T>()
}

async function actOnPeople(): Promise<void> {
  const password = secret('password of a user')
  const email = 'audited@example.com'
  const { user } = await act<{ user: { id: string } }>('POST', '/users', { name: 'u', email, role: 'operator', password })
  await call('POST', '/auth/login', { email, password: secret('wrong password') }, null)
  const { accessToken } = await act<{ accessToken: string }>('POST', '/auth/login', { email, password }, null)
  secret('session of a user', accessToken)
  const next = secret('changed password of a user')
  await act('POST', '/me/password', { current: password, password: next }, accessToken)
  await act('PATCH', '/me', { name: 'v', prefs: { token: secret('a preference by the name of token') } }, accessToken)
  const { link } = await act<{ link: string }>('POST', `/users/${user.id}/reset-link`)
  secret('link to set a password', link.split('#t=')[1])
  const { key } = await act<{ key: string }>('POST', '/api-keys', { name: 'k', scopes: ['device.read'], expiresInDays: 1 })
  await app.call('GET', '/api/v1/devices', { token: null, headers: { authorization: `ApiKey ${secret('API key', key)}` } })
  await app.call('DELETE', '/api/v1/devices', { token: null, headers: { authorization: `ApiKey ${secret('unknown API key')}` } })
}

async function actOnDevices(): Promise<void> {
  const device = await app.createDevice({ name: 'made' })
  secret('token of a device', device.token)
  const at = `/devices/${device.id}`
  await act('GET', `${at}/credentials`)
  await act('PUT', `${at}/credentials`, { type: 'access_token', token: secret('token that was given', randomBytes(12).toString('hex')) })
  const basic = { clientId: 'c-1', userName: 'u-1', password: secret('password of a device') }
  await act('PUT', `${at}/credentials`, { type: 'mqtt_basic', ...basic })
  const other = await app.createDevice({ name: 'other' })
  const { token } = await act<{ token: string }>('POST', `/devices/${other.id}/credentials/rotate`, {})
  secret('token after rotation', token)
  await act('PATCH', `${at}/attributes/shared`, { password: secret('an attribute by the name of password') })
  await call('POST', `${at}/commands`, { method: 'm', params: { pin: secret('payload of a command') }, timeoutMs: 1000 })
  await act('POST', `/devices/${other.id}/telemetry`, { note: secret('payload of telemetry') })
  const claimed = await app.createDevice({ name: 'claimed' })
  secret('token of the claimed device', claimed.token)
  const secretKey = secret('claim key')
  await app.call('POST', `/api/v1/${claimed.token}/claim`, { body: { secretKey }, token: null })
  await call('POST', '/devices/claim', { name: 'claimed', secretKey })
  const [key, provisioning] = [secret('provisioning key'), secret('provisioning secret')]
  await act('POST', '/products', { name: 'p', provisioning: { strategy: 'create', key, secret: provisioning } })
  const asked = { deviceName: 'provisioned', provisionDeviceKey: key, provisionDeviceSecret: provisioning }
  const made = await app.call('POST', '/api/v1/provision', { body: asked, token: null })
  secret('token that was made', made.json<{ credentialsValue: string }>().credentialsValue)
}

async function actOnSettings(url: string): Promise<void> {
  const connector = {
    name: 'broker',
    enabled: false,
    url: 'mqtt://127.0.0.1:9',
    topics: ['#'],
    rules: [{ topic: 'a/+', name: '{topic.2}' }],
  }
  const { id } = await act('POST', '/connectors', { ...connector, password: secret('password of a connector') })
  await act('PATCH', `/connectors/${id}`, { password: secret('changed password of a connector') })
  const config = { url: `http://127.0.0.1:9/${secret('path of a webhook')}`, headerSecrets: { 'X-Key': secret('header of a webhook') } }
  await act('POST', '/notifications/channels', { name: 'hook', type: 'webhook', config })
  await call('POST', '/notifications/channel-tests', { type: 'webhook', config })
  const robot = { accessToken: secret('token of a robot', randomBytes(16).toString('hex')), signSecret: secret('secret of a robot') }
  await act('POST', '/notifications/channels', { name: 'robot', type: 'dingtalk', config: robot })
  const target = { kind: 'http', url, secret: secret('secret of a sink'), headers: { 'X-Key': secret('header of a sink') } }
  await act('POST', '/audit/sinks', { name: 'near', target })
  await act('POST', '/audit/sinks', { name: 'file', target: { kind: 'file' }, chains: 'both' })
  const license = app.vendor.license({ features: ['audit'], limits: { devices: -1 } })
  await act('POST', '/license', { license: secret('license', license), acknowledge: true })
  await call('POST', '/license', { license: secret('damaged license', `${license.slice(0, -30)}${'A'.repeat(30)}`) })
  await app.modules.sync()
}

/** All that lies in a folder, one file after the other. */
function readFolder(folder: string): string {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  return files.map(({ parentPath, name }) => readFileSync(join(parentPath, name), 'utf8')).join('\n')
}

/** What the files of a zip hold, by the local headers (APPNOTE 4.3.7) that come one after another. */
function unpack(zip: Buffer): string {
  const texts: string[] = []
  for (let at = zip.indexOf('PK\x03\x04'); at >= 0; at = zip.indexOf('PK\x03\x04', at + 4)) {
    const start = at + 30 + zip.readUInt16LE(at + 26) + zip.readUInt16LE(at + 28)
    const isDeflated = zip.readUInt16LE(at + 8) === 8
    texts.push(isDeflated ? inflateRawSync(zip.subarray(start), { finishFlush: 2 }).toString() : zip.subarray(start).toString())
  }
  return texts.join('\n')
}

describe('what is recorded and leaves the server', { timeout: 180_000 }, () => {
  it('holds no secret that was set, shown or refused, in the log, in any form of it, in any sink [AU-22]', async () => {
    const { port } = server.address() as AddressInfo
    await actOnSettings(`http://127.0.0.1:${port}/x`)
    await actOnPeople()
    await actOnDevices()
    const places = new Map<string, string>()
    for (const format of ['jsonl', 'cef', 'ocsf', 'csv']) {
      for (const chain of ['own', 'platform']) {
        places.set(`${format} of ${chain}`, (await call('POST', '/audit/exports', { format, chain })).text)
      }
    }
    const bundle = await fetch(`${app.url}/api/v1/audit/exports`, {
      method: 'POST',
      headers: { authorization: `Bearer ${app.token}`, 'content-type': 'application/json' },
      body: '{"format":"bundle"}',
    })
    places.set('bundle', unpack(Buffer.from(await bundle.arrayBuffer())))
    const [stored] = await owner<{ text: string }[]>`
      select string_agg(t::text, ${'\n'}) as text from (select e::text as t from audit.events e union all select c::text from audit.checkpoints c
        union all select s::text from audit.sink_state s union all select r::text from audit.sinks r union all select g::text from audit.settings g) t`
    places.set('tables', stored!.text)
    for (let waited = 0; waited < 60_000 && !received.includes(lastAct); waited += 100) await sleep(100)
    places.set('sink over HTTP', received)
    const files = join(app.context.config.dataDir, 'audit')
    for (let waited = 0; waited < 60_000 && !readFolder(files).includes(lastAct); waited += 100) await sleep(100)
    places.set('files', readFolder(files))

    // Each place holds what was done last, so it would show a secret of before.
    for (const place of ['jsonl of own', 'cef of own', 'ocsf of own', 'csv of own', 'tables', 'sink over HTTP', 'files', 'bundle']) {
      expect(places.get(place)!.includes(lastAct), place).toBe(true)
    }
    expect(places.get('tables')).toContain('hmac:')
    expect(secrets.size).toBeGreaterThan(25)
    const found = [...places].flatMap(([place, text]) =>
      [...secrets].filter(([, hidden]) => text.includes(hidden)).map(([what]) => `${what} in ${place}`),
    )
    expect(found).toEqual([])
  })
})
