// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Dialect } from './channel-type.ts'
import { escapeText, renderMarkdown } from './render.ts'
import { sizeOf, splitText } from './split.ts'

const source = '### 标题\n**冷库** *a* ~~b~~ `85.5` [查看](https://iot.example/a/1)\n\n- 级别\n- 开始\n\n> 引用'

describe('a text with marks', () => {
  it.each<[Dialect, string]>([
    ['plain', '标题\n冷库 a b 85.5 查看 (https://iot.example/a/1)\n- 级别\n- 开始\n> 引用'],
    ['slack', '*标题*\n*冷库* _a_ ~b~ `85.5` <https://iot.example/a/1|查看>\n• 级别\n• 开始\n> 引用'],
    ['feishu', '**标题**\n**冷库** *a* ~~b~~ 85.5 [查看](https://iot.example/a/1)\n- 级别\n- 开始\n引用'],
    ['dingtalk', '### 标题\n\n**冷库** *a* b 85.5 [查看](https://iot.example/a/1)\n\n- 级别\n- 开始\n\n> 引用'],
    ['wecom', '### 标题\n**冷库** a b `85.5` [查看](https://iot.example/a/1)\n- 级别\n- 开始\n> 引用'],
    ['commonmark', '### 标题\n\n**冷库** *a* ~~b~~ `85.5` [查看](https://iot.example/a/1)\n\n- 级别\n- 开始\n\n> 引用'],
    [
      'html',
      '<h3>标题</h3><p><strong>冷库</strong> <em>a</em> <del>b</del> <code>85.5</code> <a href="https://iot.example/a/1" rel="noopener noreferrer">查看</a></p><ul><li>级别</li><li>开始</li></ul><blockquote>引用</blockquote>',
    ],
  ])('%s', (dialect, expected) => {
    expect(renderMarkdown(source, dialect).text).toBe(expected)
  })

  it('becomes ranges for Telegram, whose offsets count UTF-16', () => {
    const { text, entities } = renderMarkdown('😀 **冷库** `x` [去](https://a.b/)', 'telegram')
    const shown = entities.map((one) => [one.type, text.slice(one.offset, one.offset + one.length)])
    expect(shown).toEqual([
      ['bold', '冷库'],
      ['code', 'x'],
      ['text_link', '去'],
    ])
  })

  it('is bold beside Chinese punctuation, and leaves snake_case alone', () => {
    expect(renderMarkdown('**“冷库”**温度', 'feishu').text).toBe('**“冷库”**温度')
    expect(renderMarkdown('**“冷库”**温度', 'html').text).toBe('<p><strong>“冷库”</strong>温度</p>')
    expect(renderMarkdown('max_temp_value', 'html').text).toBe('<p>max_temp_value</p>')
  })

  it('links only where it is safe, and HTML is text', () => {
    expect(renderMarkdown('[x](javascript:alert(1)) <b>', 'html').text).toBe('<p>x (javascript:alert(1)) &lt;b&gt;</p>')
    expect(renderMarkdown('[x](data:text/html,a)', 'slack').text).toBe('x (data:text/html,a)')
  })

  it('keeps values from adding marks, mentions or links, in every dialect', () => {
    const values = new Map([
      ['\u{F0000}', '1#_冷库*<@all>[x](http://e)'],
      ['\u{F0001}', '紧急 & 高'],
    ])
    const template = '**\u{F0000}** 温度 `85.5` [查看](https://iot.example/a/1)\n\n- 级别：\u{F0001}'
    expect(renderMarkdown(template, 'plain', values).text).toBe(
      '1#_冷库*<@all>[x](http://e) 温度 85.5 查看 (https://iot.example/a/1)\n- 级别：紧急 & 高',
    )
    expect(renderMarkdown(template, 'slack', values).text).toBe(
      '*1#_冷库*&lt;@all&gt;[x](http://e)* 温度 `85.5` <https://iot.example/a/1|查看>\n• 级别：紧急 &amp; 高',
    )
    expect(renderMarkdown(template, 'wecom', values).text).not.toContain('<@all>')
    expect(renderMarkdown(template, 'html', values).text).not.toContain('<@all>')
    expect(renderMarkdown('[a](\u{F0000})', 'html', new Map([['\u{F0000}', 'javascript:1']])).text).not.toContain('href')
  })

  it('escapes any text so that no mark is left of it', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(escapeText(text, 'html')).not.toMatch(/[<>]/)
        expect(escapeText(text, 'slack')).not.toMatch(/[<>]/)
        expect(escapeText(text, 'feishu')).not.toMatch(/[<>*_~[\]`]/)
        expect(escapeText(text, 'dingtalk')).not.toMatch(/[*[\]<>`]|^ *#/m)
        expect(escapeText(text, 'wecom')).not.toMatch(/<@|\[/)
      }),
    )
  })

  it('never fails, whatever the text is', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => typeof renderMarkdown(text, 'telegram').text === 'string'))
  })
})

describe('a text that is too large', () => {
  const plain = (text: string) => ({ text, entities: [] })

  it('is cut by the bytes that WeCom counts', () => {
    const parts = splitText(plain('é'.repeat(1025)), 2048, 'bytes')
    expect(parts).toHaveLength(2)
    for (const { text } of parts) expect(Buffer.byteLength(text)).toBeLessThanOrEqual(2048)
    expect(parts.map(({ text }) => text.replace(/ \(\d\/\d\)$/, '')).join('')).toBe('é'.repeat(1025))
  })

  it('is cut at a paragraph before a line before a character, never inside of one', () => {
    const [first] = splitText(plain(`${'a'.repeat(60)}\n\n${'b'.repeat(60)}`), 100, 'chars')
    expect(first!.text).toBe(`${'a'.repeat(60)} (1/2)`)
    for (const unit of ['bytes', 'utf16'] as const) {
      for (const { text } of splitText(plain('😀'.repeat(200)), 103, unit)) expect(text.isWellFormed()).toBe(true)
    }
  })

  it('has at most five parts, the last of which says that there is more', () => {
    const parts = splitText(plain('x'.repeat(10_000)), 100, 'chars', ' → https://iot.example')
    expect(parts).toHaveLength(5)
    expect(parts[4]!.text).toMatch(/ → https:\/\/iot\.example \(5\/5\)$/)
  })

  it('fits, and loses nothing below five parts', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', minLength: 1, maxLength: 300 }),
        fc.constantFrom('bytes', 'chars', 'utf16'),
        (text, unit) => {
          const parts = splitText(plain(text), 120, unit)
          for (const part of parts) expect(sizeOf(part.text, unit as 'bytes')).toBeLessThanOrEqual(120)
          const joined = parts.map((part) => part.text.replace(/ \(\d\/\d\)$/, '')).join('')
          if (parts.length < 5) expect(joined.replaceAll(/\s/g, '')).toBe(text.replaceAll(/\s/g, ''))
        },
      ),
    )
  })
})
