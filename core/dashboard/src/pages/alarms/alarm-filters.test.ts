// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { readAlarmFilters, readView } from './alarm-filters.ts'

it('begins with what is active and waits for somebody [D-83]', () => {
  expect(readAlarmFilters({})).toEqual({ status: 'active', acked: false })
  expect(readView({ view: 'nonsense' })).toBe('open')
  expect(readAlarmFilters({ view: 'all' })).toEqual({})
})

it('takes from the address what the API takes, and nothing else', () => {
  const id = '01a2004f-981b-76d1-bc03-6f97ae89ed85'
  expect(readAlarmFilters({ view: 'recovered', severity: 'major', deviceId: id, ruleId: 'x', q: '冷库', type: '' })).toEqual({
    status: 'cleared',
    acked: false,
    severity: 'major',
    deviceId: id,
    q: '冷库',
  })
  expect(readAlarmFilters({ view: 'all', severity: 'fatal' })).toEqual({})
})
