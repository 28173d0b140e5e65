// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { guardCell, textCell, unguardCell } from './csv.ts'

/** Shared with the dashboard's own pair of functions: [text, guarded]. */
const cases = [
  ['plain', 'plain'],
  ['', ''],
  ['=1+1', "'=1+1"],
  ['+8613800000000', "'+8613800000000"],
  ['-5', "'-5"],
  ['@SUM(A1)', "'@SUM(A1)"],
  ['\tx', "'\tx"],
  ['\rx', "'\rx"],
  ["'=1", "''=1"],
  ["''+", "'''+"],
  ["'quoted'", "'quoted'"],
  ["'", "'"],
  [' =1', ' =1'],
  ['温度', '温度'],
  ['\n=1', '\n=1'],
] as const

describe('the formula guard', () => {
  it.each(cases)('writes %j as %j and takes it back', (text, guarded) => {
    expect(guardCell(text)).toBe(guarded)
    expect(unguardCell(guarded)).toBe(text)
  })

  it('gives back every text after export and import', () => {
    const likely = fc.string({ unit: fc.constantFrom("'", '=', '+', '-', '@', '\t', '\r', '\n', 'a', '"', ',') })
    fc.assert(fc.property(fc.oneof(likely, fc.string({ unit: 'binary' })), (text) => unguardCell(guardCell(text)) === text))
  })

  it('never lets a cell begin like a formula', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom("'", '=', '+', '-', '@', '\t', '\r', 'a') }),
        (text) => !/^[=+\-@\t\r]/.test(guardCell(text)),
      ),
    )
  })
})

describe('a text cell', () => {
  it('is quoted with its quotes doubled, after the guard', () => {
    expect(textCell('say "hi", now\r\n')).toBe('"say ""hi"", now\r\n"')
    expect(textCell('="x"')).toBe('"\'=""x"""')
    expect(textCell('')).toBe('""')
  })
})
