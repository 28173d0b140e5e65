// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { parseArgs } from 'node:util'
import { ToolError } from './errors.ts'

/** `text` takes one value, `list` may be given again, `flag` has none. */
export type OptionKind = 'text' | 'list' | 'flag'
export type OptionTable = Record<string, OptionKind>

/** [T-3] Options of every command. */
export const globalOptions: OptionTable = {
  ledger: 'text',
  json: 'flag',
  quiet: 'flag',
  lang: 'text',
  yes: 'flag',
  actor: 'text',
  now: 'text',
}

/** [T-4] Options of every command that opens a key. */
export const keyOptions: OptionTable = {
  key: 'text',
  'passphrase-file': 'text',
  'passphrase-fd': 'text',
  'passphrase-env': 'text',
  'allow-plain-key': 'flag',
}

/** The options and positional arguments of one call, read strictly. */
export class Arguments {
  readonly positionals: readonly string[]
  readonly #values: Record<string, string | boolean | (string | boolean)[] | undefined>

  /** @throws USAGE for an unknown option, one given twice, or a stray argument */
  constructor(args: readonly string[], table: OptionTable, positionals: { least: number; most: number }) {
    const options = Object.fromEntries(
      Object.entries({ ...globalOptions, ...table }).map(([name, kind]) => [
        name,
        {
          type: kind === 'flag' ? ('boolean' as const) : ('string' as const),
          multiple: kind === 'list',
          ...(name === 'output' && { short: 'o' }),
        },
      ]),
    )
    let parsed
    try {
      parsed = parseArgs({ args: [...args], options, allowPositionals: true, tokens: true })
    } catch (error) {
      const message = error instanceof Error ? error.message.split('\n')[0]! : String(error)
      throw usageError(`参数错误：${message}`, message)
    }
    const seen = new Set<string>()
    for (const token of parsed.tokens) {
      if (token.kind !== 'option') continue
      if (seen.has(token.name) && !options[token.name]?.multiple) throw usageError(`--${token.name} 重复`, `--${token.name} is given twice`)
      seen.add(token.name)
    }
    if (parsed.positionals.length < positionals.least) throw usageError('缺少参数', 'an argument is missing')
    if (parsed.positionals.length > positionals.most) throw usageError('多余的参数', 'there is an argument too many')
    this.positionals = parsed.positionals
    this.#values = parsed.values
  }

  flag(name: string): boolean {
    return this.#values[name] === true
  }

  /** @returns undefined when it is not given; an empty value counts as given */
  text(name: string): string | undefined {
    const value = this.#values[name]
    return typeof value === 'string' ? value : undefined
  }

  required(name: string): string {
    const value = this.text(name)
    if (value === undefined || value === '') throw usageError(`缺少 --${name}`, `--${name} is missing`)
    return value
  }

  list(name: string): string[] {
    const value = this.#values[name]
    return Array.isArray(value) ? value.map(String) : []
  }

  /** [T-6] Whole numbers only. */
  integer(name: string): number | undefined {
    const value = this.text(name)
    if (value === undefined) return undefined
    return parseInteger(value, name)
  }

  date(name: string): Date | undefined {
    const value = this.text(name)
    return value === undefined ? undefined : parseDate(value, name)
  }

  choice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const value = this.text(name)
    if (value === undefined) return undefined
    const found = choices.find((one) => one === value)
    if (found === undefined) throw usageError(`--${name} 只能是 ${choices.join(' | ')}`, `--${name} is one of ${choices.join(' | ')}`)
    return found
  }
}

export function parseInteger(value: string, name: string): number {
  if (!/^-?\d{1,15}$/.test(value)) throw usageError(`${name} 须为整数`, `${name} must be a whole number`)
  return Number(value)
}

/** [T-6] A day in UTC or RFC 3339 with its zone; never a count of seconds. */
export function parseDate(value: string, name: string): Date {
  const isDay = /^\d{4}-\d{2}-\d{2}$/.test(value)
  const isInstant = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})$/.test(value)
  const date = new Date(isDay ? `${value}T00:00:00Z` : value)
  // Date would turn the 31st of February into a day of March.
  const isCalendarDay =
    !Number.isNaN(Date.parse(value)) && new Date(`${value.slice(0, 10)}T00:00:00Z`).toISOString().startsWith(value.slice(0, 10))
  if ((!isDay && !isInstant) || !isCalendarDay) {
    throw usageError(`${name} 须为 YYYY-MM-DD 或带时区的 RFC 3339 时间`, `${name} must be YYYY-MM-DD or RFC 3339 with a zone`)
  }
  return date
}

export function usageError(zh: string, en: string): ToolError {
  return new ToolError('USAGE', { zh: `${zh}。`, en: `${en.charAt(0).toUpperCase()}${en.slice(1)}.` })
}
