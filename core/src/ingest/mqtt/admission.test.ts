// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { Refusals, TokenBucket } from './admission.ts'
import { defaultMqttLimits } from './limits.ts'

describe('token bucket', () => {
  it('is full at the start and refilled continuously', () => {
    const bucket = new TokenBucket(3, 2, 0)
    expect([bucket.take(0), bucket.take(0), bucket.take(0), bucket.take(0)]).toEqual([true, true, true, false])
    expect([bucket.take(499), bucket.take(501), bucket.take(502)]).toEqual([false, true, false])
    expect(Array.from({ length: 4 }, () => bucket.take(60_000))).toEqual([true, true, true, false])
  })
})

describe('refusals', () => {
  it('[M-11] the 31st within 60 s is delayed, per address', () => {
    const refusals = new Refusals(defaultMqttLimits)
    const delayed = Array.from({ length: 32 }, (_, index) => refusals.add('a', index * 100))
    expect(delayed.lastIndexOf(false)).toBe(29)
    expect(refusals.add('b', 3_200)).toBe(false)
    expect(refusals.add('a', 60_000)).toBe(true)
    expect(refusals.add('a', 130_000)).toBe(false)
  })

  it('[RE-50] remembers a bounded number of addresses', () => {
    const refusals = new Refusals(defaultMqttLimits)
    for (let index = 0; index < 10_000; index++) refusals.add(`10.0.${index}`, index)
    expect(refusals.addresses).toBe(4_096)
  })
})
