// SPDX-License-Identifier: AGPL-3.0-only
import { useI18n } from 'vue-i18n'
import type { Queue } from '../../api/types.ts'
import { splitDuration } from '../../format.ts'

/** States of jobs in the order they are offered. */
export const jobStates = ['created', 'active', 'retry', 'failed', 'completed', 'cancelled'] as const

export const canRetry = (state: string): boolean => state === 'failed' || state === 'retry'
export const canCancel = (state: string): boolean => state === 'created' || state === 'retry' || state === 'active'

export function tagOfJob(state: string): string {
  if (state === 'failed') return 'danger'
  if (state === 'retry') return 'warn'
  if (state === 'active') return 'accent'
  return state === 'completed' ? 'ok' : ''
}

/** Names of queues and spans of time in the person's language. */
export function useJobTexts() {
  const i18n = useI18n()
  return {
    titleOf: ({ name, title }: Pick<Queue, 'name' | 'title'>): string => title?.[i18n.locale.value === 'en' ? 'en' : 'zh'] ?? name,
    /** A span to one unit: an age is read at a glance. */
    span(ms: number | null): string {
      if (ms === null) return '—'
      const seconds = Math.max(1, Math.round(ms / 1000))
      const { count, unit } = splitDuration(
        (seconds < 120 ? seconds : seconds < 7200 ? Math.round(seconds / 60) * 60 : Math.round(seconds / 3600) * 3600) * 1000,
      )
      return i18n.t(`jobs.span.${unit}`, { count }, count)
    },
  }
}
