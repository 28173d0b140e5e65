// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { readFilters, readSort } from './filters.ts'

it('takes the filters of an address that the API would take, and leaves out the rest', () => {
  const id = '01a1fdab-64d1-7837-9549-94d637c26fc0'
  expect(
    readFilters({
      q: 'x',
      state: 'online',
      productId: id,
      tag: '冷藏',
      firmware: 'Boiler 1.2',
      disabled: 'true',
      lastSeenBefore: '2026-11-21T00:00:00Z',
      add: '1',
    }),
  ).toEqual({
    q: 'x',
    state: 'online',
    productId: id,
    tag: '冷藏',
    firmware: 'Boiler 1.2',
    disabled: 'true',
    lastSeenBefore: '2026-11-21T00:00:00Z',
  })
  expect(readFilters({ q: ['a', 'b'], state: 'away', productId: '1', disabled: 'yes', lastSeenBefore: 'soon', tag: '' })).toEqual({})
})

it('sorts by what the API can sort by, else newest first', () => {
  expect(readSort({ sort: '-lastActivityAt' })).toBe('-lastActivityAt')
  expect(readSort({ sort: 'price' })).toBe('-createdAt')
})
