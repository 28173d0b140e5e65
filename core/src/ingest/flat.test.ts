// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { decodeTelemetry } from './codecs.ts'
import { readFlat } from './flat.ts'
import { defaultPayloadRules } from './registry.ts'

const receivedAt = 1_790_000_000_000
const read = (text: string) => readFlat(Buffer.from(text, 'latin1'))
/** White space after the message leaves its meaning alone, and only the full codec takes it. */
const decodeFully = (text: string, rules = defaultPayloadRules) =>
  decodeTelemetry(Buffer.from(`${text} `, 'latin1'), rules, { lastServerTs: 0 }, receivedAt)
const decode = (text: string, rules = defaultPayloadRules) =>
  decodeTelemetry(Buffer.from(text, 'latin1'), rules, { lastServerTs: 0 }, receivedAt)

describe('the short way for flat messages', () => {
  it.each([
    ['{"temperature":21.5,"humidity":60}', 2],
    ['{"temperature": 21.5, "on": true, "off": false}', 3],
    ['{"a":-0,"b":-12.25,"c":0.1,"d":999999999999999,"e":123456789.012345}', 5],
    ['{"battery level %":1,"a/b~c":2}', 2],
  ])('reads %s', (text, count) => {
    expect(read(text)).toHaveLength(count)
    expect(decode(text)).toEqual(decodeFully(text))
  })

  it.each([
    '',
    '{',
    '{}',
    '{"a":1',
    '{"a":1}}',
    '{"a":1,}',
    '{"a":1 }',
    '{ "a":01}',
    '{"a":-}',
    '{"a":1.}',
    '{"a":.5}',
    '{"a":1e3}',
    '{"a":tru}',
    '{"a":falsy}',
    '{"a":null}',
    '{"a":"1"}',
    '{"a":1234567890123456}',
    '{"a":1,"a":2}',
    '{"ts":1700000000000,"values":{"a":1}}',
    '{"ts":1}',
    '{"values":1}',
    '{"":1}',
    '{"a\\u0041":1}',
    '{"a\u007f":1}',
    '{"a\u00e4":1}',
    "{'a':1}",
    '{a:1}',
    '[{"a":1}]',
    `{"${'k'.repeat(256)}":1}`,
    `{${Array.from({ length: 17 }, (_, index) => `"k${index}":1`).join()}}`,
  ])('leaves %s to the full codec', (text) => {
    expect(read(text)).toBeUndefined()
  })

  it('reads what the full codec reads, and nothing that it refuses', () => {
    const random = mulberry(20_261_121)
    const parts = [
      '{',
      '}',
      '"',
      ':',
      ',',
      ' ',
      '.',
      '-',
      '0',
      '1',
      '7',
      '25',
      'e5',
      'true',
      'false',
      'null',
      '"a"',
      '"b"',
      '"ts"',
      '"values"',
      '\\',
      '\u00e4',
      '\t',
    ]
    const pick = () => parts[Math.floor(random() * parts.length)]!
    const value = () => ['1', '-2.5', '0', '-0', '0.125', 'true', 'false', '12345678901234567', '1e3'][Math.floor(random() * 9)]!
    let short = 0
    for (let round = 0; round < 60_000; round++) {
      const members = Array.from(
        { length: 1 + Math.floor(random() * 4) },
        () => `"${'abcdef'[Math.floor(random() * 6)]}":${random() < 0.2 ? ' ' : ''}${value()}`,
      )
      let text = `{${members.join(random() < 0.2 ? ', ' : ',')}}`
      if (random() < 0.7) {
        const at = Math.floor(random() * text.length)
        text = text.slice(0, at) + pick() + text.slice(at + Math.floor(random() * 3))
      }
      if (read(text) === undefined) continue
      short++
      for (const rules of [defaultPayloadRules, { ...defaultPayloadRules, json: 'strict', duplicateKeys: 'reject' } as const]) {
        const full = decodeFully(text, rules)
        if (JSON.stringify(decode(text, rules)) !== JSON.stringify(full)) expect(decode(text, rules), text).toEqual(full)
      }
    }
    expect(short).toBeGreaterThan(5_000)
  })
})

/** A small generator of random numbers with a seed, by Tommy Ettinger (public domain). */
function mulberry(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
