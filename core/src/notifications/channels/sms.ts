// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, createHmac } from 'node:crypto'
import type { Window } from '../../jobs/limiter.ts'

export const sha256Hex = (text: string): string => createHash('sha256').update(text).digest('hex')
export const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest()

/** RFC 3986: what encodeURIComponent leaves, signatures want encoded. */
export const encode3986 = (text: string): string =>
  encodeURIComponent(text).replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`)

/** What networks allow one number: 1 a minute, 5 an hour, 10 a day. */
export const perNumber: readonly Window[] = [
  { count: 1, perMs: 60_000 },
  { count: 5, perMs: 3_600_000 },
  { count: 10, perMs: 86_400_000 },
]

const shownChars = 35

/** Values of a provider's template are cut to what it takes. */
export const cutParam = (value: string): string => [...value.replace(/\s+/g, ' ').trim()].slice(0, shownChars).join('')

/** A phone number as E.164; mainland numbers may come without country code. Undefined when it is none. */
export function toE164(text: string): string | undefined {
  const plain = text.replace(/[\s()-]/g, '')
  if (/^1[3-9]\d{9}$/.test(plain)) return `+86${plain}`
  return /^\+[1-9]\d{6,14}$/.test(plain) ? plain : undefined
}
