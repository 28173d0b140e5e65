// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, gone, jsonOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

const levels = ['', 'critical', 'timeSensitive', 'active', 'active', 'passive'] as const

function judge(reply: Reply, body: Record<string, unknown> | undefined, at: At): Outcome {
  if (/device token|BadDeviceToken|Unregistered/i.test(String(body?.['message'] ?? ''))) return gone('device')
  if (reply.status === 200 && body?.['code'] === 200) return sent(body['timestamp'])
  if (body?.['code'] === 500) return retry(undefined, 'provider')
  if (reply.status === 400 || body?.['code'] === 400) return rejected()
  if (reply.status === 404) return disabled('server')
  return byStatus(reply, at) ?? unknown()
}

export const bark: HttpChannelType = {
  type: 'bark',
  title: { zh: 'Bark', en: 'Bark' },
  config: Type.Object(
    {
      server: Type.String({ pattern: '^https?://\\S+$', maxLength: 500, default: 'https://api.day.app' }),
      deviceKeys: Type.Array(Type.String({ pattern: '^[\\w-]{5,100}$' }), { minItems: 1, maxItems: 50 }),
      sound: Type.Optional(Type.String({ pattern: '^[\\w.-]{1,50}$' })),
      group: Type.Optional(Type.String({ maxLength: 100 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['deviceKeys'],
  addresses: ['server'],
  rates: [{ count: 5, perMs: 1000 }],
  dialect: 'plain',
  limit: { unit: 'bytes', markdown: 3500, text: 3500 },
  build(message, config, at) {
    const [first] = message.links
    const { sound, group } = config
    return {
      method: 'POST',
      url: `${at.base('bark', str(config, 'server').replace(/\/+$/, ''))}/push`,
      headers: jsonHeaders,
      body: JSON.stringify({
        device_keys: config['deviceKeys'],
        title: message.title,
        body: message.text,
        level: levels[message.priority],
        ...(sound === undefined ? {} : { sound }),
        ...(group === undefined ? {} : { group }),
        ...(first ? { url: first.url } : {}),
      }),
    }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    return withWords(judge(reply, body, at), body?.['code'], body?.['message'])
  },
}
