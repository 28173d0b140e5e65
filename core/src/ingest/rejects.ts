// SPDX-License-Identifier: AGPL-3.0-only

/** Why a message or a point was refused (specs: device API §14). Codes are never reused. */
export const rejectCodes = [
  'PAYLOAD_MALFORMED',
  'SHAPE_INVALID',
  'DUPLICATE_KEY',
  'JSON_TOO_DEEP',
  'KEY_INVALID',
  'VALUE_NOT_FINITE',
  'VALUE_TOO_LARGE',
  'STRING_INVALID',
  'TOPIC_UNKNOWN',
  'TOPIC_FORBIDDEN',
  'PACKET_TOO_LARGE',
  'STORE_FAILED',
  'TS_INVALID',
  'TS_SECONDS',
  'TS_FUTURE',
  'TOO_MANY_POINTS',
  'TOO_MANY_KEYS',
  'RATE_LIMITED',
  'PROTOCOL_ERROR',
  'AUTH_FAILED',
  'CODEC_UNAVAILABLE',
  'DEVICE_LIMIT',
  'CHILD_FORBIDDEN',
  'RPC_STALE',
  'DOWNLINK_TOO_LARGE',
] as const
export type RejectCode = (typeof rejectCodes)[number]

/** A refusal of a whole message, or of the point `key` at `ts` inside it. */
export type Reject = {
  code: RejectCode
  /** English, without secrets; names the limit or the setting that would accept it. */
  detail: string
  key?: string
  ts?: number
}
