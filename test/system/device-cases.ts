// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TestAnswer, TestPlatform } from '@iot-pms/core/testing'
import { RawClient } from './raw-client.ts'
import { isMatch } from './matches.ts'

export type Step = { do: string } & Record<string, unknown>
export type Case = { id: string; title: string; spec: string[]; timeoutMs?: number; steps: Step[] }

/** Text of the payload that many cases send; `3.0` must stay a double, so it is text and not an object. */
const samplePayload =
  '{"key1":"value1","key2":true,"key3":3.0,"key4":4,"key5":{"someNumber":42,"someArray":[1,2,3],"someNestedObject":{"key":"value"}}}'
/** One point more than a message may hold, in a packet of allowed size. */
const manyPoints = `[${Array.from({ length: 10_001 }, () => '{a:1}').join()}]`

/** How long what follows by itself may take. */
const slowMs = 10_000

/** CONNACK of an overloaded server, by protocol level. */
const busyCodes: ReadonlyMap<number, number> = new Map([
  [4, 3],
  [5, 0x89],
])

/** Runs cases of the device contract, written as data, against a real server. */
export class CaseRunner {
  readonly #platform: TestPlatform
  readonly #vars = new Map<string, unknown>()
  readonly #clients = new Map<string, RawClient>()
  /** Requests in the background, by name. */
  readonly #requests = new Map<string, Promise<TestAnswer>>()

  constructor(platform: TestPlatform) {
    this.#platform = platform
    this.#vars.set('run', randomBytes(5).toString('hex'))
    this.#vars.set('now', Date.now())
    this.#vars.set('P', samplePayload)
    this.#vars.set('many', manyPoints)
    this.#vars.set('jwt', platform.token)
  }

  /** @throws an error that names the step */
  async run(one: Case): Promise<void> {
    try {
      for (const [index, raw] of one.steps.entries()) {
        const step = this.#fill(raw) as Step
        await this.#do(step).catch((error: unknown) => {
          throw new Error(`step ${index} ${JSON.stringify(raw).slice(0, 300)}: ${(error as Error).message}`, { cause: error })
        })
      }
    } finally {
      for (const client of this.#clients.values()) client.end()
    }
  }

  async #do(step: Step): Promise<void> {
    const text = (name: string) => String(step[name])
    switch (step.do) {
      case 'product':
        return this.#createProduct(text('as'), step['body'] as Record<string, unknown>)
      case 'device':
        return this.#createDevice(step)
      case 'credentials':
        return this.#setCredentials(text('device'), text('type'), step['value'])
      case 'connect':
        return this.#connect(step)
      case 'publish':
        return this.#publish(step)
      case 'subscribe':
        return expectMatch(step['codes'], await this.#client(step).subscribe(step['filters'] as [string, number][]))
      case 'closed': {
        const reason = await this.#client(step).closed(5000)
        if (step['reason'] !== undefined) expectMatch(step['reason'], reason)
        return
      }
      case 'alive':
        return this.#client(step).ping()
      case 'receive':
        return this.#receive(step)
      case 'silence':
        return this.#client(step).silence(Number(step['ms']))
      case 'http':
        return this.#http(step)
      case 'await':
        return this.#check(step, await this.#requests.get(text('ref'))!)
      case 'lookup':
        return this.#lookUpDevice(step)
      case 'attrs':
        return this.#attributes(step)
      case 'setAttrs':
        return this.#setAttributes(step)
      case 'latest':
        return this.#latest(step)
      case 'history':
        return this.#history(step)
      case 'rejects':
        return this.#rejects(text('device'), text('code'))
      case 'set':
        for (const [name, value] of Object.entries(step['vars'] as Record<string, unknown>)) this.#vars.set(name, value)
        return
      default:
        throw new Error(`no such verb: ${step.do}`)
    }
  }

  async #createProduct(as: string, body: Record<string, unknown>): Promise<void> {
    const name = `product-${this.#vars.get('run') as string}-${as}`
    const answer = await this.#platform.call('POST', '/api/v1/products', { body: { ...body, name } })
    expectMatch(201, answer.status)
    this.#vars.set(`id.${as}`, answer.json()['id'])
    this.#vars.set(`name.${as}`, name)
  }

  async #createDevice(step: Step): Promise<void> {
    const as = String(step['as'])
    const name = `device-${this.#vars.get('run') as string}-${as}`
    const token = randomBytes(10).toString('hex')
    const product = step['product']
      ? { deviceProfileId: { entityType: 'DEVICE_PROFILE', id: this.#vars.get(`id.${String(step['product'])}`) } }
      : {}
    const answer = await this.#platform.call('POST', `/api/device?accessToken=${token}`, {
      body: { name, ...product, ...(step['gateway'] ? { additionalInfo: { gateway: true } } : {}) },
    })
    expectMatch(200, answer.status)
    this.#vars.set(`id.${as}`, answer.json<{ id: { id: string } }>().id.id)
    this.#vars.set(`name.${as}`, name)
    this.#vars.set(`token.${as}`, token)
  }

  async #setCredentials(device: string, type: string, value: unknown): Promise<void> {
    const id = String(this.#vars.get(`id.${device}`))
    const current: Record<string, unknown> = (await this.#platform.call('GET', `/api/device/${id}/credentials`)).json()
    const changed = await this.#platform.call('POST', '/api/device/credentials', {
      body: { ...current, credentialsType: type, credentialsValue: JSON.stringify(value) },
    })
    expectMatch(200, changed.status)
  }

  async #connect(step: Step): Promise<void> {
    const user =
      step['device'] === undefined ? (step['user'] as string | undefined) : String(this.#vars.get(`token.${String(step['device'])}`))
    const clientId = (step['clientId'] as string | undefined) ?? `c-${randomBytes(8).toString('hex')}`
    let client = new RawClient(this.#platform.ports.mqtt!, Number(step['v']))
    let connack = await client.connect({ clientId, user, pass: step['pass'] as string | undefined })
    // A busy machine may turn everybody away for a while.
    for (let waited = 0; connack.code === busyCodes.get(Number(step['v'])) && waited < slowMs; waited += 200) {
      await sleep(200)
      client = new RawClient(this.#platform.ports.mqtt!, Number(step['v']))
      connack = await client.connect({ clientId, user, pass: step['pass'] as string | undefined })
    }
    expectMatch({ code: step['code'], sessionPresent: false }, connack)
    if (step['code'] !== 0) await client.closed(2000)
    if (step['as']) this.#clients.set(String(step['as']), client)
  }

  async #publish(step: Step): Promise<void> {
    const payload = step['text'] === undefined ? JSON.stringify(step['json']) : String(step['text'])
    const qos = (step['qos'] as 0 | 1 | undefined) ?? 1
    const ack = await this.#client(step).publish(String(step['topic']), payload, qos)
    if (qos === 0) return
    expectMatch(step['ack'] === 'none' ? undefined : step['ack'], ack)
  }

  async #http(step: Step): Promise<void> {
    const options = { ...(step['auth'] === 'none' ? { token: null } : {}), ...(step['body'] === undefined ? {} : { body: step['body'] }) }
    const send = () => this.#platform.call(String(step['method']), String(step['path']), options)
    if (step['bg'] !== undefined) {
      const answer = send()
      // Awaited by a later step; one that fails before that is no error of its own.
      answer.catch(() => {})
      this.#requests.set(String(step['bg']), answer)
      return
    }
    await retry(Number(step['retry'] ?? 0), async () => this.#check(step, await send()))
  }

  #check(step: Step, answer: TestAnswer): void {
    expectMatch(step['status'], answer.status)
    if (step['json'] !== undefined) expectMatch(step['json'], answer.json())
    if (step['bodyText'] !== undefined) expectMatch(step['bodyText'], answer.text)
    if (step['save'] !== undefined) this.#save(step['save'], answer.json())
  }

  async #receive(step: Step): Promise<void> {
    const message = await this.#client(step).receive((topic) => isMatch(step['topic'], topic))
    if (!message) throw new Error('no message')
    if (step['qos'] !== undefined) expectMatch(step['qos'], message.qos)
    if (step['text'] !== undefined) expectMatch(step['text'], message.text)
    if (step['json'] !== undefined) expectMatch(step['json'], JSON.parse(message.text))
    if (step['save'] !== undefined) this.#save(step['save'], step['json'] === undefined ? {} : JSON.parse(message.text), message.topic)
  }

  /** Keeps members of an answer by their path, or the number a topic ends in, for later placeholders. */
  #save(names: unknown, body: unknown, topic = ''): void {
    for (const [name, path] of Object.entries(names as Record<string, string>)) {
      const member = (value: unknown, key: string) => (value as Record<string, unknown> | null)?.[key]
      this.#vars.set(name, path === 'topic:last' ? Number(topic.split('/').at(-1)) : path.split('.').reduce(member, body))
    }
  }

  async #lookUpDevice(step: Step): Promise<void> {
    await retry(slowMs, async () => {
      const answer = await this.#platform.call('GET', `/api/tenant/devices?deviceName=${encodeURIComponent(String(step['name']))}`)
      expectMatch(200, answer.status)
      if (step['json'] !== undefined) expectMatch(step['json'], answer.json())
      this.#vars.set(`id.${String(step['as'])}`, answer.json<{ id: { id: string } }>().id.id)
    })
  }

  async #attributes(step: Step): Promise<void> {
    const id = String(this.#vars.get(`id.${String(step['device'])}`))
    await retry(slowMs, async () => {
      const answer = await this.#platform.call('GET', `/api/plugins/telemetry/DEVICE/${id}/values/attributes/${String(step['scope'])}`)
      const found = Object.fromEntries(answer.json<{ key: string; value: unknown }[]>().map(({ key, value }) => [key, value]))
      expectMatch(step['values'], found)
      for (const key of (step['absent'] as string[] | undefined) ?? []) expectMatch(undefined, found[key])
    })
  }

  async #setAttributes(step: Step): Promise<void> {
    const id = String(this.#vars.get(`id.${String(step['device'])}`))
    const path = `/api/plugins/telemetry/DEVICE/${id}/${String(step['scope'])}`
    expectMatch(200, (await this.#platform.call('POST', path, { body: step['json'] })).status)
  }

  async #latest(step: Step): Promise<void> {
    const id = String(this.#vars.get(`id.${String(step['device'])}`))
    await retry(slowMs, async () => {
      const answer = await this.#platform.call(
        'GET',
        `/api/plugins/telemetry/DEVICE/${id}/values/timeseries?useStrictDataTypes=${step['strict'] === true}`,
      )
      const found = answer.json<Record<string, { ts: number; value: unknown }[]>>()
      for (const [key, value] of Object.entries(step['values'] as Record<string, unknown>)) expectMatch(value, found[key]?.[0]?.value)
      for (const [key, ts] of Object.entries((step['ts'] as Record<string, number> | undefined) ?? {})) expectMatch(ts, found[key]?.[0]?.ts)
      for (const key of (step['absent'] as string[] | undefined) ?? []) expectMatch(undefined, found[key])
    })
  }

  async #history(step: Step): Promise<void> {
    const id = String(this.#vars.get(`id.${String(step['device'])}`))
    const query = (step['query'] as string | undefined) ?? 'orderBy=ASC&limit=20000'
    const answer = await this.#platform.call(
      'GET',
      `/api/plugins/telemetry/DEVICE/${id}/values/timeseries?keys=${(step['keys'] as string[]).join(',')}&startTs=${String(step['from'])}&endTs=${String(step['to'])}&${query}`,
    )
    expectMatch(200, answer.status)
    const found = answer.json<Record<string, { ts: number; value: unknown }[]>>()
    for (const [key, series] of Object.entries(step['series'] as Record<string, unknown>)) {
      expectMatch(
        series,
        (found[key] ?? []).map((point) => [point.ts, point.value]),
      )
    }
  }

  async #rejects(device: string, code: string): Promise<void> {
    await retry(slowMs, async () => {
      const answer = await this.#platform.call('GET', `/api/v1/devices/${String(this.#vars.get(`id.${device}`))}/rejects`)
      const codes = answer.json<{ items: { code: string }[] }>().items.map((item) => item.code)
      if (!codes.includes(code)) throw new Error(`${code} is not among ${codes.join(', ')}`)
    })
  }

  #client(step: Step): RawClient {
    const client = this.#clients.get(String(step['on']))
    if (!client) throw new Error(`no client ${String(step['on'])}`)
    return client
  }

  /** Puts the values of `{{name}}` in; a string that is one placeholder takes the raw value. */
  #fill(value: unknown): unknown {
    if (Array.isArray(value)) return value.map((one) => this.#fill(one))
    if (typeof value === 'object' && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [String(this.#fill(name)), this.#fill(one)]))
    }
    if (typeof value !== 'string') return value
    const whole = /^\{\{([^{}]+)\}\}$/.exec(value)
    if (whole) return this.#lookUp(whole[1]!)
    return value.replace(/\{\{([^{}]+)\}\}/g, (_, name: string) => {
      const found = this.#lookUp(name)
      return typeof found === 'string' ? found : JSON.stringify(found)
    })
  }

  #lookUp(name: string): unknown {
    const sum = /^(.+?)([+-]\d+)$/.exec(name)
    if (sum && this.#vars.has(sum[1]!)) return Number(this.#vars.get(sum[1]!)) + Number(sum[2])
    if (!this.#vars.has(name)) throw new Error(`nothing is called ${name}`)
    return this.#vars.get(name)
  }
}

function expectMatch(expected: unknown, actual: unknown): void {
  if (!isMatch(expected, actual)) throw new Error(`expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
}

async function retry(ms: number, work: () => Promise<void>): Promise<void> {
  for (let waited = 0; ; waited += 50) {
    try {
      return await work()
    } catch (error) {
      if (waited >= ms) throw error
      await sleep(50)
    }
  }
}
