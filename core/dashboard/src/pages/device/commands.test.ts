// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { formatWish, isOpen, paramsProblem } from './commands.ts'

describe('a command from the console', () => {
  it('is sent with its parameters as they were typed', () => {
    const wish = { method: 'set "x"', kind: 'twoway', persistent: false, timeoutMs: 10_000, waitForDevice: true } as const
    expect(formatWish({ ...wish, params: ' {"pin": 7.0} ' })).toBe(
      '{"method":"set \\"x\\"","params":{"pin": 7.0},"kind":"twoway","persistent":false,"timeoutMs":10000,"waitForDevice":true}',
    )
    expect(JSON.parse(formatWish({ ...wish, params: '' }))).toMatchObject({ params: null })
  })

  it('has parameters that are JSON which the server reads without rounding', () => {
    expect(paramsProblem('')).toBeUndefined()
    expect(paramsProblem('{"a":[1,"9007199254740993"]}')).toBeUndefined()
    expect(paramsProblem('{a:1}')).toBe('json')
    expect(paramsProblem('[9007199254740993]')).toBe('integer')
  })

  it('can be taken back until it has ended', () => {
    expect(isOpen({ state: 'DELIVERED', kind: 'twoway' })).toBe(true)
    expect(isOpen({ state: 'DELIVERED', kind: 'oneway' })).toBe(false)
    expect(isOpen({ state: 'FAILED', kind: 'twoway' })).toBe(false)
  })
})
