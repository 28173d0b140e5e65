// SPDX-License-Identifier: AGPL-3.0-only

export const operators = ['=', '!=', '=~', '!~'] as const
export type Operator = (typeof operators)[number]
/** A condition on a label as the form holds it. */
export type MatcherForm = { label: string; operator: Operator; value: string }

/** Labels that alarms have; others can be typed. */
export const knownLabels = ['severity', 'rule_id', 'device_id', 'device', 'product', 'group', 'type'] as const

const syntax = /^\s*([A-Za-z_\p{L}][\w.\p{L}]{0,99})\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*$/u

/** @returns undefined for what is not written as `name="value"` */
export function parseMatcher(text: string): MatcherForm | undefined {
  const [, label, operator, quoted] = syntax.exec(text) ?? []
  if (label === undefined || quoted === undefined) return undefined
  return { label, operator: operator as Operator, value: quoted.replace(/\\(["\\])/g, '$1') }
}

export function formatMatcher({ label, operator, value }: MatcherForm): string {
  return `${label.trim()}${operator}"${value.replace(/["\\]/g, '\\$&')}"`
}

/** Those that say something: a row without a label is one that was not filled in. */
export const formatMatchers = (forms: readonly MatcherForm[]): string[] =>
  forms.filter(({ label }) => label.trim() !== '').map(formatMatcher)

/** What cannot be read is kept as a condition that the server will name. */
export const parseMatchers = (texts: readonly string[]): MatcherForm[] =>
  texts.map((text) => parseMatcher(text) ?? { label: text, operator: '=', value: '' })
