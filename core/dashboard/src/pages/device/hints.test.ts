// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { readHint } from './hints.ts'

describe('what a device has announced of a key', () => {
  it('is its title and unit', () => {
    const value = { title: { zh: '温度', en: 'Temperature' }, unit: '°C', id: 'sensor/t', topic: 'a/t', path: [] }
    expect(readHint({ key: 'model.t', value })).toEqual([['t', { title: { zh: '温度', en: 'Temperature' }, unit: '°C' }]])
    expect(readHint({ key: 'model.__proto__', value: { unit: 'V' } })).toEqual([['__proto__', { unit: 'V' }]])
  })

  it.each([
    ['other', { unit: 'V' }],
    ['model.a', 5],
    ['model.a', null],
    ['model.a', { title: 'no object', unit: 7 }],
    ['model.a', { unit: 'x'.repeat(33) }],
  ])('is nothing in %s = %j', (key, value) => {
    expect(readHint({ key, value })).toBeUndefined()
  })
})
