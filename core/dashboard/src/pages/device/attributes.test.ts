// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { parseExact } from '../../exact-json.ts'
import { agrees, parseDraft, toDraft } from './attributes.ts'

describe('a typed attribute', () => {
  it.each([
    ['number', ' 9223372036854775807 ', '9223372036854775807'],
    ['number', '-1.50', '-1.50'],
    ['number', '1e3', '1e3'],
    ['text', '12', '"12"'],
    ['text', '', '""'],
    ['boolean', 'true', 'true'],
    ['json', '{"a":9007199254740993}', '{"a":9007199254740993}'],
  ] as const)('of type %s and text %j is sent as %s', (type, text, json) => {
    expect(parseDraft({ type, text })).toEqual({ json })
  })

  it.each([
    ['number', '01', 'number'],
    ['number', '', 'number'],
    ['number', '1e999', 'number'],
    ['number', 'NaN', 'number'],
    ['number', '9223372036854775808', 'integer'],
    ['json', '{a:1}', 'json'],
    ['json', 'null', 'null'],
  ] as const)('of type %s and text %j is refused as %s', (type, text, problem) => {
    expect(parseDraft({ type, text })).toEqual({ problem })
  })

  it('comes back for editing with all its digits', () => {
    expect(toDraft({ kind: 'integer', value: '9007199254740993' })).toEqual({ type: 'number', text: '9007199254740993' })
    expect(toDraft({ kind: 'json', value: parseExact('{"a":9007199254740993}') }).text).toBe('{\n  "a": 9007199254740993\n}')
  })

  it('agrees with what is reported by value', () => {
    expect(agrees({ kind: 'integer', value: 5 }, { kind: 'double', value: 5 })).toBe(true)
    expect(agrees({ kind: 'integer', value: '9007199254740993' }, { kind: 'integer', value: '9007199254740992' })).toBe(false)
    expect(agrees({ kind: 'integer', value: 5 }, { kind: 'string', value: '5' })).toBe(false)
    expect(agrees({ kind: 'json', value: { a: 1, b: [2] } }, { kind: 'json', value: { b: [2], a: 1 } })).toBe(true)
  })
})
