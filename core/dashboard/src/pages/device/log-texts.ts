// SPDX-License-Identifier: AGPL-3.0-only
import type { LogEntry } from '../../api/types.ts'

type Translate = (key: string) => string
type Has = (key: string) => boolean

/** What an entry says beside its title: reasons in words, addresses and ids as they are. */
export function describeEntry(entry: LogEntry, t: Translate, te: Has): { text: string; isRaw: boolean }[] {
  const facts: { text: string; isRaw: boolean }[] = []
  for (const [name, value] of Object.entries(entry.detail)) {
    if (value === null || value === undefined || value === '') continue
    if (name === 'reason' && typeof value === 'string' && te(`device.reason.${value}`)) {
      facts.push({ text: t(`device.reason.${value}`), isRaw: false })
    } else facts.push({ text: `${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`, isRaw: true })
  }
  return facts
}
