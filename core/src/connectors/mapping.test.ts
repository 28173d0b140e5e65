// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { defaultPayloadRules } from '../ingest/registry.ts'
import { filterProblem, isMatch, withoutShare } from '../ingest/topic-filters.ts'
import { compileRules, mapMessage } from './mapping.ts'
import type { CompiledRule } from './mapping.ts'
import { presets } from './presets.ts'
import { completeRule } from './schemas.ts'
import type { RuleInput } from './schemas.ts'
import { readTime } from './values.ts'

function compile(...rules: RuleInput[]): CompiledRule[] {
  const compiled = compileRules(rules.map(completeRule))
  if (!Array.isArray(compiled)) throw new Error(`${compiled.pointer} ${compiled.detail}`)
  return compiled
}

function map(rule: RuleInput | RuleInput[], topic: string, payload: string | Buffer | object) {
  const bytes = Buffer.isBuffer(payload) ? payload : Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload))
  return mapMessage(compile(...(Array.isArray(rule) ? rule : [rule])), defaultPayloadRules, topic, bytes)
}

/** Values by key, refusals by code, of a message about one device. */
function values(mapped: ReturnType<typeof map>) {
  if (mapped.refused) return mapped.refused.code
  return Object.fromEntries(mapped.items.flatMap((item) => item.values.map(({ key, value }) => [key, value])))
}

const plain: RuleInput = { topic: 'd/+', name: '{topic.2}' }

describe('the mapping of a message', () => {
  it('names the device by topic levels and by the payload', () => {
    const name = (
      template: string,
      payload: unknown = { v: 1, id: 'A', in: { n: '007', big: 9007199254740993n.toString() }, list: [{ x: 5 }] },
    ) => {
      const mapped = map({ topic: '#', name: template }, 'site/north/floor/2', JSON.stringify(payload))
      return mapped.refused ? mapped.refused.detail : mapped.items[0]!.name
    }
    expect(name('{topic.2}')).toBe('north')
    expect(name('lamp {topic.1}-{topic.4}')).toBe('lamp site-2')
    expect(name('{topic.2-}')).toBe('north/floor/2')
    expect(name('{payload.id}')).toBe('A')
    // A text stays the text it is, whatever it looks like.
    expect(name('{payload.in.n}')).toBe('007')
    expect(name('{payload.list.0.x}')).toBe('5')
    expect(name('{topic.9}')).toContain('{topic.9}')
    expect(name('{payload.none}')).toContain('{payload.none}')
    expect(name('{payload.in}')).toContain('{payload.in}')
    expect(name('{payload.id}', { id: 'a\u0000b', v: 1 })).toContain('none of them a control')
    expect(name('{payload.id}', { id: 'x'.repeat(256), v: 1 })).toContain('1–255')
  })

  it('has no way to anything that is not in the payload [SC-95]', () => {
    for (const path of ['__proto__', 'constructor', 'constructor.name', 'toString', '__proto__.polluted', 'length']) {
      expect(map({ topic: '#', name: `{payload.${path}}` }, 't', { v: 1 }).refused?.code, path).toBe('SHAPE_INVALID')
      expect(values(map({ ...plain, members: null, values: [{ path }] }, 'd/a', { v: 1 })), path).toBe('SHAPE_INVALID')
    }
    const own = '{"__proto__":{"a":1},"constructor":2}'
    expect(map({ ...plain, flatten: true }, 'd/a', own)).toMatchObject({
      items: [
        {
          values: [
            { key: '__proto__.a', value: 1 },
            { key: 'constructor', value: 2 },
          ],
        },
      ],
    })
    expect(Object.hasOwn(Object.prototype, 'a')).toBe(false)
  })

  it('takes members as they are, digit by digit, and leaves out what is to be left out', () => {
    const payload = '{"a":9007199254740993,"b":21.50,"c":"12","d":{"x":1,"y":{"z":[1,2]}},"e":null,"f":[1.10],"skip":1}'
    const kept = map({ ...plain, omit: ['skip'] }, 'd/a', payload)
    expect(values(kept)).toEqual({ a: 9007199254740993n, b: 21.5, c: 12, d: '{"x":1,"y":{"z":[1,2]}}', f: '[1.10]' })
    expect(values(map({ ...plain, flatten: true, omit: ['skip'] }, 'd/a', payload))).toEqual({
      a: 9007199254740993n,
      b: 21.5,
      c: 12,
      'd.x': 1,
      'd.y.z': '[1,2]',
      f: '[1.10]',
    })
  })

  it('picks, renames, casts and scales values', () => {
    const rule: RuleInput = {
      ...plain,
      members: null,
      values: [
        { path: 'data.t', key: 'temperature', scale: 0.1, offset: -40 },
        { path: 'data.on', as: 'boolean' },
        { path: 'data.code', as: 'text' },
        { path: 'data.n', as: 'number' },
        { path: String.raw`a\.b`, key: 'dotted' },
        { path: 'absent' },
      ],
    }
    const payload = { data: { t: 655, on: 'ON', code: 12, n: '+0.5' }, 'a.b': 1 }
    expect(values(map(rule, 'd/a', payload))).toEqual({ temperature: 25.5, on: true, code: '12', n: 0.5, dotted: 1 })
    const refused = map(rule, 'd/a', { data: { t: 'warm', on: 'maybe', n: 'x', code: 1 } })
    expect(refused).toMatchObject({
      items: [
        {
          values: [{ key: 'code', value: '1' }],
          rejects: [
            { key: 'temperature', code: 'SHAPE_INVALID' },
            { key: 'on', code: 'SHAPE_INVALID' },
            { key: 'n', code: 'SHAPE_INVALID' },
          ],
        },
      ],
    })
  })

  it('takes a payload that is one value, as a number, a text or JSON', () => {
    const one = (decoder: 'json' | 'number' | 'text', payload: string) =>
      values(map({ topic: 's/+/+', name: '{topic.2}', decoder, key: '{topic.3}' }, 's/a/temp', payload))
    expect(one('number', ' 21.5\n')).toEqual({ temp: 21.5 })
    expect(one('number', '-007')).toEqual({ temp: -7 })
    expect(one('number', '1e3')).toEqual({ temp: 1000 })
    expect(one('number', '.5')).toEqual({ temp: 0.5 })
    expect(one('number', 'warm')).toBe('PAYLOAD_MALFORMED')
    expect(one('number', '')).toBe('PAYLOAD_MALFORMED')
    expect(one('number', '0x10')).toBe('PAYLOAD_MALFORMED')
    expect(one('text', 'Online')).toEqual({ temp: 'Online' })
    expect(one('json', '"on"')).toEqual({ temp: 'on' })
    expect(one('json', 'true')).toEqual({ temp: true })
    expect(one('json', '')).toBe('PAYLOAD_MALFORMED')
    expect(values(map({ ...plain, decoder: 'text' }, 'd/a', Buffer.from([0xff])))).toBe('PAYLOAD_MALFORMED')
  })

  it('takes an array of objects, each about its own device', () => {
    const mapped = map({ topic: 'batch', name: '{payload.id}', omit: ['id'] }, 'batch', [
      { id: 'A', v: 1 },
      { id: 'B', v: 2 },
    ])
    expect(mapped).toMatchObject({
      items: [
        { name: 'A', values: [{ key: 'v', value: 1 }] },
        { name: 'B', values: [{ value: 2 }] },
      ],
    })
    expect(values(map({ topic: 'batch', name: 'x' }, 'batch', [1]))).toBe('SHAPE_INVALID')
    expect(
      values(
        map(
          { topic: 'batch', name: 'x' },
          'batch',
          Array.from({ length: 1001 }, () => ({ v: 1 })),
        ),
      ),
    ).toBe('TOO_MANY_POINTS')
    const many = JSON.stringify(Array.from({ length: 100 }, () => Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`k${i}`, i]))))
    expect(values(map({ topic: 'batch', name: 'x' }, 'batch', many))).toBe('TOO_MANY_POINTS')
  })

  it('reads the time of measurement in every unit', () => {
    expect(readTime('1767225600123', 'ms')).toBe(1767225600123)
    expect(readTime('1767225600', 's')).toBe(1767225600000)
    expect(readTime('1767225600.5', 's')).toBe(1767225600500)
    expect(readTime('1767225600123999', 'us')).toBe(1767225600123)
    expect(readTime('1767225600123999999', 'ns')).toBe(1767225600123)
    expect(readTime('2026-01-01T00:00:00.123456789+00:00', 'iso')).toBe(1767225600123)
    expect(readTime('2026-01-01T08:00:00+0800', 'iso')).toBe(1767225600000)
    expect(readTime('2026-01-01 00:00:00', 'iso')).toBe(1767225600000)
    for (const [text, unit] of [
      ['0', 'ms'],
      ['soon', 'ms'],
      ['-1', 's'],
      ['99999999999999999999', 'ms'],
      ['2026-13-01T00:00:00Z', 'iso'],
      ['1767225600', 'iso'],
    ] as const) {
      expect(readTime(text, unit), text).toBeUndefined()
    }
    const rule: RuleInput = { ...plain, time: { path: 'ts', unit: 's' } }
    expect(map(rule, 'd/a', { v: 1, ts: 1767225600 })).toMatchObject({ items: [{ ts: 1767225600000, values: [{ key: 'v' }] }] })
    expect(map(rule, 'd/a', { v: 1 })).toMatchObject({ items: [{ ts: undefined, values: [{ key: 'v' }] }] })
    expect(map(rule, 'd/a', { v: 1, ts: 'x' })).toMatchObject({ items: [{ values: [], rejects: [{ code: 'TS_INVALID', key: 'v' }] }] })
  })

  it('refuses with the reason that the device API gives', () => {
    expect(values(map(plain, 'd/a', '{"a":'))).toBe('PAYLOAD_MALFORMED')
    expect(values(map(plain, 'd/a', '['.repeat(40) + ']'.repeat(40)))).toBe('JSON_TOO_DEEP')
    expect(values(map(plain, 'd/a', {}))).toBe('SHAPE_INVALID')
    expect(values(map(plain, 'other', { v: 1 }))).toBe('TOPIC_UNKNOWN')
    expect(map(plain, 'd/a', '{"":1,"big":1e999,"ok":1}')).toMatchObject({
      items: [{ values: [{ key: 'ok' }], rejects: [{ code: 'KEY_INVALID' }, { code: 'VALUE_NOT_FINITE', key: 'big' }] }],
    })
  })

  it('is decided by the first rule that matches', () => {
    const rules: RuleInput[] = [
      { topic: 'd/bridge/#', kind: 'ignore' },
      { topic: 'd/+', name: 'one' },
      { topic: 'd/#', name: 'rest' },
    ]
    expect(map(rules, 'd/bridge/x', 'nonsense')).toMatchObject({ rule: 0, isIgnored: true })
    expect(map(rules, 'd/bridge', { v: 1 })).toMatchObject({ rule: 0 })
    expect(map(rules, 'd/x', { v: 1 })).toMatchObject({ rule: 1, items: [{ name: 'one' }] })
    expect(map(rules, 'd/x/y', { v: 1 })).toMatchObject({ rule: 2, items: [{ name: 'rest' }] })
  })

  it('fails on nothing that a broker could send', () => {
    const rules = presets.flatMap((preset) => preset.rules)
    const compiled = compileRules([
      ...rules,
      completeRule({ topic: '#', name: '{payload.a.0.b}', flatten: true, values: [{ path: 'x.y', scale: 2 }] }),
    ])
    if (!Array.isArray(compiled)) throw new Error('no rules')
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }),
        fc.oneof(fc.uint8Array(), fc.json(), fc.json({ depthSize: 'large' })),
        (topic, payload) => {
          mapMessage(compiled, defaultPayloadRules, topic, Buffer.from(payload as string))
        },
      ),
      { numRuns: 3000 },
    )
  })
})

const understood: Record<string, unknown> = {
  chirpstack: {
    name: '24e124136b502217',
    product: 'EM300-TH',
    ts: 1772352930123,
    values: { fCnt: 12, fPort: 85, humidity: 71.5, rssi: -97, snr: 7.2, temperature: 4.6 },
  },
  zigbee2mqtt: {
    name: 'kitchen-window',
    product: undefined,
    ts: undefined,
    values: { battery: 87, contact: true, linkquality: 120, temperature: 21.4 },
  },
  tasmota: {
    name: 'plug-7',
    product: undefined,
    ts: undefined,
    values: { 'ENERGY.Power': 61, 'ENERGY.Total': 12.345, 'ENERGY.Voltage': 231, TempUnit: 'C' },
  },
  plain: { name: 'pump-1', product: undefined, ts: 1767225600000, values: { flow: 12.5, isRunning: true } },
}

describe('presets', () => {
  it.each(presets.map((preset) => [preset.id, preset] as const))('%s understands its own example', (_, preset) => {
    const mapped = map([...preset.rules], preset.example.topic, preset.example.payload)
    expect(preset.topics.some((topic) => isMatch(topic.split('/'), preset.example.topic.split('/')))).toBe(true)
    expect(preset.topics.map(filterProblem).filter(Boolean)).toEqual([])
    expect(mapped.refused).toBeUndefined()
    if (mapped.refused) return
    const { name, product, ts } = mapped.items[0]!
    expect({ name, product, ts, values: values(mapped) }).toEqual(understood[preset.id])
  })

  it('take the availability that zigbee2mqtt and Tasmota tell as an attribute', () => {
    const rules = (id: string) => [...presets.find((preset) => preset.id === id)!.rules]
    for (const payload of ['{"state":"offline"}', '"offline"']) {
      expect(map(rules('zigbee2mqtt'), 'zigbee2mqtt/lamp/availability', payload)).toMatchObject({
        items: [{ name: 'lamp', kind: 'attributes', values: [{ key: 'availability', value: 'offline' }] }],
      })
    }
    expect(map(rules('zigbee2mqtt'), 'zigbee2mqtt/bridge/state', '{"state":"online"}')).toMatchObject({ isIgnored: true })
    expect(map(rules('tasmota'), 'tele/plug/LWT', 'Offline')).toMatchObject({
      items: [{ kind: 'attributes', values: [{ value: 'Offline' }] }],
    })
  })
})

describe('rules and filters that make no sense', () => {
  it('are refused with the member that is wrong', () => {
    const problem = (rule: RuleInput) => {
      const compiled = compileRules([completeRule(rule)])
      return Array.isArray(compiled) ? undefined : compiled.pointer
    }
    expect(problem({ topic: 'a', name: '{topic.0}' })).toBe('/rules/0/name')
    expect(problem({ topic: 'a', name: '{device}' })).toBe('/rules/0/name')
    expect(problem({ topic: 'a', name: 'x{' })).toBe('/rules/0/name')
    expect(problem({ topic: 'a', name: '' })).toBe('/rules/0/name')
    expect(problem({ topic: 'a', name: 'x', key: '{topic.x}' })).toBe('/rules/0/key')
    expect(problem({ topic: 'a', name: 'x', product: '{payload.}' })).toBe('/rules/0/product')
    expect(problem({ topic: 'a', kind: 'ignore' })).toBeUndefined()
  })

  it.each(['a/#/b', 'a+/b', '$share/x', '$share//a', '$share/g+/a', '$share/g/a#'])('%s is no filter to subscribe to', (filter) => {
    expect(filterProblem(filter)).toBeDefined()
  })

  it('knows shared subscriptions', () => {
    expect(filterProblem('$share/iot/a/+/#')).toBeUndefined()
    expect(withoutShare('$share/iot/a/+/#')).toBe('a/+/#')
    expect(withoutShare('a/b')).toBe('a/b')
    expect(isMatch(['+', 'x'], ['$SYS', 'x'])).toBe(false)
    expect(isMatch(['$SYS', '#'], ['$SYS', 'x'])).toBe(true)
  })
})
