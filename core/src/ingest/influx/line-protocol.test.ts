// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { parseLines } from './line-protocol.ts'
import type { InfluxLine } from './line-protocol.ts'

const parse = (text: string) => [...parseLines(text)]
/** The only line of a text as one short list. */
function parseOne(text: string): unknown[] {
  const [line, ...more] = parse(text)
  expect(more, text).toEqual([])
  if (!line || !('fields' in line)) throw new Error(`${text}: ${line?.detail}`)
  return [
    line.measurement,
    Object.fromEntries(line.tags),
    Object.fromEntries(line.fields.map(([key, { value }]) => [key, value])),
    line.time,
  ]
}

describe('a line of line protocol', () => {
  it.each([
    ['cpu value=1', ['cpu', {}, { value: 1 }, undefined]],
    ['cpu,host=a value=1.5 1700000000000000000', ['cpu', { host: 'a' }, { value: 1.5 }, 1_700_000_000_000_000_000n]],
    [
      'm a=1i,b=-9223372036854775808i,c=9007199254740993i',
      ['m', {}, { a: 1, b: -9_223_372_036_854_775_808n, c: 9_007_199_254_740_993n }, undefined],
    ],
    ['m a=1u,b=18446744073709551615u', ['m', {}, { a: 1, b: '18446744073709551615' }, undefined]],
    ['m a=1.,b=.5,c=-1.25e-3,d=1E+3,e=-0', ['m', {}, { a: 1, b: 0.5, c: -0.00125, d: 1000, e: 0 }, undefined]],
    ['m a=t,b=True,c=FALSE,d=f,e=true', ['m', {}, { a: true, b: true, c: false, d: false, e: true }, undefined]],
    ['m s="a b,c=d"', ['m', {}, { s: 'a b,c=d' }, undefined]],
    [String.raw`m s="say \"hi\" \\ \n"`, ['m', {}, { s: String.raw`say "hi" \ \n` }, undefined]],
    ['m s="two\nlines",b=2 5', ['m', {}, { s: 'two\nlines', b: 2 }, 5n]],
    ['m s="" -5', ['m', {}, { s: '' }, -5n]],
    [String.raw`my\ disk\,x,a\ b=c\=d\,e f\ g=1`, ['my disk,x', { 'a b': 'c=d,e' }, { 'f g': 1 }, undefined]],
    [String.raw`c:\temp,path=C:\Users v=1`, [String.raw`c:\temp`, { path: String.raw`C:\Users` }, { v: 1 }, undefined]],
    ['温度,位置=一楼 值=21.5 1', ['温度', { 位置: '一楼' }, { 值: 21.5 }, 1n]],
    ['  m v=1  7  \r\n', ['m', {}, { v: 1 }, 7n]],
    ['# comment\n\n\t\r\nm v=1\n# end', ['m', {}, { v: 1 }, undefined]],
  ])('reads %j', (text, expected) => {
    expect(parseOne(text)).toEqual(expected)
  })

  it('keeps the kinds apart: a bare number is a double, one with i or u an integer', () => {
    const [line] = parse('m a=1,b=1i,c=1u,d="1"') as [InfluxLine]
    expect(line.fields.map(([, { kind }]) => kind)).toEqual(['double', 'integer', 'integer', 'string'])
  })

  it.each([
    ['m', 'missing fields'],
    [',a=b v=1', 'missing measurement'],
    ['m,a v=1', 'missing tag value'],
    ['m,a= v=1', 'missing tag value'],
    ['m,=b v=1', 'missing tag value'],
    ['m,a=b', 'missing fields'],
    ['m v', 'missing field value'],
    ['m =1', 'missing field value'],
    ['m v=', 'invalid value ""'],
    ['m v=1,', 'missing field value'],
    ['m v=yes', 'invalid value "yes"'],
    ['m v=NaN', 'invalid value "NaN"'],
    ['m v=+1', 'invalid value "+1"'],
    ['m v=1.5i', 'invalid value "1.5i"'],
    ['m v=0x1', 'invalid value "0x1"'],
    ['m v=1e999', 'the number is too large for a double'],
    ['m v=9223372036854775808i', 'the integer is out of range'],
    ['m v=-1u', 'the integer is out of range'],
    ['m v="open', 'unbalanced quotes'],
    ['m v="a"b', 'bad timestamp'],
    ['m v=1 soon', 'bad timestamp'],
    ['m v=1 9999999999999999999', 'bad timestamp'],
    ['m v=1 5 6', 'text after the timestamp'],
  ])('refuses %j: %s', (text, detail) => {
    expect(parse(text)).toEqual([{ no: 1, detail: text === 'm v="a"b' ? 'bad timestamp' : detail, text }])
  })

  it('goes on behind a bad line, and counts the lines as the sender does', () => {
    const text = '# first\na v=1\nb v="x\ny"\nbad\nc v="open\nd v=2\n'
    expect(parse(text).map((line) => [line.no, 'fields' in line ? line.measurement : line.detail])).toEqual([
      [2, 'a'],
      [3, 'b'],
      [5, 'missing fields'],
      [6, 'unbalanced quotes'],
      [7, 'd'],
    ])
  })

  it('reads back 100,000 random lines, and survives as many broken ones', () => {
    const random = createRandom(20_261_121)
    const lines = Array.from({ length: 100_000 }, () => randomLine(random))
    let at = 0
    for (const line of parseLines(lines.map(format).join('\n'))) {
      const { no: _, ...read } = line as InfluxLine
      if (at % 97 === 0 || !('fields' in line)) expect(read).toEqual(lines[at])
      else if (JSON.stringify(read, plain) !== JSON.stringify(lines[at], plain)) expect(read).toEqual(lines[at])
      at++
    }
    expect(at).toBe(lines.length)
    let results = 0
    for (const line of lines) {
      const text = format(line)
      const place = Math.floor(random() * text.length)
      const broken = text.slice(0, place) + ' ,="\\\n\r#\0é'[Math.floor(random() * 10)] + text.slice(place + Math.floor(random() * 3))
      for (const read of parseLines(broken)) if ('fields' in read || read.detail) results++
    }
    expect(results).toBeGreaterThan(lines.length / 2)
  }, 60_000)
})

const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value)

type Random = () => number

/** mulberry32: the same lines in every run. */
function createRandom(seed: number): Random {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const letters = ['a', 'Z', '0', '_', '.', '-', ' ', ',', '=', '"', '温', '/', '#']

function randomLine(random: Random): Omit<InfluxLine, 'no'> {
  const count = (most: number) => Math.floor(random() * (most + 1))
  const name = () => `n${Array.from({ length: count(6) }, () => letters[count(letters.length - 1)]).join('')}`
  const value = (): InfluxLine['fields'][number][1] => {
    switch (count(3)) {
      case 0:
        return { kind: 'double', value: (random() - 0.5) * 10 ** (count(40) - 20) }
      case 1:
        return { kind: 'integer', value: count(2 ** 40) - 2 ** 39 }
      case 2:
        return { kind: 'boolean', value: random() < 0.5 }
      default:
        return { kind: 'string', value: `${name()}${random() < 0.1 ? '\n' : ''}${random() < 0.2 ? '\\' : ''}` }
    }
  }
  return {
    measurement: name(),
    tags: Array.from({ length: count(3) }, () => [name(), name()]),
    fields: Array.from({ length: 1 + count(3) }, () => [name(), value()]),
    time: random() < 0.2 ? undefined : BigInt(count(2 ** 52)),
  }
}

function format({ measurement, tags, fields, time }: Omit<InfluxLine, 'no'>): string {
  const escape = (name: string) => name.replaceAll(/[,= ]/g, (char) => `\\${char}`)
  const shown = ({ kind, value }: InfluxLine['fields'][number][1]) => {
    if (kind === 'integer') return `${value}i`
    return kind === 'string' ? `"${value.replaceAll(/["\\]/g, (char) => `\\${char}`)}"` : String(value)
  }
  const head = [escape(measurement), ...tags.map(([key, value]) => `${escape(key)}=${escape(value)}`)].join(',')
  const body = fields.map(([key, value]) => `${escape(key)}=${shown(value)}`).join(',')
  return `${head} ${body}${time === undefined ? '' : ` ${time}`}`
}
