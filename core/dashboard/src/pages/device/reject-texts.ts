// SPDX-License-Identifier: AGPL-3.0-only
import type { Product } from '../../api/types.ts'

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
  'RPC_STALE',
  'DEVICE_LIMIT',
  'CHILD_FORBIDDEN',
  'DOWNLINK_TOO_LARGE',
])

/** What a connector refuses because of its mapping, and not because of what the device is. */
const ofMapping = new Set(['TOPIC_UNKNOWN', 'SHAPE_INVALID', 'KEY_INVALID', 'TS_INVALID'])

/** Key of the sentence that says how to mend what was refused. */
export function fixOf(code: string, transport = ''): string {
  if (transport === 'connector' && ofMapping.has(code)) return 'reject.fix.connector'
  return withFix.has(code) ? `reject.fix.${code}` : 'reject.fix.other'
}

/**
 * The page of the product's setting that would let it through, with the setting's name; undefined when none would.
 * What is refused in any case, such as a payload that is no JSON under the relaxed rules, has none.
 */
export function settingOf(code: string, product: Pick<Product, 'id' | 'payload'>, transport = ''): string | undefined {
  if (transport === 'connector' && ofMapping.has(code)) return '/connectors'
  const page = (tab: string, name?: string) => `/products/${product.id}/${tab}${name ? `#${name}` : ''}`
  switch (code) {
    case 'TS_SECONDS':
      return page('payload', 'timestampUnit')
    case 'TS_FUTURE':
      return page('payload', 'maxFutureMs')
    case 'DUPLICATE_KEY':
      return page('payload', 'duplicateKeys')
    case 'PAYLOAD_MALFORMED':
      return product.payload.json === 'strict' ? page('payload', 'json') : undefined
    case 'TOPIC_UNKNOWN':
      return page('transport', 'telemetryTopics')
    case 'RATE_LIMITED':
      return page('limits')
    case 'DEVICE_LIMIT':
      return page('overview', 'maxChildDevices')
    case 'CHILD_FORBIDDEN':
      return page('overview', 'autoCreate')
    default:
      return undefined
  }
}
