// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { checkClaims } from './claims.ts'

const found = (text: string) => checkClaims([{ path: 'README.md', text }])

describe('figures in the README', () => {
  it.each(['100,000 points/s', '每秒 10 万点/秒', '512 MB of memory', '2 bytes per point', '约 2 字节', '3 GiB'])(
    'need a source: %s',
    (text) => {
      expect(found(text)).toHaveLength(1)
      expect(found(`${text} ([measured](docs/benchmarks.md))`)).toEqual([])
    },
  )

  it('are about speed and size only', () => {
    expect(found('port 8080, Node 18, 3 steps, AGPL-3.0, MQTT 3.1.1 and 5')).toEqual([])
  })

  it('cannot be judged without a README', () => {
    expect(checkClaims([])).toHaveLength(1)
  })
})
