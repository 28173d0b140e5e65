// SPDX-License-Identifier: AGPL-3.0-only
import { formatExact } from './exact-json.ts'
import type { TimeLanguage } from './time.ts'

/** What is shown where there is nothing [D-16]. */
export const missing = '—'

const tags: Record<TimeLanguage, string> = { zh: 'zh-CN', en: 'en' }
const formats = new Map<string, Intl.NumberFormat>()

function formatOf(language: TimeLanguage, min: number, max: number): Intl.NumberFormat {
  const key = `${language}:${min}:${max}`
  let format = formats.get(key)
  if (!format) {
    format = new Intl.NumberFormat(tags[language], { minimumFractionDigits: min, maximumFractionDigits: max })
    formats.set(key, format)
  }
  return format
}

/** A number in the interface's language: `decimals` digits, else at most four significant ones after the point. */
export function formatNumber(value: number, language: TimeLanguage, decimals?: number | null): string {
  if (!Number.isFinite(value)) return missing
  if (decimals !== undefined && decimals !== null) return formatOf(language, decimals, decimals).format(value)
  if (Number.isInteger(value)) return formatOf(language, 0, 0).format(value)
  // 0.00012345 keeps four digits behind its zeros, 25.123456 four behind the point.
  const zeros = Math.abs(value) < 1 ? Math.max(0, -Math.floor(Math.log10(Math.abs(value))) - 1) : 0
  return formatOf(language, 0, Math.min(20, zeros + 4)).format(value)
}

/** An exact integer beyond 2⁵³ that came as text: grouped, digit for digit. */
function formatBigInteger(text: string, language: TimeLanguage): string {
  return formatOf(language, 0, 0).format(BigInt(text))
}

export type ValueStyle = { unit?: string | null | undefined; decimals?: number | null | undefined; yes?: string; no?: string }

/** A telemetry value as text. Values come from devices: the answer is only ever used as text. */
export function formatValue(value: unknown, kind: string | undefined, language: TimeLanguage, style: ValueStyle = {}): string {
  const withUnit = (text: string) => (style.unit ? `${text}\u2009${style.unit}` : text)
  switch (typeof value) {
    case 'number':
      return withUnit(formatNumber(value, language, style.decimals))
    case 'boolean':
      return value ? (style.yes ?? 'true') : (style.no ?? 'false')
    case 'string':
      return kind === 'integer' && /^-?\d+$/.test(value) ? withUnit(formatBigInteger(value, language)) : value
    case 'object':
      return value === null ? missing : formatExact(value)
    default:
      return missing
  }
}

/** Duration in the largest unit that fits, as a number and a unit name for the texts. */
export function splitDuration(ms: number): { count: number; unit: 'second' | 'minute' | 'hour' | 'day' } {
  const steps = [
    ['day', 86_400_000],
    ['hour', 3_600_000],
    ['minute', 60_000],
  ] as const
  for (const [unit, size] of steps) if (ms >= size && ms % size === 0) return { count: ms / size, unit }
  return { count: Math.round(ms / 1000), unit: 'second' }
}

/**
 * The text of a cell of a spreadsheet file made in the browser: spreadsheets run text that begins like a
 * formula, so such text gets one `'` in front [D-104]. Numbers and booleans are not guarded.
 */
export function guardCell(text: string): string {
  return /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text
}

/** Takes off what {@link guardCell} put in front. */
export function unguardCell(text: string): string {
  return /^'+[=+\-@\t\r]/.test(text) ? text.slice(1) : text
}

export type Cell = string | number | boolean | null

/** CSV: UTF-8 with BOM, CRLF, every text cell quoted [D-104]. */
export function formatCsv(rows: readonly (readonly Cell[])[]): string {
  const cell = (value: Cell) => {
    if (value === null) return ''
    return typeof value === 'string' ? `"${guardCell(value).replaceAll('"', '""')}"` : String(value)
  }
  return `\uFEFF${rows.map((row) => `${row.map(cell).join(',')}\r\n`).join('')}`
}
