// SPDX-License-Identifier: AGPL-3.0-only
import { Liquid } from 'liquidjs'
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import { formatTime } from './alert-text.ts'
import type { Values } from './render.ts'

/** [notifications 6.1] Everything else is taken out of the language. */
const allowedTags = new Set(['if', 'unless', 'case', 'for', 'assign', 'capture', 'comment', 'break', 'continue'])
const keptFilters = new Set(['join', 'size', 'upcase', 'downcase', 'default', 'truncate'])
const maxSourceChars = 20_000
const maxOutputBytes = 102_400
/** Where values stand until the marks were read: a private plane of Unicode, which no template may hold itself. */
const firstPlaceholder = 0xf0000
const mostValues = 0xfffd
const placeholder = /[\u{F0000}-\u{FFFFD}]/gu

export type Filled = {
  /** The text of the template, each value a placeholder. */
  source: string
  values: Values
}

export type FillOptions = { language: Language; zone: string }

const severityNames: Record<Language, Record<string, string>> = {
  zh: { critical: '紧急', major: '重要', minor: '次要', warning: '警告' },
  en: { critical: 'Critical', major: 'Major', minor: 'Minor', warning: 'Warning' },
}

/**
 * Fills a template. Its values are kept apart from its text, so that none of them can add a mark, a link or a mention.
 *
 * @throws {ProblemError} `TEMPLATE_INVALID` with line and column, `TEMPLATE_VARIABLE` with the name that is not there,
 *   `TEMPLATE_LIMIT`
 */
export function fillTemplate(template: string, data: Record<string, unknown>, options: FillOptions): Filled {
  const values = new Map<string, string>()
  const engine = newEngine(values, options)
  const parsed = parseWith(engine, template)
  try {
    const source: unknown = engine.renderSync(parsed, data)
    const text = String(source)
    const size = [...values.values()].reduce((sum, value) => sum + Buffer.byteLength(value), Buffer.byteLength(text))
    if (size > maxOutputBytes) throw new ProblemError('TEMPLATE_LIMIT')
    return { source: text, values }
  } catch (error) {
    throw toProblemError(error)
  }
}

/** The syntax alone. @throws {ProblemError} `TEMPLATE_INVALID`, `TEMPLATE_LIMIT` */
export function checkTemplate(template: string): void {
  parseWith(newEngine(new Map(), { language: 'zh', zone: 'UTC' }), template)
}

/** The text with its values in it, for what has no marks. */
export function plainOf({ source, values }: Filled): string {
  return source.replace(placeholder, (one) => values.get(one) ?? '')
}

function parseWith(engine: Liquid, template: string) {
  if (template.length > maxSourceChars) throw new ProblemError('TEMPLATE_LIMIT')
  // A mark of ours in the template itself would stand for a value.
  if (placeholder.test(template)) {
    placeholder.lastIndex = 0
    throw new ProblemError('TEMPLATE_INVALID', { params: { line: 1, column: 1 } })
  }
  try {
    return engine.parse(template)
  } catch (error) {
    throw toProblemError(error)
  }
}

function newEngine(values: Map<string, string>, { language, zone }: FillOptions): Liquid {
  const keep = (value: unknown): string => {
    // What was captured holds placeholders of its own.
    const text = textOf(value).replace(placeholder, (one) => values.get(one) ?? '')
    if (values.size >= mostValues) throw new Error('memory alloc limit exceeded')
    const mark = String.fromCodePoint(firstPlaceholder + values.size)
    values.set(mark, text)
    return mark
  }
  const engine = new Liquid({
    strictVariables: true,
    strictFilters: true,
    ownPropertyOnly: true,
    parseLimit: maxSourceChars,
    renderLimit: 200,
    memoryLimit: 1e6,
    outputEscape: keep,
    // No file is ever read.
    templates: {},
    relativeReference: false,
  })
  for (const name of Object.keys(engine.tags)) if (!allowedTags.has(name)) delete engine.tags[name]
  for (const name of Object.keys(engine.filters)) if (!keptFilters.has(name)) delete engine.filters[name]
  engine.registerFilter('time', (value: unknown) => formatTime(instantOf(value), zone))
  engine.registerFilter('date', (value: unknown, format?: unknown, other?: unknown) =>
    formatDate(instantOf(value), typeof format === 'string' ? format : '%Y-%m-%d', typeof other === 'string' ? other : zone),
  )
  engine.registerFilter('duration', (value: unknown) => formatDuration(Number(value), language))
  engine.registerFilter('number', (value: unknown, decimals?: unknown) =>
    Number(value).toFixed(Math.min(15, Math.max(0, Number(decimals ?? 0)))),
  )
  engine.registerFilter('severity', (value: unknown) => severityNames[language][textOf(value)] ?? textOf(value))
  engine.registerFilter('mask', (value: unknown) => maskText(textOf(value)))
  // Values are text already wherever they stand.
  engine.registerFilter('escape', (value: unknown) => value)
  return engine
}

function textOf(value: unknown): string {
  if (value === null || value === undefined) return ''
  if (typeof value === 'object') return JSON.stringify(value) ?? ''
  return String(value)
}

function instantOf(value: unknown): Date {
  const at = new Date(typeof value === 'number' ? value : textOf(value))
  return Number.isNaN(at.getTime()) ? new Date(0) : at
}

function formatDate(at: Date, format: string, zone: string): string {
  const [date = '', time = ''] = formatTime(at, zone).split(' ')
  const [year = '', month = '', day = ''] = date.split('-')
  const [hour = '', minute = '', second = ''] = time.split(':')
  const parts: Record<string, string> = { Y: year, m: month, d: day, H: hour, M: minute, S: second, '%': '%' }
  return format.replace(/%([YmdHMS%])/g, (_, name: string) => parts[name]!)
}

/** `5 分钟`, `2 h 5 min`: the two largest units. @param ms */
function formatDuration(ms: number, language: Language): string {
  const units: [number, string, string][] = [
    [86_400_000, '天', 'd'],
    [3_600_000, '小时', 'h'],
    [60_000, '分钟', 'min'],
    [1000, '秒', 's'],
  ]
  let rest = Number.isFinite(ms) ? Math.max(0, ms) : 0
  const parts: string[] = []
  for (const [size, zh, en] of units) {
    const count = Math.floor(rest / size)
    rest -= count * size
    if (count > 0 && parts.length < 2) parts.push(`${count} ${language === 'zh' ? zh : en}`)
  }
  return parts.join(' ') || `0 ${language === 'zh' ? '秒' : 's'}`
}

function maskText(text: string): string {
  const [name = '', domain] = text.split('@')
  if (domain !== undefined) return `${name.slice(0, 1)}***@${domain}`
  return text.length >= 7 ? `${text.slice(0, 3)}****${text.slice(-4)}` : '****'
}

type LiquidError = Error & { token?: { getPosition?: () => number[] }; originalError?: Error }

function toProblemError(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error
  const { message, token, originalError } = error as LiquidError
  const words = `${message} ${originalError?.message ?? ''}`
  if (/limit exceeded/i.test(words)) return new ProblemError('TEMPLATE_LIMIT', { cause: error })
  const name = /undefined variable: ([^\s,]+)/.exec(words)?.[1]
  if (name !== undefined) return new ProblemError('TEMPLATE_VARIABLE', { params: { name }, cause: error })
  const [line = 1, column = 1] = token?.getPosition?.() ?? []
  return new ProblemError('TEMPLATE_INVALID', {
    params: { line, column },
    errors: [{ pointer: '', detail: message.split('\n')[0]!.slice(0, 200) }],
    cause: error,
  })
}
