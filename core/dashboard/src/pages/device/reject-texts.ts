// SPDX-License-Identifier: AGPL-3.0-only

/** Codes whose mending differs; others share one sentence. Texts: i18n `reject.fix.*`. */
const withFix = new Set([
  'PAYLOAD_MALFORMED',
  'SHAPE_INVALID',
  'TOPIC_UNKNOWN',
  'TS_SECONDS',
  'TS_INVALID',
  'TS_FUTURE',
  'RATE_LIMITED',
  'TOO_MANY_POINTS',
  'TOO_MANY_KEYS',
  'PACKET_TOO_LARGE',
  'KEY_INVALID',
  'AUTH_FAILED',
  'CODEC_UNAVAILABLE',
  'STORE_FAILED',
])

/** Key of the sentence that says how to mend what was refused. */
export function fixOf(code: string): string {
  return withFix.has(code) ? `reject.fix.${code}` : 'reject.fix.other'
}
