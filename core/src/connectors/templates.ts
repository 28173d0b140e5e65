// SPDX-License-Identifier: AGPL-3.0-only
import { findNode, parsePath } from './tree.ts'
import type { TreeNode } from './tree.ts'

type Part =
  | { text: string }
  /** Levels of the topic from the first to the last one, counted from 1. */
  | { from: number; to: number; source: string }
  | { path: readonly string[]; source: string }

export type Template = readonly Part[]

/** What a text with placeholders is filled from. */
export type TemplateInput = { levels: readonly string[]; payload: TreeNode | undefined }

/**
 * A text with `{topic.2}`, `{topic.2-}` for the second level and all after it, and `{payload.a.b}`: plain replacement,
 * without calls or conditions [SC-95].
 *
 * @returns what is wrong with it as a text, when something is
 */
export function parseTemplate(source: string): Template | string {
  const parts: Part[] = []
  let at = 0
  for (const match of source.matchAll(/\{([^{}]*)\}/g)) {
    if (match.index > at) parts.push({ text: source.slice(at, match.index) })
    at = match.index + match[0].length
    const part = parsePlaceholder(match[1]!, match[0])
    if (part === undefined) return `${match[0]} is none of {topic.1}, {topic.2-} and {payload.path}.`
    parts.push(part)
  }
  if (at < source.length) parts.push({ text: source.slice(at) })
  const stray = parts.some((part) => 'text' in part && /[{}]/.test(part.text))
  return stray ? 'A brace stands alone; placeholders are written {topic.1} or {payload.path}.' : parts
}

function parsePlaceholder(inner: string, source: string): Part | undefined {
  const [, level, isOpen] = /^topic\.([1-9]\d?)(-?)$/.exec(inner) ?? []
  if (level !== undefined) return { from: Number(level), to: isOpen ? Number.POSITIVE_INFINITY : Number(level), source }
  if (inner === 'payload') return { path: [], source }
  return inner.startsWith('payload.') && inner.length > 8 ? { path: parsePath(inner.slice(8)), source } : undefined
}

/** @returns the text, or the placeholder that the message has nothing for */
export function fillTemplate(template: Template, { levels, payload }: TemplateInput): { text: string } | { missing: string } {
  let text = ''
  for (const part of template) {
    if ('text' in part) text += part.text
    else {
      const found = 'path' in part ? textOf(payload && findNode(payload, part.path)) : levels.slice(part.from - 1, part.to).join('/')
      if (found === undefined || found === '') return { missing: part.source }
      text += found
    }
  }
  return { text: text.trim() }
}

function textOf(node: TreeNode | undefined): string | undefined {
  return node?.kind === 'scalar' ? node.text : undefined
}
