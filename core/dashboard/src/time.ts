// SPDX-License-Identifier: AGPL-3.0-only

/** Everything about instants and zones. The only place that formats times [D-53]. */
export type TimeLanguage = 'zh' | 'en'
export type LocalTime = { year: number; month: number; day: number; hour: number; minute: number; second: number; ms: number }

const formats = new Map<string, Intl.DateTimeFormat>()

function formatOf(zone: string): Intl.DateTimeFormat {
  let format = formats.get(zone)
  if (!format) {
    format = new Intl.DateTimeFormat('en-GB', {
      timeZone: zone,
      calendar: 'gregory',
      numberingSystem: 'latn',
      hourCycle: 'h23',
      year: 'numeric',
      month: '2-digit',
      day: '2-digit',
      hour: '2-digit',
      minute: '2-digit',
      second: '2-digit',
    })
    formats.set(zone, format)
  }
  return format
}

/** The clock on the wall of `zone` at an instant (epoch ms). */
export function toLocal(ts: number, zone: string): LocalTime {
  const part: Record<string, number> = {}
  for (const { type, value } of formatOf(zone).formatToParts(ts)) part[type] = Number(value)
  const ms = ((Math.floor(ts) % 1000) + 1000) % 1000
  return {
    year: part['year']!,
    month: part['month']!,
    day: part['day']!,
    hour: part['hour']!,
    minute: part['minute']!,
    second: part['second']!,
    ms,
  }
}

function asUtc(local: LocalTime): number {
  return Date.UTC(local.year, local.month - 1, local.day, local.hour, local.minute, local.second, local.ms)
}

/** Milliseconds that `zone` is ahead of UTC at an instant. */
export function offsetMs(ts: number, zone: string): number {
  return asUtc(toLocal(ts, zone)) - Math.floor(ts)
}

/**
 * The instant at which the clock of `zone` shows `local`. A repeated hour gives the earlier instant,
 * a skipped one the instant that the clock would show had it not jumped.
 */
export function fromLocal(local: LocalTime, zone: string): number {
  const wall = asUtc(local)
  const before = wall - offsetMs(wall - 86_400_000, zone)
  const after = wall - offsetMs(wall + 86_400_000, zone)
  const fits = [before, after].filter((ts) => asUtc(toLocal(ts, zone)) === wall)
  return fits.length > 0 ? Math.min(...fits) : before
}

/** Midnight (or the first instant) of the local day that holds `ts`, moved by whole local days. */
export function startOfDay(ts: number, zone: string, addDays = 0): number {
  const { year, month, day } = toLocal(ts, zone)
  const wall = new Date(Date.UTC(year, month - 1, day + addDays))
  const start = fromLocal(
    { year: wall.getUTCFullYear(), month: wall.getUTCMonth() + 1, day: wall.getUTCDate(), hour: 0, minute: 0, second: 0, ms: 0 },
    zone,
  )
  return start
}

/** `+08:00` */
export function formatOffset(ts: number, zone: string): string {
  const minutes = Math.round(offsetMs(ts, zone) / 60_000)
  const size = Math.abs(minutes)
  return `${minutes < 0 ? '-' : '+'}${pad(Math.floor(size / 60))}:${pad(size % 60)}`
}

const englishMonths = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** Absolute time [D-17]: `2026-11-21 10:32:05`, English `21 Nov 2026, 10:32:05`. */
export function formatInstant(ts: number, zone: string, language: TimeLanguage, options: { ms?: boolean } = {}): string {
  const t = toLocal(ts, zone)
  const clock = `${pad(t.hour)}:${pad(t.minute)}:${pad(t.second)}${options.ms ? `.${String(t.ms).padStart(3, '0')}` : ''}`
  return `${formatDay(t, language)}${language === 'zh' ? ' ' : ', '}${clock}`
}

function formatDay(t: LocalTime, language: TimeLanguage): string {
  return language === 'zh' ? `${t.year}-${pad(t.month)}-${pad(t.day)}` : `${t.day} ${englishMonths[t.month - 1]} ${t.year}`
}

/** `2026-11-21 10:32:05 UTC+08:00 Asia/Shanghai`, for hover and tables [D-54]. */
export function formatWithZone(ts: number, zone: string, language: TimeLanguage): string {
  return `${formatInstant(ts, zone, language)} UTC${formatOffset(ts, zone)} ${zone}`
}

/** Whether the clock of `zone` shows this time twice that day. */
export function isRepeated(ts: number, zone: string): boolean {
  const wall = asUtc(toLocal(ts, zone))
  // Clock changes are by half an hour to three hours in every zone since 1970, mostly by one hour.
  return [1_800_000, 3_600_000, 7_200_000].some(
    (shift) => asUtc(toLocal(ts + shift, zone)) === wall || asUtc(toLocal(ts - shift, zone)) === wall,
  )
}

/** Label of an axis tick: days at midnight, else the clock; a repeated hour carries its offset [D-54]. */
export function formatTick(ts: number, stepMs: number, zone: string, language: TimeLanguage): string {
  const t = toLocal(ts, zone)
  if (stepMs >= 86_400_000 * 28) return language === 'zh' ? `${t.year}-${pad(t.month)}` : `${englishMonths[t.month - 1]} ${t.year}`
  const isMidnight = t.hour === 0 && t.minute === 0 && t.second === 0
  if (stepMs >= 86_400_000 || (isMidnight && stepMs >= 60_000)) {
    return language === 'zh' ? `${pad(t.month)}-${pad(t.day)}` : `${t.day} ${englishMonths[t.month - 1]}`
  }
  const clock = `${pad(t.hour)}:${pad(t.minute)}${stepMs < 60_000 ? `:${pad(t.second)}` : ''}`
  return isRepeated(ts, zone) ? `${clock} ${formatOffset(ts, zone)}` : clock
}

/** Value of `<input type="datetime-local">` for an instant, and back. */
export function toInput(ts: number, zone: string): string {
  const t = toLocal(ts, zone)
  return `${String(t.year).padStart(4, '0')}-${pad(t.month)}-${pad(t.day)}T${pad(t.hour)}:${pad(t.minute)}`
}

/** @returns undefined unless the text is a local date and time */
export function fromInput(text: string, zone: string): number | undefined {
  const match = /^(\d{4,6})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d))?/.exec(text)
  if (!match) return undefined
  const [, year, month, day, hour, minute, second] = match.map(Number)
  return fromLocal(
    { year: year!, month: month!, day: day!, hour: hour!, minute: minute!, second: Number.isNaN(second!) ? 0 : second!, ms: 0 },
    zone,
  )
}

/** Days until an instant, begun ones counted, never below 0. */
export function daysUntil(at: string | number, now: string | number): number {
  return Math.max(0, Math.ceil((new Date(at).getTime() - new Date(now).getTime()) / 86_400_000))
}

export type Age = { unit: 'now' } | { unit: 'second' | 'minute' | 'hour'; count: number } | { unit: 'absolute' }

/** How a time is told in words: relative up to 24 h, beyond that absolute [D-17]. */
export function ageOf(ts: number, now: number): Age {
  const ms = now - ts
  if (ms < -60_000) return { unit: 'absolute' }
  if (ms < 5_000) return { unit: 'now' }
  if (ms < 60_000) return { unit: 'second', count: Math.floor(ms / 1000) }
  if (ms < 3_600_000) return { unit: 'minute', count: Math.floor(ms / 60_000) }
  if (ms < 86_400_000) return { unit: 'hour', count: Math.floor(ms / 3_600_000) }
  return { unit: 'absolute' }
}

const unitMs: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }

/** A bound of a range as it stands in an address: `now`, `now-24h`, epoch ms [D-55]. */
export function readBound(text: string, now: number): number | undefined {
  if (text === 'now') return now
  const relative = /^now-(\d{1,5})([mhdw])$/.exec(text)
  if (relative) return now - Number(relative[1]) * unitMs[relative[2]!]!
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** The zones of the choice lists: what the browser knows, with the one in use. */
export function listZones(current?: string): string[] {
  const zones = new Set(['UTC', ...Intl.supportedValuesOf('timeZone')])
  if (current) zones.add(current)
  return [...zones].sort()
}

export function isZone(zone: string): boolean {
  try {
    formatOf(zone)
    return zone !== ''
  } catch {
    return false
  }
}

export function browserZone(): string {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'
}

function pad(value: number): string {
  return String(value).padStart(2, '0')
}
