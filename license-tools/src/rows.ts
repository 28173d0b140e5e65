// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash } from 'node:crypto'
import { dirname, resolve } from 'node:path'
import { canonicalJson } from '@iot-pms/core/license'
import type { LicenseRequest } from '@iot-pms/core/license'
import { parseDate, parseInteger } from './arguments.ts'
import { ToolError } from './errors.ts'
import { readInput } from './files.ts'
import { checkCustomerId, checkName, parseLimits } from './issue-options.ts'
import { editions, waivers } from './issue.ts'
import type { IssueOptions } from './issue.ts'
import { readRequest } from './request-file.ts'

/** One line of a bulk file; values as they stand there. */
export type Row = { line: number; values: Record<string, string> }

/** Columns of a bulk file; the same names as the options of `issue`. */
const columns = [
  'external_id',
  'request',
  'machine',
  'customer',
  'name',
  'edition',
  'feature',
  'limit',
  'days',
  'until',
  'from',
  'grace',
  'kind',
  'crl-seq',
  'env',
  'min',
  'anchors',
  'reason',
  ...waivers,
] as const
type Column = (typeof columns)[number]

const externalId = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/

/** Reads a bulk file, CSV by RFC 4180 or JSON Lines. @throws BULK_INVALID when it cannot be read as a whole */
export function readRows(path: string): Row[] {
  const text = readInput(path).replace(/^\ufeff/, '')
  const rows = path.endsWith('.jsonl') ? readJsonLines(text) : readCsv(text)
  if (rows.length === 0) throw invalid(1, '没有数据行', 'there are no rows')
  const seen = new Map<string, number>()
  for (const { line, values } of rows) {
    for (const name of Object.keys(values)) {
      if (!(columns as readonly string[]).includes(name)) throw invalid(line, `没有列 ${name}`, `there is no column ${name}`)
    }
    const id = values.external_id ?? ''
    if (!externalId.test(id)) {
      throw invalid(
        line,
        'external_id 缺失或含不允许的字符',
        'external_id is missing or has characters other than letters, digits and . _ -',
      )
    }
    // On some file systems the two would be one file.
    const key = id.toLowerCase()
    if (seen.has(key)) throw invalid(line, `external_id 与第 ${seen.get(key)} 行重复`, `external_id is that of line ${seen.get(key)}`)
    seen.set(key, line)
  }
  return rows
}

/** What a row asks for. @throws ToolError for what `issue` would refuse in its options */
export function parseRow({ values }: Row, path: string): { options: IssueOptions; request: LicenseRequest | undefined } {
  const get = (name: Column) => (values[name] === '' ? undefined : values[name])
  const need = (name: Column) => get(name) ?? fail(`缺少 ${name}`, `${name} is missing`)
  const integer = (name: Column) => {
    const value = get(name)
    return value === undefined ? undefined : parseInteger(value, name)
  }
  const date = (name: Column) => {
    const value = get(name)
    return value === undefined ? undefined : parseDate(value, name)
  }
  const requestPath = get('request')
  if ((requestPath === undefined) === (get('machine') === undefined)) {
    fail('须给出 request 或 machine 之一', 'give either request or machine')
  }
  if (get('machine') !== undefined && get('machine') !== 'any') fail('machine 只能是 any', 'machine can only be any')
  const edition = editions.find((one) => one === need('edition')) ?? fail('没有此版本', 'there is no such edition')
  const [days, until] = [integer('days'), date('until')]
  if (days !== undefined && until !== undefined) fail('days 与 until 只能给一个', 'give days or until, not both')
  if (days === undefined && until === undefined && edition !== 'trial') fail('缺少 days 或 until', 'days or until is missing')
  const kind = get('kind')
  if (kind !== undefined && kind !== 'nfr' && kind !== 'dev') fail('kind 只能是 nfr 或 dev', 'kind is nfr or dev')
  const env = get('env') ?? 'production'
  if (env !== 'production' && env !== 'staging') fail('env 只能是 production 或 staging', 'env is production or staging')
  const limits = get('limit')
  const options: IssueOptions = {
    customer: checkCustomerId(need('customer')),
    name: checkName(need('name')),
    edition,
    features: get('feature')?.split(/[\s,;|]+/),
    limits: limits === undefined ? undefined : parseLimits(limits.split(/[\s;|]+/)),
    days,
    until,
    from: date('from'),
    grace: integer('grace'),
    kind,
    crlSeq: integer('crl-seq'),
    env,
    min: integer('min'),
    anchors: integer('anchors'),
    reason: get('reason'),
    waivers: new Set(waivers.filter((waiver) => /^(?:yes|true|1|是)$/i.test(get(waiver) ?? ''))),
  }
  return { options, request: requestPath === undefined ? undefined : readRequest(resolve(dirname(path), requestPath)) }
}

/** Two rows with one external id are the same order only if all they say is the same. */
export function hashRow({ values }: Row): string {
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ''))
  return createHash('sha256').update(canonicalJson(given)).digest('hex')
}

function readJsonLines(text: string): Row[] {
  return text.split('\n').flatMap((line, index): Row[] => {
    if (line.trim() === '') return []
    try {
      const object = JSON.parse(line) as Record<string, unknown>
      const values = Object.fromEntries(
        Object.entries(object).map(([name, value]) => [name, Array.isArray(value) ? value.join(' ') : toText(value)]),
      )
      return [{ line: index + 1, values }]
    } catch {
      throw invalid(index + 1, '不是 JSON 对象', 'it is no JSON object')
    }
  })
}

function toText(value: unknown): string {
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value)
      .map(([name, one]) => `${name}=${String(one)}`)
      .join(' ')
  }
  return value === undefined || value === null ? '' : String(value)
}

function readCsv(text: string): Row[] {
  const records: { line: number; cells: string[] }[] = []
  let line = 1
  let start = 1
  let cells: string[] = []
  const pattern = /"((?:[^"]|"")*)"|([^",\r\n]*)/y
  for (let at = 0; at < text.length;) {
    pattern.lastIndex = at
    const [whole, quoted, plain] = pattern.exec(text)!
    cells.push(quoted === undefined ? plain!.trim() : quoted.replaceAll('""', '"'))
    line += whole.split('\n').length - 1
    at += whole.length
    const end = /^(?:\r\n|\n|\r|,|$)/.exec(text.slice(at, at + 2))?.[0]
    if (end === undefined) throw invalid(line, '引号位置不对', 'a quotation mark is out of place')
    at += end.length
    if (end === ',' && at < text.length) continue
    if (end === ',') cells.push('')
    if (cells.length > 1 || cells[0] !== '') records.push({ line: start, cells })
    cells = []
    line++
    start = line
  }
  const titles = records.shift()?.cells ?? []
  return records.map(({ line: at, cells: row }) => {
    if (row.length !== titles.length) {
      throw invalid(at, `有 ${row.length} 列，应为 ${titles.length} 列`, `it has ${row.length} columns, not ${titles.length}`)
    }
    return { line: at, values: Object.fromEntries(titles.map((title, index) => [title, row[index]!])) }
  })
}

function fail(zh: string, en: string): never {
  throw new ToolError('BULK_INVALID', { zh: `${zh}。`, en: `${en.charAt(0).toUpperCase()}${en.slice(1)}.` })
}

function invalid(line: number, zh: string, en: string): ToolError {
  return new ToolError('BULK_INVALID', { zh: `批量文件第 ${line} 行：${zh}。`, en: `Line ${line} of the bulk file: ${en}.` }, { line })
}
