// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, jsonOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

const hourMs = 3_600_000

function judge(reply: Reply, body: Record<string, unknown> | undefined, at: At): Outcome {
  const code = body?.['code']
  if (reply.status === 200) return body?.['id'] === undefined ? unknown() : sent(body['id'])
  if (code === 40101 || code === 40301) return disabled('token')
  if (code === 41301) return rejected('size')
  if (code === 42908) return retry(hourMs, 'daily_limit')
  if (typeof code === 'number' && code >= 42900 && code < 43000) return retry(60_000, 'rate')
  if (typeof code === 'number' && code >= 40000 && code < 40100) return rejected()
  return byStatus(reply, at) ?? unknown()
}

export const ntfy: HttpChannelType = {
  type: 'ntfy',
  title: { zh: 'ntfy', en: 'ntfy' },
  config: Type.Object(
    {
      server: Type.String({ pattern: '^https?://\\S+$', maxLength: 500, default: 'https://ntfy.sh' }),
      topic: Type.String({ pattern: '^[\\w-]{1,64}$' }),
      token: Type.Optional(Type.String({ pattern: '^[\\w-]{1,200}$' })),
      user: Type.Optional(Type.String({ pattern: '^[^:\\s]{1,100}$' })),
      password: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['token', 'password'],
  addresses: ['server'],
  // A burst of 60 that fills up by one every 5 s.
  rates: [{ count: 60, perMs: 300_000 }],
  dialect: 'commonmark',
  limit: { unit: 'bytes', markdown: 4096, text: 4096 },
  build(message, config, at) {
    const token = str(config, 'token')
    const login = Buffer.from(`${str(config, 'user')}:${str(config, 'password')}`).toString('base64')
    const [first] = message.links
    return {
      method: 'POST',
      url: `${at.base('ntfy', str(config, 'server').replace(/\/+$/, ''))}/`,
      headers: {
        ...jsonHeaders,
        ...(token ? { authorization: `Bearer ${token}` } : str(config, 'user') ? { authorization: `Basic ${login}` } : {}),
      },
      body: JSON.stringify({
        topic: str(config, 'topic'),
        title: message.title,
        message: message.text,
        priority: 6 - message.priority,
        tags: message.resolved ? ['white_check_mark'] : [],
        ...(first ? { click: first.url } : {}),
        markdown: message.format === 'markdown',
      }),
    }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    return withWords(judge(reply, body, at), body?.['code'], body?.['error'])
  },
}
