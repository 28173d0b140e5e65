// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { ExactInteger, formatExact, hasRoundedInteger, parseExact } from './exact-json.ts'

describe('exact JSON', () => {
  it.each([
    '{"a":9007199254740993,"b":[-9223372036854775808,1]}',
    '[1,2.5,"9007199254740993",true,null,{}]',
    '"text with \\"9007199254740993\\" inside"',
    '{"a\\"9007199254740993":1e20,"list":[]}',
  ])('gives %s back as it was', (text) => {
    expect(formatExact(parseExact(text))).toBe(text.replace('1e20', '100000000000000000000'))
  })

  it('keeps the digits of integers beyond 2^53, and numbers of the rest', () => {
    expect(parseExact('[9007199254740993,9007199254740992,1234567890123456,0.12345678901234567]')).toEqual([
      new ExactInteger('9007199254740993'),
      new ExactInteger('9007199254740992'),
      1234567890123456,
      Number('0.12345678901234567'),
    ])
  })

  it('leaves a text that looks like its own mark a text', () => {
    expect(parseExact('["exact-integer:5",9007199254740993]')).toEqual(['exact-integer:5', Number('9007199254740993')])
  })

  it('indents for people', () => {
    expect(formatExact(parseExact('{"a":[9007199254740993],"b":{}}'), 2)).toBe('{\n  "a": [\n    9007199254740993\n  ],\n  "b": {}\n}')
  })

  it('tells integers that would be rounded', () => {
    expect(hasRoundedInteger('{"a":9007199254740993}')).toBe(true)
    expect(hasRoundedInteger('{"a":"9007199254740993","b":1.5e300}')).toBe(false)
  })
})
