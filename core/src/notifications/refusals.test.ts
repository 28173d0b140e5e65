// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { LinearRegex } from './linear-regex.ts'
import { json, startProvider } from './testing.ts'

let platform: TestPlatform
let provider: Awaited<ReturnType<typeof startProvider>>
const soon = { timeout: 30_000, interval: 50 }

beforeAll(async () => {
  provider = await startProvider()
  platform = await startTestPlatform({
    notify: { endpoints: { feishu: `${provider.url}/feishu` }, testsPerMinute: 1000 },
    outbound: { policy: 'lan', allow: ['127.0.0.1'] },
  })
})
afterAll(async () => {
  await platform.close()
  await provider.close()
})

const call = (method: string, path: string, body?: unknown) =>
  platform.call(method, `/api/v1/notifications${path}`, body === undefined ? {} : { body })

async function expectRefusal(path: string, body: unknown, status: number, code: string, method = 'POST'): Promise<string> {
  const answer = await call(method, path, body)
  expect([answer.status, answer.json()['code']], answer.text).toEqual([status, code])
  return answer.text
}

async function newChannel(name: string, type: string, config: Record<string, unknown>): Promise<string> {
  const answer = await call('POST', '/channels', { name, type, config })
  expect(answer.status, answer.text).toBe(201)
  return answer.json<{ id: string }>().id
}

type Delivery = { state: string; reason: string | null; attempts: number; log: { outcome: string; retryAfterMs: number | null }[] }
const readDelivery = async (id: string) => (await call('GET', `/messages/${id}`)).json<{ deliveries: Delivery[] }>().deliveries[0]!
const send = async (body: Record<string, unknown>) => (await call('POST', '/messages', body)).json<{ id: string }>().id

describe('a provider that throttles', () => {
  it('is called again no sooner than its Retry-After says, and meanwhile nobody else calls it', async () => {
    const at: number[] = []
    provider.answer('throttled', (_, response) => {
      at.push(Date.now())
      if (at.length === 1) response.writeHead(429, { 'retry-after': '7' }).end()
      else response.writeHead(204).end()
    })
    const channelId = await newChannel('throttled', 'webhook', { url: `${provider.url}/throttled` })
    const id = await send({ to: { channelId }, text: 'a' })
    await vi.waitFor(async () => expect((await readDelivery(id)).state).toBe('sent'), soon)
    expect(at[1]! - at[0]!).toBeGreaterThanOrEqual(7000)
    expect((await readDelivery(id)).log).toMatchObject([{ outcome: 'retry', retryAfterMs: 7000 }, { outcome: 'sent' }])
  })
})

describe('a refusal', () => {
  it('names the line of a template that is wrong, and ends one that never would', async () => {
    const template = (body: string) => ({ name: 'bad', locales: { zh: { body } } })
    await expectRefusal('/templates', template('a\n{% for x in y %}'), 422, 'TEMPLATE_INVALID')
    const endless = '{% for a in (1..100000) %}{% for b in (1..100000) %}x{% endfor %}{% endfor %}'
    await expectRefusal('/templates/preview', { template: { body: endless }, channelType: 'plain' }, 422, 'TEMPLATE_LIMIT')
    // What is stored and turns out endless when it is used sends nothing.
    expect((await call('POST', '/templates', { name: 'endless', locales: { zh: { body: endless } } })).status).toBe(201)
    const channelId = await newChannel('quiet', 'feishu', { token: 'quiet-token-0001' })
    await expectRefusal('/messages', { to: { channelId }, template: 'endless' }, 422, 'TEMPLATE_LIMIT')
    expect(provider.of('feishu')).toEqual([])
  })

  it('answers for expressions that would never end elsewhere, and those that are too long', async () => {
    const routing = (matcher: string) => ({
      route: { receiver: 'r', routes: [{ matchers: [matcher] }] },
      receivers: [{ name: 'r', targets: [] }],
    })
    const evil = 'x=~"(a+)+$"'
    const tested = await call('POST', '/routing/test', { labels: { x: `${'a'.repeat(499)}!` }, routing: routing(evil) })
    expect(tested.json<{ matches: { path: string }[] }>().matches.map((one) => one.path)).toEqual(['0'])
    for (const bad of [`x=~"${'a'.repeat(201)}"`, 'x=~"(?=a)"', 'x=~"(a)\\\\1"', 'x=~"((a{200}){200}){200}"', 'x=~"(a"']) {
      await expectRefusal('/routing', routing(bad), 422, 'ROUTING_INVALID', 'PUT')
    }
  })

  it('keeps calls from the metadata service and from this computer, however their address is written', async () => {
    const addresses = [
      'http://169.254.169.254/latest/meta-data',
      'http://[::ffff:169.254.169.254]/',
      'http://[64:ff9b::a9fe:a9fe]/',
      'http://2852039166/',
      'http://0xa9fea9fe/',
      'http://0251.0376.0251.0376/',
      'http://100.100.100.200/',
      'http://[fe80::1]/',
      'http://0.0.0.0/',
    ]
    for (const url of addresses) {
      await expectRefusal('/channels', { name: url, type: 'webhook', config: { url } }, 422, 'OUTBOUND_URL_BLOCKED')
      await expectRefusal('/channel-tests', { type: 'webhook', config: { url } }, 422, 'OUTBOUND_URL_BLOCKED')
    }
  })

  it('of a provider that says our secret back shows it nowhere', async () => {
    const token = 'a-token-that-nobody-may-see'
    const signSecret = 'a-sign-secret-that-nobody-may-see'
    provider.answer('feishu', json(200, { code: 19021, msg: `sign by ${signSecret} at ${token} does not match` }))
    const channelId = await newChannel('leaky', 'feishu', { token, signSecret })
    const id = await send({ to: { channelId }, title: 'x', text: 'x' })
    await vi.waitFor(async () => expect(await readDelivery(id)).toMatchObject({ state: 'failed', reason: 'sign' }), soon)
    const texts = await Promise.all([
      call('GET', `/messages/${id}`),
      call('GET', '/deliveries'),
      call('GET', `/channels/${channelId}`),
      call('GET', '/channels'),
      call('POST', `/channels/${channelId}/test`, {}),
      platform.call('GET', '/metrics'),
    ])
    for (const { text } of texts) {
      expect(text).not.toContain(token)
      expect(text).not.toContain(signSecret)
    }
    expect(texts[0].text).toContain('sign by *** at *** does not match')
  })
})

describe('an expression', () => {
  /** Steps that a backtracking engine would double with every character. */
  it('takes time in proportion to the text, whatever it is', () => {
    const length = 100_000
    for (const source of ['(a+)+$', '(a*)*b', '(a|a)*b', '(a|aa)+b', '(.*)*(.*)*(.*)*b', '([a-z]+)+1', '(a?){100}a{100}b']) {
      const regex = new LinearRegex(source)
      expect(regex.test('a'.repeat(length) + '!'), source).toBe(false)
    }
    expect(new LinearRegex('(a+)+').test('a'.repeat(length))).toBe(true)
  })

  it('answers as the usual engine does', () => {
    const sources = [
      'a|b*c',
      '(ab){2,3}',
      '[^a-c]+',
      '\\d{2,}-\\w*',
      'a.c',
      '(a|b)?c+',
      '[]a]',
      '[a\\]]+',
      '\\.\\*',
      '',
      '(|a)b',
      '(?:x|y)z?',
    ]
    const texts = [
      '',
      'a',
      'b',
      'c',
      'bbc',
      'abab',
      'ababab',
      'abababab',
      'xyz',
      '12-a_',
      '1-a',
      'abc',
      'a\nc',
      'ac',
      'bccc',
      ']',
      'a]',
      '.*',
      'ab',
      'xz',
      'y',
    ]
    for (const source of sources) {
      // `[]a]` holds a bracket here and in POSIX; the usual engine wants it escaped.
      const usual = new RegExp(`^(?:${source.replace('[]a]', '[\\]a]')})$`)
      for (const text of texts) expect(new LinearRegex(source).test(text), `${source} on ${JSON.stringify(text)}`).toBe(usual.test(text))
    }
  })
})
