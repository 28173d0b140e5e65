// SPDX-License-Identifier: AGPL-3.0-only
import type { DeviceLimits, DeviceLimitsPatch } from '../../api/types.ts'

export const rateScopes = ['device', 'gateway', 'gatewayDevice'] as const
export const rateCounters = ['messages', 'telemetryMessages', 'telemetryDataPoints'] as const
export type RateScope = (typeof rateScopes)[number]
export type RateCounter = (typeof rateCounters)[number]
/** `inherit`: what the installation says, or nothing; `none`: no limit; `own`: the text. */
export type RateDraft = { mode: 'inherit' | 'none' | 'own'; text: string }
export type RateDrafts = Record<RateScope, Record<RateCounter, RateDraft>>

/** The parts of a limit such as `20:1,600:60`, or why it is none. */
export function parseRate(text: string): { entries: { count: number; seconds: number }[] } | { problem: 'syntax' | 'many' | 'twice' } {
  const parts = text.trim().split(',')
  if (parts.length > 5) return { problem: 'many' }
  const entries: { count: number; seconds: number }[] = []
  for (const part of parts) {
    const match = /^([1-9]\d{0,9}):([1-9]\d{0,6})$/.exec(part.trim())
    const [count, seconds] = [Number(match?.[1]), Number(match?.[2])]
    if (!match || count > 1e9 || seconds > 2_678_400) return { problem: 'syntax' }
    if (entries.some((entry) => entry.seconds === seconds)) return { problem: 'twice' }
    entries.push({ count, seconds })
  }
  return { entries }
}

/** Drafts of limits as they are stored; `unset` is what a counter without a limit means there. */
export function toDrafts(limits: DeviceLimits, unset: 'inherit' | 'none'): RateDrafts {
  const draft = (rate: string | null | undefined): RateDraft =>
    rate === null || rate === undefined ? { mode: unset, text: '' } : rate === '' ? { mode: 'none', text: '' } : { mode: 'own', text: rate }
  const of = (scope: RateScope) =>
    Object.fromEntries(rateCounters.map((counter) => [counter, draft(limits[scope]?.[counter])])) as Record<RateCounter, RateDraft>
  return { device: of('device'), gateway: of('gateway'), gatewayDevice: of('gatewayDevice') }
}

/** @param unset is what is stored as null: what `toDrafts` was told */
export function toLimits(drafts: RateDrafts, unset: 'inherit' | 'none'): NonNullable<DeviceLimitsPatch> {
  const rate = ({ mode, text }: RateDraft) => (mode === unset ? null : mode === 'own' ? text.replaceAll(/\s/g, '') : '')
  const of = (scope: RateScope) => Object.fromEntries(rateCounters.map((counter) => [counter, rate(drafts[scope][counter])]))
  return { device: of('device'), gateway: of('gateway'), gatewayDevice: of('gatewayDevice') }
}

export function areValid(drafts: RateDrafts): boolean {
  return rateScopes.every((scope) =>
    rateCounters.every((counter) => drafts[scope][counter].mode !== 'own' || 'entries' in parseRate(drafts[scope][counter].text)),
  )
}
