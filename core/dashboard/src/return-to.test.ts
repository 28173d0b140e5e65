// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { readReturnTo } from './return-to.ts'

describe('the target after signing in [SC-48]', () => {
  it.each([
    ['/devices?state=online#x', '/devices?state=online#x'],
    ['/', '/'],
    ['//evil.example/', '/'],
    ['/\\evil.example', '/'],
    ['https://evil.example/', '/'],
    ['/%2F%2Fevil.example', '/%2F%2Fevil.example'],
    ['/../../admin', '/'],
    ['/https://evil.example', '/'],
    ['/a\u0000b', '/'],
    ['/a\tb', '/'],
    ['javascript:alert(1)', '/'],
    [undefined, '/'],
    [['/devices'], '/'],
  ])('is read from %j as %s', (text, target) => {
    expect(readReturnTo(text, new URL('https://site.example/iot/'))).toBe(target)
  })
})
