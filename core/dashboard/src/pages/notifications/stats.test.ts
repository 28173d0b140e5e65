// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { totalOf } from './stats.ts'

it('adds channels up and counts the success over what ended', () => {
  const row = { accepted: 10, sent: 6, failed: 1, expired: 1, suppressed: 1, open: 1, successRate: 0.75 }
  expect(totalOf([row, row])).toEqual({ accepted: 20, sent: 12, failed: 2, expired: 2, suppressed: 2, open: 2, successRate: 0.75 })
  expect(totalOf([]).successRate).toBeNull()
})
