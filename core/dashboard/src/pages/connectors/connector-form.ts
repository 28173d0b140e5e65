// SPDX-License-Identifier: AGPL-3.0-only
import type { Connector, ConnectorCreate, ConnectorRule } from '../../api/types.ts'

type Selection = ConnectorRule['values'][number]

/** A rule as the form edits it: lists as lines, `members` with a switch of its own. */
export type RuleForm = Omit<ConnectorRule, 'members' | 'omit' | 'values' | 'time'> & {
  hasMembers: boolean
  members: string
  omit: string
  values: string
  timePath: string
  timeUnit: NonNullable<ConnectorRule['time']>['unit']
}

export type ConnectorForm = Pick<
  Connector,
  'name' | 'enabled' | 'url' | 'username' | 'clientId' | 'protocolVersion' | 'persistent' | 'caCertificate'
> & { password: string; topics: string; rules: RuleForm[] }

const number = String.raw`[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?`
const selectionLine = new RegExp(
  String.raw`^(?<path>[^=×]+?)\s*(?:=\s*(?<key>[^×]+?))?\s*(?::(?<as>number|text|boolean))?\s*(?:×\s*(?<scale>${number}))?\s*(?:\+\s*(?<offset>${number}))?$`,
  'i',
)

/** `data.t = temperature × 0.1 + -40`; each part but the path may be missing. */
export function parseSelections(text: string): Selection[] | { line: number } {
  const selections: Selection[] = []
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim().replace(/ [x*] (?=[+-]?\d)/, ' × ')
    if (line === '') continue
    const { path, key, as, scale, offset } = selectionLine.exec(line)?.groups ?? {}
    if (!path) return { line: index + 1 }
    selections.push({
      path,
      ...(key ? { key } : {}),
      ...(as ? { as: as.toLowerCase() as NonNullable<Selection['as']> } : {}),
      ...(scale ? { scale: Number(scale) } : {}),
      ...(offset ? { offset: Number(offset) } : {}),
    })
  }
  return selections
}

export function formatSelections(selections: readonly Selection[]): string {
  return selections
    .map(({ path, key, as, scale, offset }) =>
      [path, key && `= ${key}`, as && `:${as}`, scale !== undefined && `× ${scale}`, offset !== undefined && `+ ${offset}`]
        .filter(Boolean)
        .join(' '),
    )
    .join('\n')
}

export function readLines(text: string): string[] {
  return [
    ...new Set(
      text
        .split('\n')
        .map((line) => line.trim())
        .filter(Boolean),
    ),
  ]
}

export function toRuleForm({ members, omit, values, time, ...rule }: ConnectorRule): RuleForm {
  return {
    ...rule,
    hasMembers: members !== null,
    members: members ?? '',
    omit: omit.join('\n'),
    values: formatSelections(values),
    timePath: time?.path ?? '',
    timeUnit: time?.unit ?? 'ms',
  }
}

/** @returns the rule; a line that cannot be read counts as none, the form says so beside it */
export function fromRuleForm({ hasMembers, members, omit, values, timePath, timeUnit, ...rule }: RuleForm): ConnectorRule {
  const selections = parseSelections(values)
  return {
    ...rule,
    members: hasMembers ? members.trim() : null,
    omit: readLines(omit),
    values: Array.isArray(selections) ? selections : [],
    time: timePath.trim() ? { path: timePath.trim(), unit: timeUnit } : null,
  }
}

export const blankRule: ConnectorRule = {
  topic: '',
  kind: 'telemetry',
  name: '{topic.2}',
  product: '',
  decoder: 'json',
  key: 'value',
  members: '',
  flatten: false,
  omit: [],
  values: [],
  time: null,
}

export function toForm(connector: Connector | undefined): ConnectorForm {
  return {
    name: connector?.name ?? '',
    enabled: connector?.enabled ?? true,
    url: connector?.url ?? '',
    username: connector?.username ?? '',
    password: '',
    clientId: connector?.clientId ?? '',
    protocolVersion: connector?.protocolVersion ?? 5,
    persistent: connector?.persistent ?? true,
    caCertificate: connector?.caCertificate ?? '',
    topics: connector?.topics.join('\n') ?? '',
    rules: (connector?.rules ?? [blankRule]).map(toRuleForm),
  }
}

/** What is sent to be saved; an empty password keeps the stored one. */
export function fromForm({ topics, rules, password, ...form }: ConnectorForm): ConnectorCreate {
  return {
    ...form,
    name: form.name.trim(),
    url: form.url.trim(),
    topics: readLines(topics),
    rules: rules.map(fromRuleForm),
    ...(password === '' ? {} : { password }),
  }
}
