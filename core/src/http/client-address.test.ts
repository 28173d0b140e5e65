// SPDX-License-Identifier: AGPL-3.0-only
import type { IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import { createAddressOf } from './client-address.ts'

const request = (remoteAddress: string | undefined, forwarded?: string) =>
  ({ headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded }, socket: { remoteAddress } }) as unknown as IncomingMessage

describe('the address of a client behind proxies', () => {
  const addressOf = createAddressOf(['10.0.0.0/8', '::1', '192.0.2.1'])

  it.each([
    ['203.0.113.5', undefined, '203.0.113.5'],
    ['::ffff:203.0.113.5', '198.51.100.1', '203.0.113.5'],
    ['10.0.0.1', '198.51.100.1', '198.51.100.1'],
    ['10.0.0.1', '192.0.2.66, 198.51.100.1, 192.0.2.1', '198.51.100.1'],
    ['::1', '2001:db8::7', '2001:db8::7'],
    ['10.0.0.1', '10.0.0.2, 10.0.0.3', '10.0.0.2'],
    ['10.0.0.1', undefined, '10.0.0.1'],
    [undefined, '198.51.100.1', undefined],
  ])('from %s, forwarded for %s, is %s', (remote, forwarded, address) => {
    expect(addressOf(request(remote, forwarded))).toBe(address)
  })

  it('is that of the connection where no proxy is trusted', () => {
    expect(createAddressOf([])(request('203.0.113.5', '198.51.100.1'))).toBe('203.0.113.5')
  })
})
