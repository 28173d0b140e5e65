// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import type { Dialect } from './channel-type.ts'
import { checkTemplate, fillTemplate, plainOf } from './liquid.ts'
import { renderMarkdown } from './render.ts'
import { fillText } from './templates.ts'

const options = { language: 'zh', zone: 'Asia/Shanghai' } as const
const fill = (template: string, data: Record<string, unknown> = {}) => fillTemplate(template, data, options)
const shown = (template: string, data: Record<string, unknown>, dialect: Dialect) => {
  const { source, values } = fill(template, data)
  return renderMarkdown(source, dialect, values).text
}

describe('a template', () => {
  const body = '**{{ n }}** 温度 `85.5` [查看](https://iot.example/a/1)\n\n- 级别：{{ s }}'
  const data = { n: '1#_冷库*<@all>[x](http://e)', s: '紧急 & 高' }

  it('puts values in after the marks were read, in the words of each channel', () => {
    expect(shown(body, data, 'plain')).toBe('1#_冷库*<@all>[x](http://e) 温度 85.5 查看 (https://iot.example/a/1)\n- 级别：紧急 & 高')
    expect(shown(body, data, 'slack')).toBe(
      '*1#_冷库*&lt;@all&gt;[x](http://e)* 温度 `85.5` <https://iot.example/a/1|查看>\n• 级别：紧急 &amp; 高',
    )
  })

  it('keeps a value text when it is stored as markdown and rendered later', () => {
    for (const value of [
      '- a',
      '1. a',
      '# a',
      '> a',
      '**a**',
      '[a](http://b)',
      '<b>',
      '`a`',
      'a\n\n- b',
      '+ a',
      '---',
      '\\*a',
      'https://x.y_z_',
    ]) {
      const { text } = fillText({ body: '{{ v }}' }, { v: value }, options)
      const html = renderMarkdown(text, 'html').text
      expect(html, `${value} → ${text}`).not.toMatch(/<(ul|ol|li|h\d|blockquote|strong|a |b>|code|hr)/)
      expect(renderMarkdown(text, 'plain').text.replaceAll(/\s+/g, ' ')).toBe(value.replaceAll(/\s+/g, ' '))
    }
  })

  it('keeps marks around a value that looks like marks', () => {
    const { text } = fillText({ body: '**{{ v }}** [{{ v }}](https://a.b/) *{{ v }}*' }, { v: '*]**_`\\' }, options)
    const escaped = '*]**_`\\'
    expect(renderMarkdown(text, 'html').text).toBe(
      `<p><strong>${escaped}</strong> <a href="https://a.b/" rel="noopener noreferrer">${escaped}</a> <em>${escaped}</em></p>`,
    )
  })

  it('knows conditions, loops, what is captured, and the filters of the language', () => {
    const text = (template: string, given = {}) => plainOf(fill(template, given))
    expect(text('{% for a in list %}{{ a.x }}{% unless forloop.last %}, {% endunless %}{% endfor %}', { list: [{ x: 1 }, { x: 2 }] })).toBe(
      '1, 2',
    )
    expect(text('{% capture c %}<{{ v }}>{% endcapture %}{{ c }}{{ c }}', { v: '*' })).toBe('<*><*>')
    expect(text('{{ at | time }}', { at: '2026-11-21T16:04:05Z' })).toBe('2026-11-22 00:04:05')
    expect(text('{{ at | date: "%m/%d %H:%M", "UTC" }}', { at: '2026-11-21T16:04:05Z' })).toBe('11/21 16:04')
    expect(text('{{ 7500000 | duration }} {{ 3.14159 | number: 2 }} {{ "critical" | severity }}')).toBe('2 小时 5 分钟 3.14 紧急')
    expect(text('{{ "13800000000" | mask }} {{ "zhang@example.com" | mask }}')).toBe('138****0000 z***@example.com')
    expect(text('{{ missing | default: "x" }}', { missing: null })).toBe('x')
  })

  it('says what is wrong, and where', () => {
    expect(() => checkTemplate('a\n{% if %}')).toThrow(
      expect.objectContaining({ code: 'TEMPLATE_INVALID', params: expect.objectContaining({ line: 2 }) }),
    )
    expect(() => fill('{{ nobody }}')).toThrow(expect.objectContaining({ code: 'TEMPLATE_VARIABLE', params: { name: 'nobody' } }))
    for (const bad of ['{% include "x" %}', '{% render "x" %}', '{% layout "x" %}', '{{ "x" | raw }}', '{{ "x" | json }}', '\u{F0001}']) {
      expect(() => fill(bad), bad).toThrow(expect.objectContaining({ code: 'TEMPLATE_INVALID' }))
    }
  })

  it('ends in time and in bounds', () => {
    const endless = '{% for a in (1..100000) %}{% for b in (1..100000) %}{{ a }}{% endfor %}{% endfor %}'
    expect(() => fill(endless)).toThrow(expect.objectContaining({ code: 'TEMPLATE_LIMIT' }))
    expect(() => fill('x'.repeat(20_001))).toThrow(expect.objectContaining({ code: 'TEMPLATE_LIMIT' }))
    expect(() => fill('{{ a }}{{ a }}', { a: 'x'.repeat(60_000) })).toThrow(expect.objectContaining({ code: 'TEMPLATE_LIMIT' }))
  })

  it('reaches nothing but its own data', () => {
    for (const path of ['a.constructor', 'a.__proto__', 'constructor', 'a.constructor.prototype', 'a.toString', 'process', 'globalThis']) {
      expect(() => fill(`{{ ${path} }}`, { a: {} }), path).toThrow(expect.objectContaining({ code: 'TEMPLATE_VARIABLE' }))
    }
  })
})
