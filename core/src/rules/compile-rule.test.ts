// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { compileAlarmRule, compileRule } from './compile-rule.ts'

const leaf = { left: { key: 't' }, op: 'gt', right: 5 }
const level = (when: unknown, more: object = {}) => ({ levels: [{ severity: 'major', when, ...more }] })

function codesOf(logic: unknown): string[] {
  const result = compileRule(logic)
  return 'levels' in result ? [] : result.map(({ pointer, code }) => `${pointer} ${code}`)
}

describe('a rule that makes no sense is refused with', () => {
  it.each<[string, unknown, string[]]>([
    ['an empty list', level({ all: [] }), ['/levels/0/when/all condition_empty']],
    ['too many leaves', level({ any: Array.from({ length: 51 }, () => leaf) }), ['/levels/0/when/any/50 too_many_leaves']],
    [
      'a tree too deep',
      level({ not: { not: { not: { not: { not: { not: { not: { not: leaf } } } } } } } }),
      ['/levels/0/when/not/not/not/not/not/not/not/not too_deep'],
    ],
    ['a text for a number', level({ ...leaf, right: 'hot' }), ['/levels/0/when/right type_mismatch']],
    ['two types of constants', level({ left: { key: 't' }, op: 'in', right: [1, 'a'] }), ['/levels/0/when/right type_mismatch']],
    ['a reversed band', level({ left: { key: 't' }, op: 'between', right: 5, right2: 1 }), ['/levels/0/when/right range_reversed']],
    ['a negative hysteresis', level({ ...leaf, hysteresis: -1 }), ['/levels/0/when/hysteresis hysteresis_invalid']],
    [
      'a hysteresis of eq',
      level({ left: { key: 't' }, op: 'eq', right: 5, hysteresis: 1 }),
      ['/levels/0/when/hysteresis hysteresis_invalid'],
    ],
    [
      'a hysteresis that closes the band',
      level({ left: { key: 't' }, op: 'outside', right: 1, right2: 5, hysteresis: 2 }),
      ['/levels/0/when/hysteresis hysteresis_invalid'],
    ],
    ['a hysteresis that is measured', level({ ...leaf, hysteresis: { key: 'h' } }), ['/levels/0/when/hysteresis hysteresis_invalid']],
    [
      'a dwell beside a repetition',
      level(leaf, { forMs: 1000, repeat: { count: 2, withinMs: 1000 } }),
      ['/levels/0/repeat timing_conflict'],
    ],
    ['a negative dwell', level(leaf, { forMs: -1 }), ['/levels/0/forMs out_of_range']],
    ['a dwell of eight days', level(leaf, { forMs: 691_200_000 }), ['/levels/0/forMs out_of_range']],
    ['a repetition of one', level(leaf, { repeat: { count: 1, withinMs: 1000 } }), ['/levels/0/repeat/count out_of_range']],
    [
      'a window too short',
      level({ ...leaf, left: { agg: 'avg', over: 't', windowMs: 10 } }),
      ['/levels/0/when/left/windowMs out_of_range'],
    ],
    ['a silence too short', level({ noData: { forMs: 9999 } }), ['/levels/0/when/noData/forMs out_of_range']],
    ['no severity', { levels: [{ when: leaf }] }, ['/levels/0/severity severity_missing']],
    [
      'one severity twice',
      {
        levels: [
          { severity: 'major', when: leaf },
          { severity: 'major', when: leaf },
        ],
      },
      ['/levels/1/severity duplicate_severity'],
    ],
    [
      'an unknown zone',
      { ...level(leaf), schedule: { zone: 'Mars/Base', windows: [{ days: ['mon'], from: '08:00', to: '09:00' }] } },
      ['/schedule/zone zone_unknown'],
    ],
    ['no windows', { ...level(leaf), schedule: { zone: 'UTC', windows: [] } }, ['/schedule/windows window_empty']],
    [
      'a window of nothing',
      { ...level(leaf), schedule: { zone: 'UTC', windows: [{ days: ['mon'], from: '08:00', to: '08:00' }] } },
      ['/schedule/windows/0 window_empty'],
    ],
    ['an unknown leaf', level({ ext: 'vehicle.geofence', params: {} }), ['/levels/0/when leaf_unknown']],
    ['an unknown operator', level({ ...leaf, op: '>' }), ['/levels/0/when/op operator_unknown']],
    ['an expression that breaks off', level({ ...leaf, left: { expr: 't +' } }), ['/levels/0/when/left/expr EXPR_SYNTAX']],
    ['an unknown function', level({ ...leaf, left: { expr: 'eval(t)' } }), ['/levels/0/when/left/expr identifier_unknown']],
    ['an expression too long', level({ ...leaf, left: { expr: 't + '.repeat(300) } }), ['/levels/0/when/left/expr expr_too_long']],
    ['a member nobody knows', level({ ...leaf, hysteresys: 2 }), ['/levels/0/when/hysteresys unknown_property']],
    ['a member of a level nobody knows', level(leaf, { for: 2 }), ['/levels/0/for unknown_property']],
    ['no operand', level({ op: 'gt', right: 5 }), ['/levels/0/when/left operand_missing']],
    ['a condition that is none', level([]), ['/levels/0/when invalid']],
  ])('%s', (_, logic, codes) => {
    expect(codesOf(logic)).toEqual(codes)
  })

  it('every problem at once', () => {
    const logic = { levels: [{ when: { all: [] }, forMs: -1 }], clear: { forMs: 1.5 } }
    expect(codesOf(logic)).toEqual([
      '/levels/0/when/all condition_empty',
      '/levels/0/forMs out_of_range',
      '/levels/0/severity severity_missing',
      '/clear/forMs out_of_range',
    ])
  })
})

describe('the document of an alarm rule', () => {
  const document = { kind: 'alarm', name: 'Cold store', target: { all: true }, ...level(leaf) }
  const problemsOf = (more: object) => {
    const result = compileAlarmRule({ ...document, ...more })
    return 'compiled' in result ? [] : result.map(({ pointer, code }) => `${pointer} ${code}`)
  }

  it('is taken with a target and a level', () => {
    expect(problemsOf({})).toEqual([])
    expect(problemsOf({ labels: { team: 'cold' }, title: { en: 'Hot' }, reopenWithinMs: 60_000 })).toEqual([])
  })

  it('is refused without a target, with reserved labels, and with an empty title', () => {
    expect(problemsOf({ target: {} })).toEqual(['/target RULE_TARGET_EMPTY'])
    expect(problemsOf({ target: { all: true, tags: ['a'] } })).toEqual(['/target/all target_conflict'])
    expect(problemsOf({ labels: { severity: 'x', tag_a: 'y', Bad: 'z' }, title: {} })).toEqual([
      '/labels/severity label_reserved',
      '/labels/tag_a label_reserved',
      '/labels/Bad label_invalid',
      '/title title_empty',
    ])
  })

  it('may read keys that are named like members of every object', () => {
    const odd = {
      any: [
        { ...leaf, left: { key: '__proto__' } },
        { ...leaf, left: { expr: 'key("constructor") + 1' } },
      ],
    }
    expect(problemsOf(level(odd))).toEqual([])
  })
})
