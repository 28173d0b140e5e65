// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { readBlocks, readRuns } from './mark-text.ts'

describe('a message in the inbox', () => {
  it('keeps what the server escaped as text, and reads its marks beside Chinese punctuation', () => {
    expect(readRuns('**“冷库”**温度 \\*不是\\* `a*b`')).toEqual([
      { text: '“冷库”', marks: ['bold'] },
      { text: '温度 *不是* ', marks: [] },
      { text: 'a*b', marks: ['code'] },
    ])
  })

  it('follows links to safe places only', () => {
    expect(readRuns('[a](https://x.example/1) [b](javascript:alert) [c](//evil.example) [d](/alarms/1)')).toEqual([
      { text: 'a', marks: [], url: 'https://x.example/1' },
      { text: ' ', marks: [] },
      { text: 'b', marks: [] },
      { text: ' ', marks: [] },
      { text: 'c', marks: [] },
      { text: ' ', marks: [] },
      { text: 'd', marks: [], url: '/alarms/1' },
    ])
  })

  it('has paragraphs, lists, headings, quotes, code and rules', () => {
    const kinds = readBlocks('# t\nfirst  \nsecond\n\n- a\n- b\n\n> q\n---\n```\nx\n```').map(({ kind }) => kind)
    expect(kinds).toEqual(['heading', 'paragraph', 'list', 'quote', 'rule', 'code'])
  })

  it('takes HTML for text and no time for many marks', () => {
    expect(readRuns('<b>x</b>')).toEqual([{ text: '<b>x</b>', marks: [] }])
    expect(readBlocks('*'.repeat(2000)).length).toBe(1)
    expect(readRuns('['.repeat(2000)).length).toBe(1)
  })
})
