// SPDX-License-Identifier: AGPL-3.0-only
import type { NotifyStats } from '../../api/types.ts'

type Counts = Pick<NotifyStats, 'accepted' | 'sent' | 'failed' | 'expired' | 'suppressed' | 'open' | 'successRate'>

/** All channels together; what was suppressed or is open says nothing of the success. */
export function totalOf(rows: readonly Counts[]): Counts {
  const sum = (name: Exclude<keyof Counts, 'successRate'>) => rows.reduce((all, row) => all + row[name], 0)
  const [sent, failed, expired] = [sum('sent'), sum('failed'), sum('expired')]
  const ended = sent + failed + expired
  return {
    accepted: sum('accepted'),
    sent,
    failed,
    expired,
    suppressed: sum('suppressed'),
    open: sum('open'),
    successRate: ended === 0 ? null : sent / ended,
  }
}
