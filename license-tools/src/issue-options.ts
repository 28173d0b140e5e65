// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { LicenseClaims } from '@iot-pms/core/license'
import { parseInteger, usageError } from './arguments.ts'
import type { OptionTable } from './arguments.ts'
import { editions, waivers } from './issue.ts'
import type { IssueOptions, Waiver } from './issue.ts'
import type { Tool } from './tool.ts'

/** Options that say what is in a license; shared by all commands that issue one. */
export const termOptions: OptionTable = {
  request: 'text',
  feature: 'text',
  limit: 'list',
  days: 'text',
  until: 'text',
  from: 'text',
  grace: 'text',
  kind: 'text',
  'crl-seq': 'text',
  min: 'text',
  anchors: 'text',
  reason: 'text',
  'dry-run': 'flag',
  output: 'text',
  ...Object.fromEntries(waivers.map((waiver) => [waiver, 'flag' as const])),
}
/** Options that issue, renew and transfer share. */
export function readTerms(tool: Tool): Omit<IssueOptions, 'customer' | 'name' | 'edition' | 'env'> {
  const { args } = tool
  if (args.text('days') !== undefined && args.text('until') !== undefined) {
    throw usageError('--days 与 --until 只能给一个', 'give --days or --until, not both')
  }
  const given = new Set(waivers.filter((waiver) => args.flag(waiver)))
  const needReason: Waiver | undefined = [...given].find((waiver) => waiver !== 'new-customer')
  if (needReason && !args.text('reason')) throw usageError(`--${needReason} 须附 --reason`, `--${needReason} needs --reason`)
  return {
    features: args
      .text('feature')
      ?.split(',')
      .map((id) => id.trim())
      .filter((id) => id !== ''),
    limits: args.list('limit').length > 0 ? parseLimits(args.list('limit')) : undefined,
    days: checkPositive(args.integer('days'), 'days'),
    until: args.date('until'),
    from: args.date('from'),
    grace: checkRange(args.integer('grace'), 'grace', 0, 90),
    kind: args.choice('kind', ['nfr', 'dev'] as const),
    crlSeq: checkRange(args.integer('crl-seq'), 'crl-seq', 0, Number.MAX_SAFE_INTEGER),
    min: checkRange(args.integer('min'), 'min', 1, 10),
    anchors: checkRange(args.integer('anchors'), 'anchors', 0, 10),
    reason: args.text('reason'),
    waivers: given,
  }
}

/** What an old license says, but for what is given; the new term begins where the old one ends [renew]. */
export function continueFrom(tool: Tool, former: LicenseClaims): IssueOptions {
  const terms = readTerms(tool)
  const begin = Math.max(former.exp * 1000, tool.now.getTime())
  const isDated = terms.until !== undefined
  const days = terms.days ?? (former.edition === 'trial' ? 30 : 365)
  const name = tool.args.text('name')
  return {
    ...terms,
    customer: former.sub,
    name: name === undefined ? (former.cust?.name ?? former.sub) : checkName(name),
    edition: tool.args.choice('edition', editions) ?? former.edition,
    env: former.env,
    features: terms.features ?? former.features,
    limits: { ...former.limits, ...terms.limits },
    kind: terms.kind ?? (former.kind === 'nfr' || former.kind === 'dev' ? former.kind : undefined),
    grace: terms.grace ?? former.grace_days,
    crlSeq: terms.crlSeq ?? former.crl_seq,
    days: undefined,
    until: isDated ? terms.until : new Date(begin + days * 86_400_000),
    binding: { machine: former.machine, ...(former.cnf && { cnf: former.cnf }) },
  }
}

export function parseLimits(items: readonly string[]): Record<string, number> {
  const limits: Record<string, number> = {}
  for (const item of items) {
    const [, name, value] = /^([^=]+)=(.+)$/.exec(item) ?? []
    if (name === undefined || value === undefined) throw usageError('--limit 的形式为 name=value', '--limit has the form name=value')
    limits[name] = parseInteger(value, `--limit ${name}`)
  }
  return limits
}

export function checkCustomerId(id: string): string {
  if (!/^[A-Za-z0-9._:-]{1,64}$/.test(id)) {
    throw usageError('客户编号只能含字母、数字和 . _ : -，最长 64', 'a customer id has 1 to 64 letters, digits or . _ : -')
  }
  return id
}

export function checkName(name: string): string {
  if ([...name].length > 200 || /\p{Cc}/u.test(name) || !name.isWellFormed()) {
    throw usageError('客户名称为 1 至 200 个可见字符', 'a name has 1 to 200 visible characters')
  }
  return name
}

function checkPositive(value: number | undefined, name: string): number | undefined {
  return checkRange(value, name, 1, 36_600)
}

function checkRange(value: number | undefined, name: string, least: number, most: number): number | undefined {
  if (value !== undefined && (value < least || value > most)) throw usageError(`--${name} 超出范围`, `--${name} is out of range`)
  return value
}
