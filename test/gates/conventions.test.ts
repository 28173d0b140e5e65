// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { checkConventions } from './conventions.ts'

const found = (text: string, path = 'core/src/a.ts') => checkConventions([{ path, text }]).map((one) => one.message)

describe('the conventions', () => {
  it.each([
    'let a: any',
    'f(b as any)',
    'type A = Record<string, any>',
    'const a = <T extends any>() => 1',
    'let a: string | any',
    'let a: any[]',
    'let a: any = 1',
    'type A = any',
  ])('refuse %s', (text) => {
    expect(found(text)).toEqual([expect.stringContaining('any')])
  })

  it('let the word stand in names, comments and strings', () => {
    expect(found("const company = x.any() // any\nconst b = 'as any'\nconst any = 1\nf(anything, { any: 1 })")).toEqual([])
  })

  it('refuse what type stripping cannot run', () => {
    expect(found('export enum A { b }')).toHaveLength(1)
    expect(found('declare namespace A {}')).toHaveLength(1)
    expect(found("it('has an enum A', f)\nconst x = { enum: [1] }")).toEqual([])
  })

  it('ask for the ending of relative imports', () => {
    expect(found("import { a } from './a'\n")).toEqual([expect.stringContaining('./a')])
    expect(
      found(
        "import { a } from './a.ts'\nimport { b } from 'node:fs'\nimport A from './A.vue'\nimport c from '../c.json'\nexport const d = join(root, '../../d')\n",
      ),
    ).toEqual([])
  })

  it('refuse files that nobody reads to the end, but for tests', () => {
    const long = 'a()\n'.repeat(700)
    expect(found(long)).toHaveLength(1)
    expect(found(long, 'core/src/a.test.ts')).toEqual([])
  })

  it('refuse notes about unfinished work in code, not in documents', () => {
    expect(found(`// ${'TO'}DO: later`)).toHaveLength(1)
    expect(found(`-- ${'FIX'}ME later`, 'core/migrations/1.sql')).toHaveLength(1)
    expect(found(`no ${'TO'}DO here`, 'docs/a.md')).toEqual([])
  })

  it('read the script of a Vue file', () => {
    expect(found('<template>as any</template>\n<script setup lang="ts">\nlet a: any\n</script>', 'A.vue')).toEqual([
      expect.stringContaining('any'),
    ])
  })
})
