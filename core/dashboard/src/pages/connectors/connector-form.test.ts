// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { blankRule, formatSelections, fromForm, fromRuleForm, parseSelections, toForm, toRuleForm } from './connector-form.ts'

describe('single values, a line each', () => {
  it('have a path, and a key, a cast, a factor and an offset where they are given', () => {
    expect(
      parseSelections('fPort\n data.t = temperature × 0.1 + -40\n\nrxInfo.0.rssi = rssi\nstate = on :boolean\nn x 2\na.b + 1e3'),
    ).toEqual([
      { path: 'fPort' },
      { path: 'data.t', key: 'temperature', scale: 0.1, offset: -40 },
      { path: 'rxInfo.0.rssi', key: 'rssi' },
      { path: 'state', key: 'on', as: 'boolean' },
      { path: 'n', scale: 2 },
      { path: 'a.b', offset: 1000 },
    ])
  })

  it('come out as they went in', () => {
    const values = [{ path: 'data.t', key: 'temperature', as: 'number' as const, scale: 0.1, offset: -40 }, { path: 'fPort' }]
    expect(parseSelections(formatSelections(values))).toEqual(values)
  })

  it('name the line that is wrong', () => {
    expect(parseSelections('a\n= b')).toEqual({ line: 2 })
    expect(parseSelections('a × warm')).toEqual({ line: 1 })
  })
})

describe('the form of a connector', () => {
  it('keeps a rule as it is', () => {
    const rule = {
      ...blankRule,
      topic: 'a/+',
      members: null,
      omit: ['x', 'y'],
      values: [{ path: 'v' }],
      time: { path: 't', unit: 's' as const },
    }
    expect(fromRuleForm(toRuleForm(rule))).toEqual(rule)
    expect(fromRuleForm(toRuleForm(blankRule))).toEqual(blankRule)
  })

  it('sends no password unless one was typed', () => {
    const form = toForm(undefined)
    expect(fromForm({ ...form, topics: ' a \n\na\nb' })).toMatchObject({ topics: ['a', 'b'] })
    expect(fromForm(form)).not.toHaveProperty('password')
    expect(fromForm({ ...form, password: 'x' })).toMatchObject({ password: 'x' })
  })
})
