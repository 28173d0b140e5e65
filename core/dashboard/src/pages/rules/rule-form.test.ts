// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { blankRule, fromRule, isComplete, readConstant, toRule } from './rule-form.ts'

const form = { ...blankRule, name: '冷库高温', key: 'temperature', value: '-12', hysteresis: '2' }

it('writes a threshold as one level with its dwell', () => {
  expect(toRule(form)).toEqual({
    kind: 'alarm',
    name: '冷库高温',
    mode: 'on',
    target: { all: true },
    levels: [{ severity: 'major', when: { left: { key: 'temperature' }, op: 'gt', right: -12, hysteresis: 2 }, forMs: 300_000 }],
    actions: [{ on: ['raised', 'cleared'], type: 'notify' }],
  })
})

it.each([
  form,
  { ...form, scope: 'tags' as const, tags: 'cold, north', notifies: false, clearForMs: 60_000, hysteresis: '' },
  { ...form, condition: 'offline' as const, key: '', value: '', hysteresis: '', scope: 'devices' as const, deviceIds: ['a'] },
  { ...form, condition: 'noData' as const, value: '', hysteresis: '', forMs: 900_000 },
  { ...form, op: 'eq' as const, value: '"true"', hysteresis: '', forMs: 0 },
])('reads back what it wrote %#', (one) => {
  expect(fromRule(toRule(one))).toEqual(one)
})

it('keeps what the sentence does not speak of', () => {
  const rule = toRule(form, { labels: { team: 'cold' }, title: { zh: '过高' } })
  expect(rule).toMatchObject({ labels: { team: 'cold' }, title: { zh: '过高' } })
  expect(fromRule(rule)).toEqual(form)
})

it('leaves to JSON what is more than a sentence', () => {
  const rule = toRule(form)
  const [level] = rule['levels'] as Record<string, unknown>[]
  expect(fromRule({ ...rule, levels: [level, level] })).toBeUndefined()
  expect(fromRule({ ...rule, levels: [{ ...level, when: { all: [] } }] })).toBeUndefined()
  expect(fromRule({ ...rule, levels: [{ ...level, repeat: { count: 3, withinMs: 1000 } }] })).toBeUndefined()
  expect(fromRule({ ...rule, target: { tags: ['a'], productIds: ['b'] } })).toBeUndefined()
  expect(fromRule({ ...rule, target: { all: true, exclude: { tags: ['a'] } } })).toBeUndefined()
  expect(fromRule({ ...rule, actions: [{ type: 'webhook', on: ['raised'] }] })).toBeUndefined()
})

it('takes constants for what they look like', () => {
  expect(['80', 'true', 'open', '"80"', '-3.5', ''].map(readConstant)).toEqual([80, true, 'open', '80', -3.5, ''])
})

it('knows when there is enough to save', () => {
  expect([isComplete(form), isComplete({ ...form, key: ' ' }), isComplete({ ...form, scope: 'tags' })]).toEqual([true, false, false])
})
