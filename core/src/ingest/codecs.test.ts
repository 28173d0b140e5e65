// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { decodeAttributes, decodeTelemetry } from './codecs.ts'
import { defaultPayloadRules } from './registry.ts'
import type { PayloadRules } from './registry.ts'

const now = 1_763_690_000_000
const t = '"ts":1763000000000'

function decode(payload: string | Buffer, rules: Partial<PayloadRules> = {}, device = { lastServerTs: 0 }, at = now) {
  return decodeTelemetry(Buffer.from(payload), { ...defaultPayloadRules, ...rules }, device, at)
}

function pointsOf(payload: string | Buffer, rules: Partial<PayloadRules> = {}) {
  const decoded = decode(payload, rules)
  if ('refused' in decoded) throw new Error(`refused: ${decoded.refused.code} ${decoded.refused.detail}`)
  return decoded.points
}

/** `kind value` of the only point, or the code of the refusal. */
function valueOf(literal: string, rules: Partial<PayloadRules> = {}): unknown {
  const decoded = decode(`{"k":${literal}}`, rules)
  if ('refused' in decoded) return decoded.refused.code
  if (decoded.rejects.length > 0) return decoded.rejects[0]?.code
  const point = decoded.points[0]
  return point === undefined ? 'nothing' : [point.kind, point.value]
}

/** Result of a whole message: keys with timestamps, rejected keys with codes, or the code of the refusal. */
function shapeOf(payload: string | Buffer, rules: Partial<PayloadRules> = {}): unknown {
  const decoded = decode(payload, rules)
  if ('refused' in decoded) return decoded.refused.code
  return [...decoded.points.map((point) => `${point.key}@${point.ts}`), ...decoded.rejects.map((reject) => `${reject.key}!${reject.code}`)]
}

const deep = (levels: number) => `${'['.repeat(levels)}1${']'.repeat(levels)}`

describe('accepted JSON', () => {
  it.each<[string, string | Buffer, Partial<PayloadRules>, unknown]>([
    ['an object', '{"a":1}', {}, [`a@${now}`]],
    ['a byte order mark in front', '\ufeff{"a":1}', {}, [`a@${now}`]],
    ['white space everywhere', ' \t\r\n{ "a" : 1 , "b" : 2 } \n', {}, [`a@${now}`, `b@${now}`]],
    ['names without quotes', '{temperature:25,_b$.c-d:1}', {}, [`temperature@${now}`, `_b$.c-d@${now}`]],
    ['single quotes', "{'a':'x'}", {}, [`a@${now}`]],
    ['names without quotes, strict', '{temperature:25}', { json: 'strict' }, 'PAYLOAD_MALFORMED'],
    ['single quotes, strict', '{"a":\'x\'}', { json: 'strict' }, 'PAYLOAD_MALFORMED'],
    ['single quotes around a name, strict', "{'a':1}", { json: 'strict' }, 'PAYLOAD_MALFORMED'],
    ['bytes that are not UTF-8', Buffer.from([0x7b, 0x22, 0xc3, 0x22, 0x3a, 0x31, 0x7d]), {}, 'PAYLOAD_MALFORMED'],
    ['UTF-8 that spells a surrogate', Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]), {}, 'PAYLOAD_MALFORMED'],
    ['nothing', '', {}, 'PAYLOAD_MALFORMED'],
    ['only a byte order mark', '\ufeff', {}, 'PAYLOAD_MALFORMED'],
    ['an unfinished object', '{"a":', {}, 'PAYLOAD_MALFORMED'],
    ['an unfinished word', '{"key1":"value1","key2":tr', {}, 'PAYLOAD_MALFORMED'],
    ['an unfinished array', '[', {}, 'PAYLOAD_MALFORMED'],
    ['a missing brace', '{"a":1', {}, 'PAYLOAD_MALFORMED'],
    ['text after the value', '{"a":1}x', {}, 'PAYLOAD_MALFORMED'],
    ['a NUL byte after the value', '{"a":1}\0', {}, 'PAYLOAD_MALFORMED'],
    ['two values', '{"a":1}{"b":2}', {}, 'PAYLOAD_MALFORMED'],
    ['a comment', '{"a":1/* x */}', {}, 'PAYLOAD_MALFORMED'],
    ['a line comment', '// x\n{"a":1}', {}, 'PAYLOAD_MALFORMED'],
    ['a trailing comma in an object', '{"a":1,}', {}, 'PAYLOAD_MALFORMED'],
    ['a trailing comma in an array', '[{"a":1},]', {}, 'PAYLOAD_MALFORMED'],
    ['a leading comma', '{,"a":1}', {}, 'PAYLOAD_MALFORMED'],
    ['NaN', '{"a":NaN}', {}, 'PAYLOAD_MALFORMED'],
    ['Infinity', '{"a":-Infinity}', {}, 'PAYLOAD_MALFORMED'],
    ['an unquoted string', '{"a":on}', {}, 'PAYLOAD_MALFORMED'],
    ['a word with a tail', '{"a":truex}', {}, 'PAYLOAD_MALFORMED'],
    ['+1', '{"a":+1}', {}, 'PAYLOAD_MALFORMED'],
    ['01', '{"a":01}', {}, 'PAYLOAD_MALFORMED'],
    ['-01', '{"a":-01}', {}, 'PAYLOAD_MALFORMED'],
    ['.5', '{"a":.5}', {}, 'PAYLOAD_MALFORMED'],
    ['5.', '{"a":5.}', {}, 'PAYLOAD_MALFORMED'],
    ['1e', '{"a":1e}', {}, 'PAYLOAD_MALFORMED'],
    ['0x10', '{"a":0x10}', {}, 'PAYLOAD_MALFORMED'],
    ['a lone minus', '{"a":-}', {}, 'PAYLOAD_MALFORMED'],
    ['a bare name beginning with a digit', '{1a:1}', {}, 'PAYLOAD_MALFORMED'],
    ['a tab inside a string', '{"a":"x\ty"}', {}, 'PAYLOAD_MALFORMED'],
    ['a bad escape', '{"a":"\\x"}', {}, 'PAYLOAD_MALFORMED'],
    ['a short \\u escape', '{"a":"\\u12"}', {}, 'PAYLOAD_MALFORMED'],
    ['an escaped apostrophe in double quotes', '{"a":"\\\'"}', {}, 'PAYLOAD_MALFORMED'],
    ['a colon missing', '{"a" 1}', {}, 'PAYLOAD_MALFORMED'],
    ['mixed brackets', '[{"a":1]}', {}, 'PAYLOAD_MALFORMED'],
    ['equal names', '{"a":1,"a":2}', { duplicateKeys: 'reject' }, 'DUPLICATE_KEY'],
    ['equal names inside a JSON value', '{"a":{"b":1,"b":2}}', { duplicateKeys: 'reject' }, 'DUPLICATE_KEY'],
    ['equal names, then a mistake', '{"a":1,"a":2', { duplicateKeys: 'reject' }, 'PAYLOAD_MALFORMED'],
    ['equal names in different objects', '[{"a":1},{"a":2}]', { duplicateKeys: 'reject' }, [`a@${now}`, `a@${now + 1}`]],
    ['32 levels', `{"a":${deep(31)}}`, {}, [`a@${now}`]],
    ['33 levels', `{"a":${deep(32)}}`, {}, 'JSON_TOO_DEEP'],
    ['33 levels of a shape that is wrong anyway', deep(33), {}, 'JSON_TOO_DEEP'],
    ['depth before other mistakes', `{"a":x,"b":${deep(32)}}`, {}, 'JSON_TOO_DEEP'],
    ['brackets in a string', `{"a":"${'['.repeat(100)}"}`, {}, [`a@${now}`]],
    ['brackets in a string of a text with a mistake', `{"a":"\\"${'['.repeat(100)}",}`, {}, 'PAYLOAD_MALFORMED'],
  ])('[V-1] [V-2] %s', (_, payload, rules, expected) => {
    expect(shapeOf(payload, rules)).toEqual(expected)
  })

  it('[V-2] the last of equal names wins, whatever it is', () => {
    expect(pointsOf('{"a":1,"b":5,"a":2}')).toMatchObject([
      { key: 'a', value: 2 },
      { key: 'b', value: 5 },
    ])
    expect(pointsOf('{"a":1,"a":null}')).toEqual([])
    expect(pointsOf('{"a":1e400,"a":7}')).toMatchObject([{ value: 7 }])
    expect(pointsOf('{"a":{"x":1,"y":2,"x":{"z":3}}}')[0]?.value).toBe('{"x":{"z":3},"y":2}')
    const many = Array.from({ length: 40 }, (_, index) => `"k${index % 20}":${index}`)
    expect(pointsOf(`{${many.join(',')}}`).map((point) => point.value)).toEqual(Array.from({ length: 20 }, (_, index) => index + 20))
  })

  it('[V-3] names of the language are ordinary names', () => {
    const payload = '{"__proto__":{"polluted":1},"constructor":1,"prototype":2,"toString":3,"length":4,"hasOwnProperty":5}'
    expect(pointsOf(payload).map((point) => [point.key, point.value])).toEqual([
      ['__proto__', '{"polluted":1}'],
      ['constructor', 1],
      ['prototype', 2],
      ['toString', 3],
      ['length', 4],
      ['hasOwnProperty', 5],
    ])
    expect(pointsOf('{"a":{"__proto__":{"__proto__":1}}}')[0]?.value).toBe('{"__proto__":{"__proto__":1}}')
    expect('polluted' in {}).toBe(false)
  })

  it('[JSON_TOO_DEEP] is decided in less than 50 ms whatever the length', () => {
    for (const text of ['['.repeat(1_048_576), '{"a":'.repeat(200_000), `{"a":${'['.repeat(1_000_000)}`, `"${'\\"['.repeat(300_000)}`]) {
      const bytes = Buffer.from(text)
      const start = process.cpuUsage()
      const decoded = decode(bytes)
      expect(cpuMsSince(start)).toBeLessThan(50)
      expect(decoded).toMatchObject({ refused: { code: text.startsWith('"') ? 'PAYLOAD_MALFORMED' : 'JSON_TOO_DEEP' } })
    }
  })

  it('long unpleasant texts take time proportional to their length', () => {
    const texts = [
      `{"a":1.${'0'.repeat(500_000)}1e5}`,
      `{"a":${'9'.repeat(1_000_000)}}`,
      `{"a":0.${'9'.repeat(1_000_000)}}`,
      `{${'"a":1,'.repeat(150_000)}"a":1}`,
      `{${Array.from({ length: 90_000 }, (_, index) => `"${index}":1`).join(',')}}`,
      `{"a":{${Array.from({ length: 90_000 }, (_, index) => `"${index}":1`).join(',')}}}`,
      `{"a":"${'\\u0041'.repeat(160_000)}"}`,
      `[${'{},'.repeat(300_000)}{}]`,
    ]
    for (const text of texts) {
      const bytes = Buffer.from(text)
      const start = process.cpuUsage()
      decode(bytes)
      expect(cpuMsSince(start)).toBeLessThan(1_000)
    }
  })
})

/** Of this process: what others do to the machine meanwhile says nothing about the codec. */
function cpuMsSince(start: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(start)
  return (user + system) / 1000
}

describe('telemetry shapes', () => {
  it.each<[string, string, unknown]>([
    ['an object of values', '{"a":1,"b":2}', [`a@${now}`, `b@${now}`]],
    ['a timestamped object', `{${t},"values":{"a":1,"b":2}}`, ['a@1763000000000', 'b@1763000000000']],
    ['values before ts', `{"values":{"a":1,"b":{"c":[1]}},${t}}`, ['a@1763000000000', 'b@1763000000000']],
    ['an array of both', `[{"a":1},{${t},"values":{"b":2}}]`, [`a@${now}`, 'b@1763000000000']],
    ['other members beside ts and values', `{"x":1,${t},"y":{"z":2},"values":{"a":1},"w":3}`, ['a@1763000000000']],
    ['ts alone is a key', '{"ts":5,"a":1}', [`ts@${now}`, `a@${now}`]],
    ['values alone is a key', '{"values":{"a":1}}', [`values@${now}`]],
    ['two values members: the last', `{${t},"values":{"a":1},"values":{"b":1}}`, ['b@1763000000000']],
    ['values before and after ts: the last', `{"values":{"a":1},${t},"values":{"b":1}}`, ['b@1763000000000']],
    ['two ts members: the last', `{"ts":5,"values":{"a":1},${t}}`, ['a@1763000000000']],
    ['values not an object', `{${t},"values":3}`, 'SHAPE_INVALID'],
    ['values an array', `{"values":[1],${t}}`, 'SHAPE_INVALID'],
    ['values an object first, a number last', `{${t},"values":{"a":1},"values":3}`, 'SHAPE_INVALID'],
    ['values null', `{${t},"values":null}`, 'SHAPE_INVALID'],
    ['a number', '5', 'SHAPE_INVALID'],
    ['a string', '"x"', 'SHAPE_INVALID'],
    ['null', 'null', 'SHAPE_INVALID'],
    ['an array of numbers', '[1,2]', 'SHAPE_INVALID'],
    ['a nested array', '[[{"a":1}]]', 'SHAPE_INVALID'],
    ['one wrong item among good ones', '[{"a":1},7]', 'SHAPE_INVALID'],
    ['a wrong shape that is not JSON either', '[{"a":1},7', 'PAYLOAD_MALFORMED'],
    ['an empty object', '{}', []],
    ['an empty array', '[]', []],
    ['empty values', `{${t},"values":{}}`, []],
    ['only null', '{"a":null}', []],
    ['an array of empty objects', '[{},{}]', []],
  ])('[V-4] [V-5] %s', (_, payload, expected) => {
    expect(shapeOf(payload)).toEqual(expected)
  })

  it('[V-6] server-made timestamps grow strictly, at most 1,000 ms ahead of the clock', () => {
    const device = { lastServerTs: 0 }
    const next = (at: number) => {
      const decoded = decode('{"a":1,"b":2}', {}, device, at)
      if ('refused' in decoded) throw new Error('refused')
      expect(decoded.points[0]?.ts).toBe(decoded.points[1]?.ts)
      return decoded.points[0]?.ts
    }
    expect(next(now)).toBe(now)
    expect(next(now)).toBe(now + 1)
    expect(next(now + 1)).toBe(now + 2)
    expect(next(now + 500)).toBe(now + 500)
    for (let index = 0; index < 2_000; index++) next(now + 500)
    expect(next(now + 500)).toBe(now + 1_500)
    expect(next(now + 501)).toBe(now + 1_501)
    // The clock goes back an hour.
    expect(next(now - 3_600_000)).toBe(now + 1_502)
    expect(next(now - 3_599_990)).toBe(now + 1_503)
    expect(next(now + 3_600_000)).toBe(now + 3_600_000)
  })

  it('[V-6] a message that stores nothing or is refused leaves the clock of the device alone', () => {
    const device = { lastServerTs: 0 }
    for (const payload of ['{}', '{"a":null}', '{"a":1e400}', `{${t},"values":{"a":1}}`, '{"a":']) decode(payload, {}, device)
    expect(device.lastServerTs).toBe(0)
  })

  it('more than 10,000 points refuse the whole message', () => {
    const values = (count: number) => Array.from({ length: count }, (_, index) => `"k${index}":${index % 2 === 0 ? 1 : '1e400'}`).join(',')
    expect(decode(`{${values(10_001)}}`)).toMatchObject({ refused: { code: 'TOO_MANY_POINTS', detail: expect.stringContaining('10001') } })
    expect(decode(`[{${values(5_000)}},{${values(5_001)}}]`)).toMatchObject({ refused: { code: 'TOO_MANY_POINTS' } })
    expect(pointsOf(`{${values(10_000)}}`)).toHaveLength(5_000)
    expect(pointsOf(`{${'"a":1,'.repeat(20_000)}"a":2}`)).toHaveLength(1)
    expect(pointsOf(`{${'"a":null,'.repeat(20_000)}"b":2}`)).toHaveLength(1)
  })
})

describe('timestamps', () => {
  const at = (ts: string, rules: Partial<PayloadRules> = {}) => {
    const decoded = decode(`{"ts":${ts},"values":{"a":1,"b":2}}`, rules)
    if ('refused' in decoded) return decoded.refused.code
    const codes = decoded.rejects.map((reject) => reject.code)
    expect([0, 2]).toContain(codes.length)
    return codes[0] ?? decoded.points[0]?.ts
  }

  it.each<[string, unknown]>([
    ['1', 1],
    ['"1"', 1],
    ['10000', 10_000],
    ['1763690000000', 1_763_690_000_000],
    ['"1763690000000"', 1_763_690_000_000],
    ['"0001763690000000"', 1_763_690_000_000],
    ['1.76369e12', 1_763_690_000_000],
    ['946684799', 946_684_799],
    ['946684800', 'TS_SECONDS'],
    ['1700000000', 'TS_SECONDS'],
    ['"1700000000"', 'TS_SECONDS'],
    ['4102444800', 'TS_SECONDS'],
    ['4102444801', 4_102_444_801],
    [`${now + 86_400_000}`, now + 86_400_000],
    [`${now + 86_400_001}`, 'TS_FUTURE'],
    ['8640000000000000', 'TS_FUTURE'],
    ['8640000000000001', 'TS_INVALID'],
    ['9223372036854775807', 'TS_INVALID'],
    ['99999999999999999999', 'TS_INVALID'],
    ['0', 'TS_INVALID'],
    ['-5', 'TS_INVALID'],
    ['"-5"', 'TS_INVALID'],
    ['1.5', 'TS_INVALID'],
    ['"1.5"', 'TS_INVALID'],
    ['1763690000000.0', 'TS_INVALID'],
    ['1e400', 'TS_INVALID'],
    ['""', 'TS_INVALID'],
    ['" 5"', 'TS_INVALID'],
    ['"now"', 'TS_INVALID'],
    ['true', 'TS_INVALID'],
    ['null', 'TS_INVALID'],
    ['{}', 'TS_INVALID'],
    ['[5]', 'TS_INVALID'],
  ])('[V-9] [V-11] ts %s with unit ms', (ts, expected) => {
    expect(at(ts)).toBe(expected)
    expect(at(ts, { castNumericStrings: false })).toBe(expected)
  })

  it('[V-10] unit s multiplies by 1000, unit auto only what looks like seconds', () => {
    expect(at('1700000000', { timestampUnit: 's' })).toBe(1_700_000_000_000)
    expect(at('1763690000000', { timestampUnit: 's' })).toBe('TS_FUTURE')
    expect(at('8640000000001', { timestampUnit: 's' })).toBe('TS_INVALID')
    expect(at('2000000', { timestampUnit: 's' })).toBe(2_000_000_000)
    expect(at('1700000000', { timestampUnit: 'auto' })).toBe(1_700_000_000_000)
    expect(at('4102444800', { timestampUnit: 'auto' })).toBe('TS_FUTURE')
    expect(at('946684799', { timestampUnit: 'auto' })).toBe(946_684_799)
    expect(at('1763690000000', { timestampUnit: 'auto' })).toBe(1_763_690_000_000)
  })

  it('maxFutureMs of the product moves the limit', () => {
    expect(at(`${now + 1}`, { maxFutureMs: 0 })).toBe('TS_FUTURE')
    expect(at(`${now}`, { maxFutureMs: 0 })).toBe(now)
    expect(at(`${now + 86_400_001}`, { maxFutureMs: 315_360_000_000 })).toBe(now + 86_400_001)
  })

  it('TS_SECONDS names the product setting and the timestamp', () => {
    expect(decode('{"ts":1700000000,"values":{"a":1}}')).toMatchObject({
      points: [],
      rejects: [{ code: 'TS_SECONDS', key: 'a', ts: 1_700_000_000, detail: expect.stringContaining('payload.timestampUnit') }],
    })
  })

  it('[V-12] a rejected part does not stop the rest', () => {
    expect(shapeOf(`[{"ts":0,"values":{"a":1}},{${t},"values":{"a":1,"b":1e400,"c":"\\u0000"}},{"d":1}]`)).toEqual([
      'a@1763000000000',
      `d@${now}`,
      'a!TS_INVALID',
      'b!VALUE_NOT_FINITE',
      'c!STRING_INVALID',
    ])
  })
})

describe('values', () => {
  it.each<[string, unknown]>([
    ['true', ['boolean', true]],
    ['false', ['boolean', false]],
    ['null', 'nothing'],
    ['0', ['integer', 0]],
    ['-0', ['integer', 0]],
    ['42', ['integer', 42]],
    ['-7', ['integer', -7]],
    ['999999999999999', ['integer', 999_999_999_999_999]],
    ['9007199254740991', ['integer', 9_007_199_254_740_991]],
    ['9007199254740992', ['integer', 9_007_199_254_740_992n]],
    ['9007199254740993', ['integer', 9_007_199_254_740_993n]],
    ['-9007199254740993', ['integer', -9_007_199_254_740_993n]],
    ['9223372036854775807', ['integer', 9_223_372_036_854_775_807n]],
    ['-9223372036854775808', ['integer', -9_223_372_036_854_775_808n]],
    ['9223372036854775808', ['string', '9223372036854775808']],
    ['-9223372036854775809', ['string', '-9223372036854775809']],
    ['123456789012345678901234567890', ['string', '123456789012345678901234567890']],
    ['42.0', ['double', 42]],
    ['-0.0', ['double', 0]],
    ['3.14', ['double', 3.14]],
    ['0.30000000000000004', ['double', 0.300_000_000_000_000_04]],
    ['0.1234567890123456789', ['double', 0.123_456_789_012_345_68]],
    ['1e3', ['integer', 1000]],
    ['1.5E+1', ['integer', 15]],
    ['1.50e1', ['integer', 15]],
    ['1200e-2', ['integer', 12]],
    ['1.5e0', ['double', 1.5]],
    ['-0e5', ['integer', 0]],
    ['9007199254740993e0', ['integer', 9_007_199_254_740_993n]],
    ['9.223372036854775807e18', ['integer', 9_223_372_036_854_775_807n]],
    ['9.223372036854775808e18', ['double', 9_223_372_036_854_775_808]],
    ['1e25', ['double', 1e25]],
    ['1e-400', ['double', 0]],
    ['5e-324', ['double', 5e-324]],
    ['1e400', 'VALUE_NOT_FINITE'],
    ['-1e400', 'VALUE_NOT_FINITE'],
    [`${'9'.repeat(400)}.5`, 'VALUE_NOT_FINITE'],
    ['9'.repeat(400), ['string', '9'.repeat(400)]],
    ['9'.repeat(65_537), 'VALUE_TOO_LARGE'],
    ['"21.5"', ['double', 21.5]],
    ['"7"', ['integer', 7]],
    ['"-7"', ['integer', -7]],
    ['"-0"', ['integer', 0]],
    ['"7.0"', ['double', 7]],
    ['"\\u0037"', ['integer', 7]],
    ["'7'", ['integer', 7]],
    ['"9007199254740993"', ['integer', 9_007_199_254_740_993n]],
    ['"99999999999999999999"', ['string', '99999999999999999999']],
    [`"${'1'.repeat(40)}"`, ['string', '1'.repeat(40)]],
    [`"0.${'1'.repeat(38)}"`, ['double', 1 / 9]],
    [`"0.${'1'.repeat(39)}"`, ['string', `0.${'1'.repeat(39)}`]],
    ['"007"', ['string', '007']],
    ['"+1"', ['string', '+1']],
    ['"1e5"', ['string', '1e5']],
    ['".5"', ['string', '.5']],
    ['"5."', ['string', '5.']],
    ['"-"', ['string', '-']],
    ['"1 "', ['string', '1 ']],
    ['"NaN"', ['string', 'NaN']],
    ['""', ['string', '']],
    ['"温度\\n\\u00e9\\ud83d\\ude00😀\\/"', ['string', '温度\né😀😀/']],
    ["'it\\'s \"x\"'", ['string', 'it\'s "x"']],
    [`"${'x'.repeat(65_536)}"`, ['string', 'x'.repeat(65_536)]],
    [`"${'x'.repeat(65_537)}"`, 'VALUE_TOO_LARGE'],
    [`"${'中'.repeat(21_846)}"`, 'VALUE_TOO_LARGE'],
    [`"\\n${'x'.repeat(65_536)}"`, 'VALUE_TOO_LARGE'],
    ['"a\\u0000b"', 'STRING_INVALID'],
    ['"\\ud800"', 'STRING_INVALID'],
    ['"\\ude00\\ud83d"', 'STRING_INVALID'],
    ['{}', ['json', '{}']],
    ['[]', ['json', '[]']],
    ['{ "b" : 1 , "a" : [ true , null , "x y" ] }', ['json', '{"b":1,"a":[true,null,"x y"]}']],
    ['{"2":1,"1":2}', ['json', '{"2":1,"1":2}']],
    ['{"n":9007199254740993,"d":3.0,"e":1E5,"z":-0}', ['json', '{"n":9007199254740993,"d":3.0,"e":1E5,"z":-0}']],
    ["{b:'x\"y',c.d:{e:1}}", ['json', '{"b":"x\\"y","c.d":{"e":1}}']],
    ['{"a":"\\u4e2d\\""}', ['json', '{"a":"中\\""}']],
    ['{"a":1e400}', 'VALUE_NOT_FINITE'],
    [`[${'9'.repeat(400)}]`, 'VALUE_NOT_FINITE'],
    ['["\\u0000"]', 'STRING_INVALID'],
    ['{"\\udc00":1}', 'STRING_INVALID'],
    ['{"\\u0000":1}', 'STRING_INVALID'],
    [`["${'x'.repeat(65_532)}"]`, ['json', `["${'x'.repeat(65_532)}"]`]],
    [`["${'x'.repeat(65_533)}"]`, 'VALUE_TOO_LARGE'],
  ])('[V-13] [V-15] %s', (literal, expected) => {
    expect(valueOf(literal)).toEqual(expected)
  })

  it('[V-17] without castNumericStrings a numeric string stays a string', () => {
    expect(valueOf('"21.5"', { castNumericStrings: false })).toEqual(['string', '21.5'])
    expect(valueOf('"\\u0037"', { castNumericStrings: false })).toEqual(['string', '7'])
  })

  it('[V-16] a key may change its type from point to point', () => {
    expect(pointsOf('[{"a":1},{"a":"x"},{"a":true}]').map((point) => point.kind)).toEqual(['integer', 'string', 'boolean'])
  })

  it.each<[string, string, boolean]>([
    ['255 characters', 'k'.repeat(255), true],
    ['256 characters', 'k'.repeat(256), false],
    ['255 Chinese characters', '温'.repeat(255), true],
    ['256 Chinese characters', '温'.repeat(256), false],
    ['255 characters beyond the basic plane', '😀'.repeat(255), true],
    ['256 characters beyond the basic plane', '😀'.repeat(256), false],
    ['commas, dots and spaces', 'a, b.c d', true],
    ['nothing', '', false],
    ['an escaped newline', 'a\\nb', false],
    ['U+0000', 'a\\u0000b', false],
    ['U+007F', 'a\u007fb', false],
    ['an escaped U+007F', 'a\\u007fb', false],
    ['a lone surrogate', '\\ud800', false],
    ['an escaped letter', '\\u0061', true],
  ])('[V-14] a key of %s', (_, key, isValid) => {
    const decoded = decode(`{"good":1,"${key}":{"x":2}}`)
    expect(decoded).toMatchObject({
      points: isValid ? [{ key: 'good' }, {}] : [{ key: 'good' }],
      rejects: isValid ? [] : [{ code: 'KEY_INVALID' }],
    })
  })

  it('the key in a reject can be stored and shown', () => {
    expect(decode('{"a\\u0000\\ud800b":1}')).toMatchObject({ rejects: [{ key: 'a\ufffd\ufffdb' }] })
  })

  it('a value keeps nothing of the payload alive or changeable', () => {
    const payload = Buffer.from('{"key-of-some-length":"a value of some length"}')
    const decoded = decode(payload)
    payload.fill(0x20)
    expect(decoded).toMatchObject({ points: [{ key: 'key-of-some-length', value: 'a value of some length' }] })
  })
})

describe('attributes', () => {
  const attributes = (payload: string, rules: Partial<PayloadRules> = {}) =>
    decodeAttributes(Buffer.from(payload), { ...defaultPayloadRules, ...rules })

  it('[A-1] takes one object of values', () => {
    expect(attributes('{"a":1,"b":"x","c":null,"d":{"e":[1]},"f":"7"}')).toEqual({
      attributes: [
        { kind: 'integer', value: 1, key: 'a' },
        { kind: 'string', value: 'x', key: 'b' },
        { kind: 'json', value: '{"e":[1]}', key: 'd' },
        { kind: 'integer', value: 7, key: 'f' },
      ],
      rejects: [],
      nulls: ['c'],
    })
    expect(attributes('{}')).toEqual({ attributes: [], rejects: [], nulls: [] })
    expect(attributes('{"ts":5}')).toMatchObject({ attributes: [{ key: 'ts' }] })
    expect(attributes('{"values":{"a":1}}')).toMatchObject({ attributes: [{ key: 'values', kind: 'json' }] })
  })

  it('[A-1] refuses arrays, ts wrappers and scalars', () => {
    for (const payload of ['[]', '[{"a":1}]', '5', '"x"', 'null', '{"ts":1763000000000,"values":{"a":1}}', '{"values":1,"ts":2}']) {
      expect(attributes(payload)).toMatchObject({ refused: { code: 'SHAPE_INVALID' } })
    }
    expect(attributes('{"a":')).toMatchObject({ refused: { code: 'PAYLOAD_MALFORMED' } })
    expect(attributes('{"a":1,"a":2}', { duplicateKeys: 'reject' })).toMatchObject({ refused: { code: 'DUPLICATE_KEY' } })
  })

  it('rejects single values', () => {
    expect(attributes('{"good":1,"bad":1e400,"":2}')).toMatchObject({
      attributes: [{ key: 'good' }],
      rejects: [
        { code: 'VALUE_NOT_FINITE', key: 'bad' },
        { code: 'KEY_INVALID', key: '' },
      ],
    })
  })
})
