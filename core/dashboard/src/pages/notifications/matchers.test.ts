// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { formatMatcher, formatMatchers, parseMatcher, parseMatchers } from './matchers.ts'

it.each([
  ['severity="critical"', { label: 'severity', operator: '=', value: 'critical' }],
  ['group=~"冷库.*"', { label: 'group', operator: '=~', value: '冷库.*' }],
  ['device !~ "a\\"b\\\\c"', { label: 'device', operator: '!~', value: 'a"b\\c' }],
  ['severity!=""', { label: 'severity', operator: '!=', value: '' }],
] as const)('reads %s and writes it back to the same meaning', (text, form) => {
  expect(parseMatcher(text)).toEqual(form)
  expect(parseMatcher(formatMatcher(form))).toEqual(form)
})

it('leaves out rows without a label and keeps what it cannot read in sight', () => {
  expect(formatMatchers([{ label: ' ', operator: '=', value: 'x' }])).toEqual([])
  expect(parseMatcher('severity=critical')).toBeUndefined()
  expect(parseMatchers(['severity=critical'])[0]?.label).toBe('severity=critical')
})
