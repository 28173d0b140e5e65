// SPDX-License-Identifier: AGPL-3.0-only

/**
 * TypeScript with its comments, and optionally the contents of its strings, replaced by blanks of the
 * same length, so that a search hits code only and line numbers stay right. What stands in `${…}` of a
 * template is code and is kept.
 */
export function blankComments(text: string, options: { strings: boolean } = { strings: true }): string {
  const out = text.split('')
  /** Open braces per template literal we are inside of. */
  const templates: number[] = []
  /** Last character that was code, to tell a regular expression from a division. */
  let before = ''
  let word = ''
  let i = 0
  const blank = (from: number, to: number) => {
    for (let at = from; at < to && at < out.length; at++) if (out[at] !== '\n') out[at] = ' '
  }
  const template = () => {
    const start = i
    while (i < text.length && text[i] !== '`' && !(text[i] === '$' && text[i + 1] === '{')) i += text[i] === '\\' ? 2 : 1
    if (options.strings) blank(start, i)
    if (text[i] === '`') i++
    else if (i < text.length) {
      i += 2
      templates.push(0)
      before = '{'
      return
    }
    before = '`'
  }
  while (i < text.length) {
    const char = text[i]!
    const start = i
    if (text.startsWith('//', i)) {
      while (i < text.length && text[i] !== '\n') i++
      blank(start, i)
      continue
    }
    if (text.startsWith('/*', i)) {
      const end = text.indexOf('*/', i + 2)
      i = end === -1 ? text.length : end + 2
      blank(start, i)
      continue
    }
    if (char === "'" || char === '"') {
      i = endOfQuoted(text, i, char)
      if (options.strings) blank(start + 1, i - 1)
    } else if (char === '/' && startsRegExp(before, word)) {
      i = endOfRegExp(text, i)
      if (options.strings) blank(start + 1, i - 1)
    } else if (char === '`') {
      i++
      template()
      word = ''
      continue
    } else if (char === '}' && templates.at(-1) === 0) {
      templates.pop()
      i++
      template()
      word = ''
      continue
    } else {
      if (char === '{' && templates.length > 0) templates[templates.length - 1]!++
      if (char === '}' && templates.length > 0) templates[templates.length - 1]!--
      i++
      if (/\s/.test(char)) continue
      word = /[\w$]/.test(char) ? (/[\w$]/.test(text[start - 1] ?? '') ? word + char : char) : ''
      before = char
      continue
    }
    word = ''
    before = char
  }
  return out.join('')
}

/** The code of a file: a .vue file's script parts, at their own lines. */
export function codeOf(path: string, text: string): string {
  if (!path.endsWith('.vue')) return text
  const out = text.replace(/[^\n]/g, ' ').split('')
  for (const match of text.matchAll(/(<script\b[^>]*>)([\s\S]*?)<\/script>/g)) {
    const start = match.index + match[1]!.length
    for (const [offset, char] of match[2]!.split('').entries()) out[start + offset] = char
  }
  return out.join('')
}

function endOfQuoted(text: string, start: number, quote: string): number {
  for (let i = start + 1; i < text.length && text[i] !== '\n'; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === quote) return i + 1
  }
  return Math.min(start + 1, text.length)
}

function endOfRegExp(text: string, start: number): number {
  let isInClass = false
  for (let i = start + 1; i < text.length && text[i] !== '\n'; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === '[') isInClass = true
    else if (text[i] === ']') isInClass = false
    else if (text[i] === '/' && !isInClass) return i + 1
  }
  return start + 1
}

/** After a value a slash divides, everywhere else it begins a regular expression. */
function startsRegExp(before: string, word: string): boolean {
  if (word !== '') return /^(?:return|typeof|case|in|of|do|else|yield|await|void|delete|throw)$/.test(word)
  return !/[\w$)\]}"'`/]/.test(before)
}
