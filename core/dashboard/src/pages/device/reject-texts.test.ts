// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import type { Product } from '../../api/types.ts'
import { fixOf, settingOf } from './reject-texts.ts'

const product = (json: 'relaxed' | 'strict') => ({ id: 'p', payload: { json } }) as Product

describe('what was refused', () => {
  it('leads to the setting that would accept it, and to none when no setting would', () => {
    expect(settingOf('TS_SECONDS', product('relaxed'))).toBe('/products/p/payload#timestampUnit')
    expect(settingOf('RATE_LIMITED', product('relaxed'))).toBe('/products/p/limits')
    expect(settingOf('PAYLOAD_MALFORMED', product('strict'))).toBe('/products/p/payload#json')
    expect(settingOf('PAYLOAD_MALFORMED', product('relaxed'))).toBeUndefined()
    expect(settingOf('VALUE_TOO_LARGE', product('relaxed'))).toBeUndefined()
  })

  it('leads to the connectors when their mapping refused it', () => {
    expect(settingOf('TOPIC_UNKNOWN', product('relaxed'), 'connector')).toBe('/connectors')
    expect(fixOf('TOPIC_UNKNOWN', 'connector')).toBe('reject.fix.connector')
    expect(settingOf('TS_FUTURE', product('relaxed'), 'connector')).toBe('/products/p/payload#maxFutureMs')
    expect(fixOf('TOPIC_UNKNOWN', 'mqtt')).toBe('reject.fix.TOPIC_UNKNOWN')
  })
})
