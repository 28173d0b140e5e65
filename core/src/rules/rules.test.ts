// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import type { RuleVersion, RuleView } from './schemas.ts'

let platform: TestPlatform
let viewer: string
beforeAll(async () => {
  platform = await startTestPlatform()
  viewer = await platform.login('viewer')
})
afterAll(() => platform.close())

const documentOf = (more: object = {}) => ({
  kind: 'alarm',
  name: randomUUID(),
  target: { all: true },
  levels: [{ severity: 'major', when: { left: { key: 't' }, op: 'gt', right: 5 } }],
  ...more,
})
const create = (document: unknown, token = platform.token) => platform.call('POST', '/api/v1/rules', { body: document, token })
const created = async (more: object = {}): Promise<RuleView> => {
  const answer = await create(documentOf(more))
  expect(answer.status, answer.text).toBe(201)
  return answer.json<RuleView>()
}
const change = (method: string, id: string, body?: unknown, version = '*') =>
  platform.call(method, `/api/v1/rules/${id}`, { headers: { 'if-match': version }, ...(body === undefined ? {} : { body }) })
const read = (id: string) => platform.call('GET', `/api/v1/rules/${id}`, { token: viewer })
const problemsOf = (answer: { json: <T>() => T }) =>
  answer.json<{ errors: { pointer: string; code: string }[] }>().errors.map(({ pointer, code }) => `${pointer} ${code}`)

describe('a rule', () => {
  it('is created, and read by viewers, who cannot write', async () => {
    const rule = await created({ labels: { team: 'cold' } })
    expect(rule).toMatchObject({ kind: 'alarm', mode: 'on', state: 'ok', version: 1, rule: { labels: { team: 'cold' } } })
    const answer = await read(rule.id)
    expect(answer.json()).toEqual(rule)
    expect(answer.headers.get('etag')).toBe('"1"')
    expect((await create(documentOf(), viewer)).status).toBe(403)
  })

  it('is refused with everything that is wrong with it [12]', async () => {
    const unknown = randomUUID()
    const broken = await create(documentOf({ levels: [{ when: { left: { key: 't' }, op: 'gt', right: 'x' }, forMs: -1 }] }))
    expect(broken.status).toBe(422)
    expect(problemsOf(broken)).toEqual([
      '/levels/0/when/right type_mismatch',
      '/levels/0/forMs out_of_range',
      '/levels/0/severity severity_missing',
    ])
    const lost = await create(documentOf({ target: { deviceIds: [unknown], groupIds: [unknown] }, title: { en: '{{ x' } }))
    expect(problemsOf(lost)).toEqual([
      '/title/en template_invalid',
      '/target/deviceIds/0 reference_unknown',
      '/target/groupIds/0 reference_unknown',
    ])
    expect((await create(documentOf({ title: { en: 'x'.repeat(70_000) } }))).json()['code']).toBe('RULE_TOO_LARGE')
    expect((await create('[]')).status).toBe(400)
  })

  it('has a name of its own in the tenant', async () => {
    const { name } = await created()
    const taken = await create(documentOf({ name }))
    expect([taken.status, taken.json()['code']]).toEqual([409, 'RULE_NAME_TAKEN'])
  })

  it('is changed by who has seen its version, and by nobody else [10]', async () => {
    const rule = await created({ labels: { a: '1', b: '2' } })
    const without = await platform.call('PATCH', `/api/v1/rules/${rule.id}`, { body: { mode: 'off' } })
    expect([without.status, without.json()['code']]).toEqual([428, 'IF_MATCH_REQUIRED'])
    const patched = await change('PATCH', rule.id, { mode: 'off', labels: { a: null } }, '"1"')
    expect(patched.json()).toMatchObject({ mode: 'off', version: 2, rule: { labels: { b: '2' } } })
    expect((await change('PUT', rule.id, documentOf(), '"1"')).status).toBe(412)
    expect((await change('DELETE', rule.id, undefined, '"1"')).status).toBe(412)
    expect((await change('PUT', randomUUID(), documentOf())).status).toBe(404)
  })

  it('keeps its versions, and goes back to one, also from the bin', async () => {
    const rule = await created()
    await change('PATCH', rule.id, { levels: [{ severity: 'minor', when: { connection: 'offline' } }] })
    const versions = async () =>
      (await platform.call('GET', `/api/v1/rules/${rule.id}/versions?limit=2`)).json<{ items: RuleVersion[]; nextCursor: string | null }>()
    expect((await versions()).items.map(({ version }) => version)).toEqual([2, 1])
    expect((await change('DELETE', rule.id)).status).toBe(204)
    expect((await read(rule.id)).status).toBe(404)
    const restored = await platform.call('POST', `/api/v1/rules/${rule.id}/restore`, { body: { version: 1 } })
    expect(restored.json()).toMatchObject({ version: 3, rule: rule.rule })
    expect((await platform.call('POST', `/api/v1/rules/${rule.id}/restore`, { body: { version: 9 } })).status).toBe(404)
    const page = await versions()
    const next = await platform.call('GET', `/api/v1/rules/${rule.id}/versions?cursor=${page.nextCursor}`)
    expect(next.json<{ items: RuleVersion[] }>().items.map(({ version }) => version)).toEqual([1])
  })

  it('is found by the device it is for, by name and by mode', async () => {
    const device = await platform.createDevice({ tags: ['cold'] })
    const tagged = await created({ target: { tags: ['cold', 'x'] } })
    const other = await created({ target: { tags: ['warm'] } })
    const excluded = await created({ target: { all: true, exclude: { deviceIds: [device.id] } }, mode: 'dryRun' })
    const list = async (query: string) =>
      (await platform.call('GET', `/api/v1/rules?limit=500&${query}`)).json<{ items: RuleView[] }>().items.map(({ id }) => id)
    const found = await list(`deviceId=${device.id}`)
    expect(found).toContain(tagged.id)
    expect(found).not.toContain(other.id)
    expect(found).not.toContain(excluded.id)
    expect(await list(`q=${other.name.slice(0, 20)}`)).toEqual([other.id])
    expect(await list('mode=dryRun')).toEqual([excluded.id])
  })

  it('is switched and deleted together with others, each for itself', async () => {
    const ids = [(await created()).id, (await created()).id, randomUUID()]
    const bulk = async (action: string) =>
      (await platform.call('POST', '/api/v1/rules/bulk', { body: { ids, action } })).json<{ items: { code: string | null }[] }>().items
    expect((await bulk('disable')).map(({ code }) => code)).toEqual([null, null, 'NOT_FOUND'])
    expect((await read(ids[0]!)).json()).toMatchObject({ mode: 'off', version: 2 })
    expect((await bulk('delete')).map(({ code }) => code)).toEqual([null, null, 'NOT_FOUND'])
    expect((await read(ids[1]!)).status).toBe(404)
  })
})
