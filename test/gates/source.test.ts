// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { blankComments, codeOf } from './source.ts'

const words = (text: string) => blankComments(text).match(/\w+/g) ?? []

describe('blankComments', () => {
  it('keeps code and the lines it stands on', () => {
    const text = 'const a = 1 // any\n/* any\n any */ const b = 2\n'
    const code = blankComments(text)
    expect(code).toHaveLength(text.length)
    expect(code.split('\n')[2]!.trim()).toBe('const b = 2')
    expect(code).not.toContain('any')
  })

  it('empties strings but keeps what templates compute', () => {
    expect(words('x(\'any\', "any", `any ${y} any`, z)')).toEqual(['x', 'y', 'z'])
    expect(words('f(`a${g({ h: `b${i}c` })}d`, j)')).toEqual(['f', 'g', 'h', 'i', 'j'])
  })

  it('can keep strings and drop comments only', () => {
    expect(blankComments("a('b') // c", { strings: false }).trim()).toBe("a('b')")
  })

  it('does not take quotes or slashes in a regular expression for strings or comments', () => {
    expect(words('const r = /[\'"`]/g; any')).toEqual(['const', 'r', 'g', 'any'])
    expect(words('return /[/*]/.test(x)')).toEqual(['return', 'test', 'x'])
    expect(words('(a) / b / c; any')).toEqual(['a', 'b', 'c', 'any'])
  })

  it('does not end a string at an escaped quote', () => {
    expect(words("a('it\\'s any', b)")).toEqual(['a', 'b'])
  })
})

describe('codeOf', () => {
  it('leaves only the scripts of a Vue file, at their lines', () => {
    const code = codeOf('A.vue', '<template>any</template>\n<script setup lang="ts">\nconst a = 1\n</script>\n<style>any</style>')
    expect(code.trim()).toBe('const a = 1')
    expect(code.split('\n')[2]).toBe('const a = 1')
  })
})
