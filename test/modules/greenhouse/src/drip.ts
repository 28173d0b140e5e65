// SPDX-License-Identifier: AGPL-3.0-only
import type { ModuleCodec } from '@iot-pms/core'

/** `temperature 21.5`: a key and a number, now. */
export const drip: ModuleCodec = {
  name: 'drip',
  decode(payload) {
    const [key, value] = payload.toString('utf8').trim().split(' ')
    if (!key || !Number.isFinite(Number(value))) throw new Error('expected a key and a number')
    return [{ key, ts: Date.now(), kind: 'double', value: Number(value) }]
  },
}
