// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import type { TypedValue } from './points.ts'
import { isBeyondJsonNumbers, toCompatJsonText, toCsvCell, toJsonText, toJsonValue } from './values.ts'

/** [value, native, compat strings, compat strict, CSV] */
const cases: [TypedValue, string, string, string, string][] = [
  [{ kind: 'double', value: 42 }, '42', '"42.0"', '42', '42'],
  [{ kind: 'double', value: 21.5 }, '21.5', '"21.5"', '21.5', '21.5'],
  [{ kind: 'double', value: -0.1 }, '-0.1', '"-0.1"', '-0.1', '-0.1'],
  [{ kind: 'double', value: -3 }, '-3', '"-3.0"', '-3', '-3'],
  [{ kind: 'double', value: 1e25 }, '1e+25', '"1e+25"', '1e+25', '1e+25'],
  [{ kind: 'double', value: 5e-324 }, '5e-324', '"5e-324"', '5e-324', '5e-324'],
  [
    { kind: 'double', value: 0.30000000000000004 },
    '0.30000000000000004',
    '"0.30000000000000004"',
    '0.30000000000000004',
    '0.30000000000000004',
  ],
  [{ kind: 'double', value: Infinity }, 'null', 'null', 'null', ''],
  [{ kind: 'integer', value: 73 }, '73', '"73"', '73', '73'],
  [{ kind: 'integer', value: -9007199254740991 }, '-9007199254740991', '"-9007199254740991"', '-9007199254740991', '-9007199254740991'],
  [{ kind: 'integer', value: 9007199254740993n }, '"9007199254740993"', '"9007199254740993"', '9007199254740993', '9007199254740993'],
  [
    { kind: 'integer', value: -9223372036854775808n },
    '"-9223372036854775808"',
    '"-9223372036854775808"',
    '-9223372036854775808',
    '-9223372036854775808',
  ],
  [{ kind: 'boolean', value: true }, 'true', '"true"', 'true', 'true'],
  [{ kind: 'string', value: '=1,"x"' }, '"=1,\\"x\\""', '"=1,\\"x\\""', '"=1,\\"x\\""', '"\'=1,""x"""'],
  [
    { kind: 'json', value: '{"a":[1.0,9007199254740993]}' },
    '{"a":[1.0,9007199254740993]}',
    '"{\\"a\\":[1.0,9007199254740993]}"',
    '{"a":[1.0,9007199254740993]}',
    '"{""a"":[1.0,9007199254740993]}"',
  ],
]

describe('a value in an answer', () => {
  it.each(cases)('%o is %s natively, %s and %s in compatibility answers, %s in CSV', (value, native, compat, strict, csv) => {
    expect(toJsonText(value)).toBe(native)
    expect(toCompatJsonText(value, false)).toBe(compat)
    expect(toCompatJsonText(value, true)).toBe(strict)
    expect(toCsvCell(value)).toBe(csv)
  })

  it('is the same as a member of a larger answer', () => {
    for (const [value, native] of cases) expect(JSON.stringify(toJsonValue(value))).toBe(native)
    const hostile: TypedValue = { kind: 'json', value: '{"__proto__":{"x":1},"constructor":2}' }
    expect(JSON.stringify(toJsonValue(hostile))).toBe(hostile.value)
  })

  it('is marked when it is an integer that JSON numbers cannot hold', () => {
    expect(isBeyondJsonNumbers({ kind: 'integer', value: 2n ** 53n })).toBe(true)
    expect(isBeyondJsonNumbers({ kind: 'integer', value: 2 ** 53 - 1 })).toBe(false)
    expect(isBeyondJsonNumbers({ kind: 'double', value: 1e300 })).toBe(false)
  })
})
