// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { checkAgplText, checkLicences, checkPackageLicences, parseReuse } from './licences.ts'

// Split, so that this file has one header only.
const tag = ['SPDX-License', 'Identifier:'].join('-')
const agpl = `// ${tag} AGPL-3.0-only\n`
const commercial = `// ${tag} LicenseRef-IoT-PMS-Commercial\n`
const table = parseReuse(`version = 1
# a comment
[[annotations]]
path = ["**/*.json", "*.txt"]
SPDX-FileCopyrightText = "somebody"
SPDX-License-Identifier = "AGPL-3.0-only"

[[annotations]]
path = "core/generated.ts"
SPDX-License-Identifier = "AGPL-3.0-only"
`)
const problems = (path: string, text: string) => checkLicences([{ path, text }], table).map((one) => one.message)

describe('the licence of a file', () => {
  it('is right in a header that fits the folder', () => {
    expect(problems('core/src/a.ts', agpl)).toEqual([])
    expect(problems('saas/billing/src/a.ts', commercial)).toEqual([])
  })

  it('is missing without a header', () => {
    expect(problems('core/src/a.ts', 'export {}')).toEqual([expect.stringContaining('has no')])
    expect(problems('core/src/a.ts', `${'\n'.repeat(10)}${agpl}`)).toEqual([expect.stringContaining('has no')])
  })

  it('is wrong when the header belongs to another folder', () => {
    expect(problems('core/src/a.ts', commercial)).toEqual([expect.stringContaining('its folder is AGPL-3.0-only')])
    expect(problems('verticals/retail/src/a.ts', agpl)).toEqual([expect.stringContaining('its folder is LicenseRef')])
  })

  it('is unclear with two headers', () => {
    expect(problems('core/src/a.ts', agpl + commercial)).toEqual([expect.stringContaining('names 2 licences')])
  })

  it('comes from the table for files that cannot hold a comment', () => {
    expect(problems('core/deep/a.json', '{}')).toEqual([])
    expect(problems('.hidden.json', '{}')).toEqual([])
    expect(problems('a.txt', '')).toEqual([])
    expect(problems('core/a.txt', '')).toEqual([expect.stringContaining('no row')])
    expect(problems('saas/a.json', '{}')).toEqual([expect.stringContaining('in REUSE.toml')])
  })

  it('comes from the table for source files only when the row names the file', () => {
    expect(problems('core/generated.ts', '')).toEqual([])
    const wide = parseReuse('[[annotations]]\npath = "**"\nSPDX-License-Identifier = "AGPL-3.0-only"\n')
    expect(checkLicences([{ path: 'core/src/a.ts', text: '' }], wide)).toHaveLength(1)
    expect(checkLicences([{ path: 'docs/a.png', text: undefined }], wide)).toEqual([])
  })

  it('is not asked of licence texts', () => {
    expect(problems('LICENSE-AGPL', 'text')).toEqual([])
    expect(problems('core/LICENSE', 'text')).toEqual([])
  })
})

describe('packages and texts', () => {
  it('names the licence of the folder in package.json', () => {
    const messages = (path: string, license: string) => checkPackageLicences([{ path, text: JSON.stringify({ license, private: true }) }])
    expect(messages('core/package.json', 'AGPL-3.0-only')).toEqual([])
    expect(messages('core/package.json', 'MIT')).toHaveLength(1)
    expect(messages('saas/costs/package.json', 'AGPL-3.0-only')).toHaveLength(1)
    expect(messages('saas/costs/package.json', 'SEE LICENSE IN LICENSE')).toEqual([])
  })

  it('notices a changed licence text', () => {
    expect(checkAgplText([{ path: 'LICENSE-AGPL', text: 'a\n' }], 'a')).toEqual([])
    expect(checkAgplText([{ path: 'LICENSE-AGPL', text: 'b\n' }], 'a')).toHaveLength(1)
    expect(checkAgplText([], 'a')).toHaveLength(1)
  })

  it('refuses a table row without a licence', () => {
    expect(() => parseReuse('[[annotations]]\npath = "a"\n')).toThrow(/no licence/)
  })
})
