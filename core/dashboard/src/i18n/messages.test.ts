// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const folder = fileURLToPath(new URL('.', import.meta.url))
const sources = fileURLToPath(new URL('..', import.meta.url))

type Tree = { [key: string]: string | Tree }

function flatten(tree: Tree, prefix: string, into: Map<string, string>): Map<string, string> {
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value === 'string') into.set(`${prefix}${key}`, value)
    else flatten(value, `${prefix}${key}.`, into)
  }
  return into
}

function readLanguage(language: string): Map<string, string> {
  const all = new Map<string, string>()
  for (const file of readdirSync(join(folder, language))) {
    flatten(JSON.parse(readFileSync(join(folder, language, file), 'utf8')) as Tree, `${file.replace('.json', '')}.`, all)
  }
  return all
}

const placeholders = (text: string) => [...new Set([...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!))].sort().join()
const zh = readLanguage('zh')
const en = readLanguage('en')
const code = readdirSync(sources, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && /\.(vue|ts)$/.test(entry.name) && !/\.test\.ts$|schema\.d\.ts$/.test(entry.name))
  .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
  .join('\n')

/** Keys in quotes, and the fixed beginnings of keys put together in template strings. */
const quoted = new Set([...code.matchAll(/['"]([a-z][\w-]*(?:\.[\w-]+)+)['"]/gi)].map((match) => match[1]!))
const built = [...code.matchAll(/`([a-z]\w*\.[\w.]*)\$\{/gi)].map((match) => match[1]!)

describe('the texts', () => {
  it('have the same keys in Chinese and English', () => {
    expect([...en.keys()].sort()).toEqual([...zh.keys()].sort())
  })

  it.each([...zh.keys()])('keep the placeholders of %s', (key) => {
    expect(placeholders(en.get(key)!)).toBe(placeholders(zh.get(key)!))
  })

  it('are all used', () => {
    expect([...zh.keys()].filter((key) => !quoted.has(key) && !built.some((start) => key.startsWith(start)))).toEqual([])
  })

  it('exist for every key the code names', () => {
    const areas = new Set([...zh.keys()].map((key) => key.split('.')[0]))
    // Names of permissions and routes look alike; calls of t() tell them apart.
    const called = [...code.matchAll(/\bte?\(\s*'([^']+)'/g)].map((match) => match[1]!)
    const titled = [...code.matchAll(/title: '([^']+)'/g)].map((match) => match[1]!)
    const wanted = [...called, ...titled].filter((key) => areas.has(key.split('.')[0]))
    expect(wanted.filter((key) => !zh.has(key))).toEqual([])
  })

  it('hold no HTML, no exclamation mark, and in English no Chinese but the name of the other language', () => {
    for (const text of [...zh.values(), ...en.values()]) expect(text).not.toMatch(/<[a-z/]|[!！]/)
    for (const [key, text] of en) if (key !== 'shell.otherLanguage') expect(text).not.toMatch(/[\u3000-\u9fff]/)
  })
})
