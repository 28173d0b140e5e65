// SPDX-License-Identifier: AGPL-3.0-only

/** The subset of markdown that messages are written in [notifications 6.3]. */
export type Inline =
  | { kind: 'text'; text: string }
  | { kind: 'code'; text: string }
  | { kind: 'bold' | 'italic' | 'strike'; children: Inline[] }
  | { kind: 'link'; url: string; children: Inline[] }
  | { kind: 'break' }

export type Block =
  | { kind: 'paragraph'; children: Inline[] }
  | { kind: 'heading'; level: number; children: Inline[] }
  | { kind: 'list'; ordered: boolean; items: Inline[][] }
  | { kind: 'quote'; children: Inline[] }
  | { kind: 'code'; text: string }
  | { kind: 'rule' }

const listItem = /^ {0,3}(?:([-*+])|(\d{1,9})[.)]) +(.*)$/
const heading = /^ {0,3}(#{1,3}) +(.*?)(?: +#+)?$/
const rule = /^ {0,3}(?:-{3,}|\*{3,}|_{3,}) *$/
const fence = /^ {0,3}```/
const quote = /^ {0,3}> ?/

/** Blocks of a text; what is no mark stays text, and HTML is text. */
export function parseMarkdown(source: string): Block[] {
  const lines = source.replaceAll('\r\n', '\n').split('\n')
  const blocks: Block[] = []
  for (let i = 0; i < lines.length;) {
    const line = lines[i]!
    if (line.trim() === '') {
      i++
    } else if (fence.test(line)) {
      const end = lines.findIndex((one, at) => at > i && fence.test(one))
      const stop = end === -1 ? lines.length : end
      blocks.push({ kind: 'code', text: lines.slice(i + 1, stop).join('\n') })
      i = stop + 1
    } else if (rule.test(line)) {
      blocks.push({ kind: 'rule' })
      i++
    } else if (heading.test(line)) {
      const [, marks, text] = heading.exec(line)!
      blocks.push({ kind: 'heading', level: marks!.length, children: parseInline(text!) })
      i++
    } else if (listItem.test(line)) {
      const ordered = listItem.exec(line)![2] !== undefined
      const items: Inline[][] = []
      for (let item = listItem.exec(line); item && (item[2] !== undefined) === ordered; item = listItem.exec(lines[i] ?? '')) {
        items.push(parseInline(item[3]!))
        i++
      }
      blocks.push({ kind: 'list', ordered, items })
    } else {
      const isQuote = quote.test(line)
      const own: string[] = []
      while (
        i < lines.length &&
        lines[i]!.trim() !== '' &&
        quote.test(lines[i]!) === isQuote &&
        (own.length === 0 || !startsBlock(lines[i]!))
      ) {
        own.push(isQuote ? lines[i]!.replace(quote, '') : lines[i]!.trim())
        i++
      }
      blocks.push({ kind: isQuote ? 'quote' : 'paragraph', children: parseInline(own.join('\n')) })
    }
  }
  return blocks
}

const startsBlock = (line: string) => fence.test(line) || rule.test(line) || heading.test(line) || listItem.test(line)

/**
 * Marks are found by their pairs alone, so that emphasis beside Chinese punctuation works, where CommonMark's rule
 * about neighbouring characters would not see it.
 */
const marks = [
  /^`([^`\n]+)`/,
  /^\[((?:\\[\s\S]|[^\][\\])+)\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)/,
  // A mark behind a backslash neither begins nor ends anything.
  /^\*\*(?=\S)((?:\\[\s\S]|[^\\])*?)(?<!\s)\*\*/,
  /^~~(?=\S)((?:\\[\s\S]|[^\\])*?)(?<!\s)~~/,
  /^\*(?=[^\s*])((?:\\[\s\S]|[^*\n\\])*?)(?<!\s)\*/,
  /^_(?=[^\s_])((?:\\[\s\S]|[^_\n\\])*?)(?<!\s)_(?!\w)/,
] as const

function parseInline(source: string, depth = 0): Inline[] {
  const found: Inline[] = []
  const addText = (text: string) => {
    const last = found.at(-1)
    if (last?.kind === 'text') last.text += text
    else found.push({ kind: 'text', text })
  }
  for (let rest = source; rest.length > 0;) {
    const [node, length] =
      depth < 6 ? readMark(rest, depth, source.length > rest.length ? source[source.length - rest.length - 1]! : '') : []
    if (node && length) {
      found.push(node)
      rest = rest.slice(length)
    } else if (/^\\[!-/:-@[-`{-~]/.test(rest)) {
      addText(rest[1]!)
      rest = rest.slice(2)
    } else {
      const plain = /^(?:[^`[*~_\\\n]+|[\s\S])/u.exec(rest)![0]
      if (plain === '\n') found.push({ kind: 'break' })
      else addText(plain)
      rest = rest.slice(plain.length)
    }
  }
  return found
}

function readMark(rest: string, depth: number, before: string): [Inline, number] | [] {
  const [code, link, bold, strike, star, underscore] = marks.map((mark) => mark.exec(rest))
  if (code) return [{ kind: 'code', text: code[1]! }, code[0].length]
  if (link) return [{ kind: 'link', url: link[2]!, children: parseInline(link[1]!, depth + 1) }, link[0].length]
  if (bold?.[1]) return [{ kind: 'bold', children: parseInline(bold[1], depth + 1) }, bold[0].length]
  if (strike?.[1]) return [{ kind: 'strike', children: parseInline(strike[1], depth + 1) }, strike[0].length]
  if (star?.[1]) return [{ kind: 'italic', children: parseInline(star[1], depth + 1) }, star[0].length]
  // snake_case is one word.
  if (underscore?.[1] && !/\w/.test(before)) {
    return [{ kind: 'italic', children: parseInline(underscore[1], depth + 1) }, underscore[0].length]
  }
  return []
}
