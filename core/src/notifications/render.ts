// SPDX-License-Identifier: AGPL-3.0-only
import type { Dialect } from './channel-type.ts'
import { parseMarkdown } from './markdown.ts'
import type { Block, Inline } from './markdown.ts'

export type Entity = { type: string; offset: number; length: number; url?: string }
export type Text = { text: string; entities: Entity[] }

/** Values of a template by their placeholder: put in after the marks were read, so that none of them adds any. */
export type Values = ReadonlyMap<string, string>

const noValues: Values = new Map()
const placeholder = /[\u{F0000}-\u{FFFFD}]/gu
const safeUrl = /^(https?:|mailto:|tel:)/i

type Marks = { bold: [string, string]; italic: [string, string]; strike: [string, string]; code: [string, string] }
const none: [string, string] = ['', '']
const both = (mark: string): [string, string] => [mark, mark]
const commonMarks: Marks = { bold: both('**'), italic: both('*'), strike: both('~~'), code: both('`') }
const noMarks: Marks = { bold: none, italic: none, strike: none, code: none }

const marksOf: Record<Dialect, Marks> = {
  plain: noMarks,
  slack: { bold: both('*'), italic: both('_'), strike: both('~'), code: both('`') },
  feishu: { ...commonMarks, code: none },
  dingtalk: { ...commonMarks, strike: none, code: none },
  wecom: { ...noMarks, bold: both('**'), code: both('`') },
  telegram: noMarks,
  teams: noMarks,
  discord: commonMarks,
  commonmark: commonMarks,
  html: { bold: ['<strong>', '</strong>'], italic: ['<em>', '</em>'], strike: ['<del>', '</del>'], code: ['<code>', '</code>'] },
}

const fullWidth: Record<string, string> = { '*': '＊', '[': '［', ']': '］', '<': '＜', '>': '＞', '`': '｀' }
const htmlEntities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

/** Makes a text mean itself in the dialect; `isLineStart` when nothing stands before it in its line. */
export function escapeText(text: string, dialect: Dialect, isLineStart = true): string {
  switch (dialect) {
    case 'plain':
    case 'telegram':
    case 'teams':
      return text
    case 'slack':
      return text.replace(/[&<>]/g, (one) => htmlEntities[one]!)
    case 'feishu':
      return text.replace(/[&<>*_~[\]`]/g, (one) => `&#${one.charCodeAt(0)};`)
    case 'dingtalk':
    case 'wecom': {
      const wide = text.replace(/[*[\]<>`]/g, (one) => fullWidth[one]!)
      return wide.replace(isLineStart ? /^( *)#/gm : /(\n *)#/g, '$1＃')
    }
    case 'discord':
      return text.replace(/[\\*_~|[\]()<>#\-`]/g, '\\$&')
    case 'commonmark': {
      const escaped = text.replace(/[\\*_~[\]<>#`]/g, '\\$&')
      // At the start of a line these would begin a list or a rule.
      return escaped.replace(isLineStart ? /^( *)([-+]|\d+(?=[.)]))/gm : /(\n *)([-+]|\d+(?=[.)]))/g, (_, space: string, mark: string) =>
        /\d/.test(mark) ? `${space}${mark}\\` : `${space}\\${mark}`,
      )
    }
    case 'html':
      return text.replace(/[&<>"']/g, (one) => htmlEntities[one]!)
  }
}

/** A text with marks in the words of a dialect. Links go to http, https, mail and telephone only, else they are text. */
export function renderMarkdown(source: string, dialect: Dialect, values: Values = noValues): Text {
  const writer = new Writer(dialect, values)
  parseMarkdown(source).forEach((block, index) => writer.block(block, index === 0))
  return writer.end()
}

function fill(text: string, values: Values): string {
  return values.size === 0 ? text : text.replace(placeholder, (one) => values.get(one) ?? one)
}

class Writer {
  readonly #dialect: Dialect
  readonly #values: Values
  readonly #entities: Entity[] = []
  #text = ''

  constructor(dialect: Dialect, values: Values) {
    this.#dialect = dialect
    this.#values = values
  }

  end(): Text {
    return { text: this.#text, entities: this.#entities }
  }

  block(block: Block, isFirst: boolean): void {
    const isHtml = this.#dialect === 'html'
    const isSpaced = this.#dialect === 'dingtalk' || this.#dialect === 'commonmark'
    if (!isFirst && !isHtml) this.#text += isSpaced ? '\n\n' : '\n'
    switch (block.kind) {
      case 'paragraph':
        return this.#wrapped('p', () => this.#inlines(block.children))
      case 'heading':
        return this.#heading(block)
      case 'quote':
        return this.#wrapped('blockquote', () => {
          if (!['html', 'feishu', 'telegram', 'teams'].includes(this.#dialect)) this.#text += '> '
          this.#inlines(block.children)
        })
      case 'list':
        return this.#list(block)
      case 'code':
        return this.#codeBlock(fill(block.text, this.#values))
      case 'rule':
        this.#text += isHtml ? '<hr>' : this.#dialect === 'plain' || this.#dialect === 'telegram' ? '———' : '---'
    }
  }

  #heading(block: Extract<Block, { kind: 'heading' }>): void {
    if (this.#dialect === 'html') return this.#wrapped(`h${block.level}`, () => this.#inlines(block.children))
    if (['dingtalk', 'wecom', 'commonmark', 'discord'].includes(this.#dialect)) {
      this.#text += `${'#'.repeat(block.level)} `
      return this.#inlines(block.children)
    }
    this.#inline({ kind: 'bold', children: block.children })
  }

  #list(block: Extract<Block, { kind: 'list' }>): void {
    if (this.#dialect === 'html') {
      const tag = block.ordered ? 'ol' : 'ul'
      return this.#wrapped(tag, () => {
        for (const item of block.items) this.#wrapped('li', () => this.#inlines(item))
      })
    }
    const bullet = ['slack', 'telegram', 'teams'].includes(this.#dialect) ? '• ' : '- '
    block.items.forEach((item, index) => {
      if (index > 0) this.#text += '\n'
      this.#text += block.ordered ? `${index + 1}. ` : bullet
      this.#inlines(item)
    })
  }

  #codeBlock(text: string): void {
    const start = this.#text.length
    if (this.#dialect === 'html') this.#text += `<pre>${escapeText(text, 'html')}</pre>`
    else if (['slack', 'discord', 'commonmark'].includes(this.#dialect)) {
      this.#text += `\`\`\`\n${this.#dialect === 'slack' ? escapeText(text, 'slack') : text.replaceAll('```', "'''")}\n\`\`\``
    } else this.#text += escapeText(text, this.#dialect)
    this.#mark('pre', start)
  }

  #wrapped(tag: string, write: () => void): void {
    if (this.#dialect !== 'html') return write()
    this.#text += `<${tag}>`
    write()
    this.#text += `</${tag}>`
  }

  #inlines(children: readonly Inline[]): void {
    for (const child of children) this.#inline(child)
  }

  #inline(node: Inline): void {
    const marks = marksOf[this.#dialect]
    const start = this.#text.length
    switch (node.kind) {
      case 'text':
        this.#text += escapeText(fill(node.text, this.#values), this.#dialect, this.#text === '' || this.#text.endsWith('\n'))
        return
      case 'break':
        this.#text += this.#dialect === 'html' ? '<br>' : this.#dialect === 'commonmark' || this.#dialect === 'dingtalk' ? '  \n' : '\n'
        return
      case 'code':
        this.#code(fill(node.text, this.#values), marks.code)
        return this.#mark('code', start)
      case 'link':
        return this.#link(node)
      case 'bold':
      case 'italic':
      case 'strike': {
        const [open, close] = marks[node.kind]
        this.#text += open
        this.#inlines(node.children)
        this.#text += close
        this.#mark(node.kind === 'strike' ? 'strikethrough' : node.kind, start)
      }
    }
  }

  #code(text: string, [open, close]: [string, string]): void {
    if (this.#dialect === 'html') this.#text += open + escapeText(text, 'html') + close
    else if (open === '') this.#text += escapeText(text, this.#dialect, false)
    // Verbatim, but a backtick would end it.
    else this.#text += open + (this.#dialect === 'slack' ? escapeText(text, 'slack') : text).replaceAll('`', "'") + close
  }

  #link(node: Extract<Inline, { kind: 'link' }>): void {
    const url = fill(node.url, this.#values)
    const start = this.#text.length
    // Checked after its values are in.
    if (!safeUrl.test(url) || /[\s<>"|]/.test(url) || !URL.canParse(url)) {
      this.#inlines(node.children)
      this.#text += escapeText(` (${url})`, this.#dialect, false)
      return
    }
    switch (this.#dialect) {
      case 'slack':
        this.#text += `<${url.replaceAll('&', '&amp;')}|`
        this.#inlines(node.children)
        this.#text += '>'
        return
      case 'html':
        this.#text += `<a href="${escapeText(url, 'html')}" rel="noopener noreferrer">`
        this.#inlines(node.children)
        this.#text += '</a>'
        return
      case 'plain':
        this.#inlines(node.children)
        this.#text += ` (${url})`
        return
      case 'telegram':
      case 'teams':
        this.#inlines(node.children)
        this.#entities.push({ type: 'text_link', offset: start, length: this.#text.length - start, url })
        return
      case 'feishu':
      case 'dingtalk':
      case 'wecom':
      case 'discord':
      case 'commonmark':
        this.#text += '['
        this.#inlines(node.children)
        this.#text += `](${url.replaceAll('(', '%28').replaceAll(')', '%29')})`
    }
  }

  /** Where marks are ranges beside the text, counted in UTF-16 as strings are here. */
  #mark(type: string, start: number): void {
    const hasRanges = this.#dialect === 'telegram' || this.#dialect === 'teams'
    if (hasRanges && this.#text.length > start) this.#entities.push({ type, offset: start, length: this.#text.length - start })
  }
}
