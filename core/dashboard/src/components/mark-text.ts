// SPDX-License-Identifier: AGPL-3.0-only

/** A run of text with what marks it. */
export type Run = { text: string; marks: ('bold' | 'italic' | 'strike' | 'code')[]; url?: string }
export type MarkBlock =
  | { kind: 'paragraph' | 'heading' | 'quote' | 'code'; runs: Run[] }
  | { kind: 'list'; items: Run[][] }
  | { kind: 'rule' }

const safe = /^(https?:|mailto:|tel:|\/(?!\/))/i
const inline = [
  { mark: 'code', syntax: /^`([^`\n]+)`/ },
  { mark: 'link', syntax: /^\[((?:\\.|[^\][\\])+)\]\(([^()\s]+)\)/ },
  { mark: 'bold', syntax: /^\*\*(?=\S)((?:\\.|[^\\\n])+?)\*\*/ },
  { mark: 'strike', syntax: /^~~(?=\S)((?:\\.|[^\\\n])+?)~~/ },
  { mark: 'italic', syntax: /^\*(?=[^\s*])((?:\\.|[^*\n\\])+?)\*/ },
] as const

/** Runs of a line; what is no mark stays text, HTML too. */
export function readRuns(source: string, marks: Run['marks'] = [], url?: string): Run[] {
  const runs: Run[] = []
  let plain = ''
  const flush = () => {
    if (plain !== '') runs.push({ text: plain, marks, ...(url ? { url } : {}) })
    plain = ''
  }
  for (let rest = source; rest !== '';) {
    const found = inline.map(({ mark, syntax }) => ({ mark, match: syntax.exec(rest) })).find(({ match }) => match !== null)
    if (found?.match) {
      flush()
      const [whole, inner = '', target = ''] = found.match
      if (found.mark === 'code') runs.push({ text: inner, marks: [...marks, 'code'], ...(url ? { url } : {}) })
      else if (found.mark === 'link') runs.push(...readRuns(inner, marks, safe.test(target) ? target : undefined))
      else runs.push(...readRuns(inner, [...marks, found.mark], url))
      rest = rest.slice(whole.length)
    } else {
      const length = /^\\[!-/:-@[-`{-~]/.test(rest) ? 2 : 1
      plain += rest.slice(length - 1, length)
      rest = rest.slice(length)
    }
  }
  flush()
  return runs
}

/** The blocks of a message in the subset of markdown that messages have. */
export function readBlocks(source: string): MarkBlock[] {
  const blocks: MarkBlock[] = []
  const lines = source.split('\n').map((line) => line.trimEnd())
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!
    const last = blocks.at(-1)
    const item = /^ {0,3}(?:[-*+]|\d{1,9}[.)]) +(.*)$/.exec(line)?.[1]
    if (line === '') continue
    if (line.startsWith('```')) {
      const end = lines.findIndex((one, index) => index > at && one.startsWith('```'))
      const stop = end === -1 ? lines.length : end
      blocks.push({ kind: 'code', runs: [{ text: lines.slice(at + 1, stop).join('\n'), marks: [] }] })
      at = stop
    } else if (/^(-{3,}|\*{3,}|_{3,})$/.test(line)) blocks.push({ kind: 'rule' })
    else if (/^#{1,3} /.test(line)) blocks.push({ kind: 'heading', runs: readRuns(line.replace(/^#+ +/, '')) })
    else if (item !== undefined && last?.kind === 'list' && lines[at - 1] !== '') last.items.push(readRuns(item))
    else if (item !== undefined) blocks.push({ kind: 'list', items: [readRuns(item)] })
    else if (line.startsWith('>')) blocks.push({ kind: 'quote', runs: readRuns(line.replace(/^> ?/, '')) })
    else if (last?.kind === 'paragraph' && lines[at - 1] !== '') last.runs.push({ text: '\n', marks: [] }, ...readRuns(line))
    else blocks.push({ kind: 'paragraph', runs: readRuns(line) })
  }
  return blocks
}
