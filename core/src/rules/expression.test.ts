// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { evaluateExpression, roundHalfAway } from './evaluate-expression.ts'
import { parseExpression } from './expression.ts'
import type { Known } from './values.ts'

const values = new Map<string, Known>([
  ['a', 7],
  ['b', 2],
  ['s', 'Abc'],
  ['yes', true],
  ['nothing', null],
  ['big', 9_007_199_254_740_993n],
  ['a b', 5],
  ['__proto__', 3],
])

function evaluate(text: string): { value: Known; reason?: 'precision' } {
  const parsed = parseExpression(text)
  if ('code' in parsed) throw new Error(`${parsed.code} at ${parsed.offset}`)
  return evaluateExpression(parsed, {
    read: (name) => values.get(name),
    readPrevious: (name) => (name === 'a' ? 6 : undefined),
    readAttribute: (name) => (name === 'ratio' ? 4 : undefined),
    now: Date.UTC(2026, 2, 29, 1, 30),
  })
}

describe('an expression', () => {
  it.each<[string, Known]>([
    ['1 + 2 * 3', 7],
    ['(1 + 2) * 3', 9],
    ['2 ** 3 ** 2', 512],
    ['-2 ** 2', -4],
    ['7 % 4 - -1', 4],
    ['a > b && !(b >= a)', true],
    ['a == 7 ? "on" : "off"', 'on'],
    ["s == 'Abc'", true],
    ['key("a b") + 1', 6],
    ['__proto__ + 0', 3],
    ['prev(a) - a', -1],
    ['attr("ratio") * 2', 8],
    ['attr("missing", 10) * 2', 20],
    ['min(3, a, 1) + max(1, b)', 3],
    ['round(2.675, 2)', 2.68],
    ['round(-2.5)', -3],
    ['clamp(a, 0, 5)', 5],
    ['if(yes, 1, missing)', 1],
    ['coalesce(missing, nothing, 4)', 4],
    ['lower(s) ', 'abc'],
    ['len(s) + num("2.5")', 5.5],
    ['substr(s, 1)', 'bc'],
    ['substr(s, 0, 1)', 'A'],
    ['contains(s, "b")', true],
    ['str(a)', '7'],
    ['bool(b)', true],
    ['bit(6, 1) + bit(-1, 63)', 2],
    ['hour("Europe/Berlin")', 3],
    ['weekday("UTC")', 7],
    ['round(dewPoint(20, 50), 2)', 9.26],
    ['round(haversine(0, 0, 0, 90))', 10_007_557],
    ['big > 9007199254740992', true],
    ['1e3 + .5', 1000.5],
  ])('%s', (text, value) => {
    expect(evaluate(text).value).toEqual(value)
  })

  it.each([
    ['a division by zero', 'a / 0'],
    ['a rest of a division by zero', 'a % 0'],
    ['what was never seen', 'a + missing'],
    ['null', 'a + nothing'],
    ['numbers beyond a double', '1e308 * 10'],
    ['what is no number', 'sqrt(-1)'],
    ['a text in arithmetic', 'a + s'],
    ['two types', 's == 1'],
    ['an unknown side of &&', 'yes && missing'],
    ['an unknown choice', 'missing ? 1 : 2'],
    ['an unknown zone', 'hour("Mars")'],
  ])('is unknown for %s', (_, text) => {
    expect(evaluate(text).value).toBeUndefined()
  })

  it('rounds no exact integer beyond 2⁵³: it is unknown for that reason', () => {
    expect(evaluate('big + 1')).toEqual({ value: undefined, reason: 'precision' })
  })

  it.each([
    ['1 +', 3],
    ['(1', 2],
    ['1 2', 2],
    ['a # b', 2],
    ['min()', 0],
    ['"open', 0],
    ['a ? 1', 5],
    ['1e999', 0],
    ['attr(a)', 0],
  ])('%s is refused where it goes wrong', (text, offset) => {
    expect(parseExpression(text)).toMatchObject({ code: 'EXPR_SYNTAX', offset })
  })

  it('knows no names but its inputs and functions', () => {
    expect(parseExpression('p * k', new Set(['p']))).toMatchObject({ code: 'identifier_unknown', offset: 4 })
    expect(parseExpression('toString()')).toMatchObject({ code: 'identifier_unknown' })
    expect(parseExpression('constructor("x")')).toMatchObject({ code: 'identifier_unknown' })
  })

  it('has bounds of length, of depth and of parts', () => {
    expect(parseExpression(`1${' '.repeat(1000)}`)).toMatchObject({ code: 'expr_too_long' })
    expect(parseExpression(`${'('.repeat(40)}1${')'.repeat(40)}`)).toMatchObject({ code: 'EXPR_SYNTAX' })
    expect(parseExpression(`1${'+1'.repeat(150)}`)).toMatchObject({ code: 'EXPR_SYNTAX' })
    expect(parseExpression('-'.repeat(900) + '1')).toMatchObject({ code: 'EXPR_SYNTAX' })
  })
})

describe('rounding', () => {
  it.each([
    [1.005, 2, 1.01],
    [-1.005, 2, -1.01],
    [1e21, 2, 1e21],
    [1e-7, 3, 0],
    [5, 0, 5],
  ])('%d to %d decimals is %d', (value, digits, rounded) => {
    expect(roundHalfAway(value, digits)).toBe(rounded)
  })
})
