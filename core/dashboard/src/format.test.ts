// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { formatCsv, formatNumber, formatValue, guardCell, missing, splitDuration, unguardCell } from './format.ts'

describe('numbers and values', () => {
  it.each([
    [12_400, undefined, '12,400'],
    [25.123456, undefined, '25.1235'],
    [0.000123456, undefined, '0.0001235'],
    [25, 1, '25.0'],
    [-0.05, 1, '-0.1'],
    [Number.NaN, undefined, missing],
    [Number.POSITIVE_INFINITY, 2, missing],
  ])('formats %s with %s decimals as %s', (value, decimals, text) => {
    expect(formatNumber(value, 'zh', decimals)).toBe(text)
    expect(formatNumber(value, 'en', decimals)).toBe(text)
  })

  it.each([
    [25.06, 'double', { unit: '°C', decimals: 1 }, '25.1\u2009°C'],
    ['9007199254740993', 'integer', {}, '9,007,199,254,740,993'],
    ['12', 'string', { unit: '°C' }, '12'],
    [true, 'boolean', { yes: '是' }, '是'],
    [{ a: [1] }, 'json', {}, '{"a":[1]}'],
    [null, undefined, {}, missing],
    [undefined, undefined, {}, missing],
  ])('shows %j of kind %s', (value, kind, style, text) => {
    expect(formatValue(value, kind, 'zh', style)).toBe(text)
  })

  it.each([
    [600_000, { count: 10, unit: 'minute' }],
    [86_400_000, { count: 1, unit: 'day' }],
    [90_000, { count: 90, unit: 'second' }],
    [7_200_000, { count: 2, unit: 'hour' }],
  ])('splits %s ms into the largest whole unit', (ms, parts) => {
    expect(splitDuration(ms)).toEqual(parts)
  })
})

describe('cells of spreadsheet files [D-104]', () => {
  it.each([
    ['=1+1', "'=1+1"],
    ['+cmd', "'+cmd"],
    ['-2+3', "'-2+3"],
    ['@SUM(A1)', "'@SUM(A1)"],
    ['\t=1', "'\t=1"],
    ['\rx', "'\rx"],
    ["'=1", "''=1"],
    ["''@x", "'''@x"],
    ['plain', 'plain'],
    ["it's", "it's"],
    ["'quoted'", "'quoted'"],
    ['', ''],
  ])('guards %j', (text, guarded) => {
    expect(guardCell(text)).toBe(guarded)
    expect(unguardCell(guarded)).toBe(text)
  })

  it('quotes text, guards formulas and leaves numbers and booleans alone', () => {
    expect(
      formatCsv([
        ['名称', 'a"b'],
        ['=1', -5],
        [true, null],
      ]),
    ).toBe('\uFEFF"名称","a""b"\r\n"\'=1",-5\r\ntrue,\r\n')
  })
})
