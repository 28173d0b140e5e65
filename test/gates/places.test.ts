// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { checkPlaces } from './places.ts'

const found = (text: string, path = 'core/src/a.ts') => checkPlaces([{ path, text }]).map((one) => one.message)

describe('the search for places', () => {
  it('finds folders of a person or a build machine', () => {
    expect(found(`see ${['', 'home', 'anna', 'x'].join('/')}`)).toHaveLength(1)
    expect(found(`'${['', 'Users', 'anna'].join('/')}'`)).toHaveLength(1)
    expect(found(['C:', 'Users', 'anna'].join('\\'))).toHaveLength(1)
    expect(found('/var/lib/iot-pms, /root, https://example.com/home/page and core/work/list')).toEqual([])
  })

  it('finds registries', () => {
    expect(found(`https://${'registry'}.example.com/pkg`)).toHaveLength(1)
    expect(found(['registry', 'npmjs', 'org'].join('.'))).toHaveLength(1)
    expect(found('the device registry. It knows')).toEqual([])
    expect(found('registry.find(id); registry.devices.size')).toEqual([])
  })

  it('finds references to files beside the checkout', () => {
    expect(found("import x from '../../migrations/a.ts'")).toEqual([])
    expect(found("import x from '../../../notes/a.ts'")).toEqual([expect.stringContaining('out of the repository')])
    expect(found('see ../notes', 'README.md')).toHaveLength(1)
    expect(found("get('../../../../etc/passwd')", 'core/src/a.test.ts')).toEqual([])
  })
})
