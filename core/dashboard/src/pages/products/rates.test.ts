// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { areValid, parseRate, toDrafts, toLimits } from './rates.ts'

describe('a rate limit', () => {
  it('is read by the grammar of the server [Q-1]', () => {
    expect(parseRate('20:1,600:60')).toEqual({
      entries: [
        { count: 20, seconds: 1 },
        { count: 600, seconds: 60 },
      ],
    })
    expect(parseRate('20')).toEqual({ problem: 'syntax' })
    expect(parseRate('')).toEqual({ problem: 'syntax' })
    expect(parseRate('1:2678401')).toEqual({ problem: 'syntax' })
    expect(parseRate('20:1,30:1')).toEqual({ problem: 'twice' })
    expect(parseRate('1:1,1:2,1:3,1:4,1:5,1:6')).toEqual({ problem: 'many' })
  })

  it('of a product is inherited, lifted or its own, and stays so', () => {
    const limits = { device: { messages: '20:1', telemetryMessages: '', telemetryDataPoints: null }, gateway: null, gatewayDevice: null }
    const drafts = toDrafts(limits, 'inherit')
    expect(drafts.device).toEqual({
      messages: { mode: 'own', text: '20:1' },
      telemetryMessages: { mode: 'none', text: '' },
      telemetryDataPoints: { mode: 'inherit', text: '' },
    })
    expect(toLimits(drafts, 'inherit').device).toEqual(limits.device)
    expect(toLimits(drafts, 'inherit').gateway).toEqual({ messages: null, telemetryMessages: null, telemetryDataPoints: null })
    expect(areValid(drafts)).toBe(true)
    drafts.gateway.messages = { mode: 'own', text: 'fast' }
    expect(areValid(drafts)).toBe(false)
  })

  it('of the installation is none or its own', () => {
    expect(toLimits(toDrafts({ device: null, gateway: null, gatewayDevice: null }, 'none'), 'none').device).toEqual({
      messages: null,
      telemetryMessages: null,
      telemetryDataPoints: null,
    })
  })
})
