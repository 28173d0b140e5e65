// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, jsonOf, rejected, retry, retryAfterMs, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

const colours = ['', 0xd0_3b3b, 0xe0_8a2b, 0xd9_b529, 0x3b_74d0, 0x8a_8f98] as const
const green = 0x2e_9e5b

function judge(reply: Reply, body: Record<string, unknown> | undefined, at: At): Outcome {
  if (reply.status === 200) return body?.['id'] === undefined ? unknown() : sent(body['id'])
  // Without `wait=true` taking effect nothing is known about the message.
  if (reply.status === 204) return unknown('not_waited')
  if (reply.status === 429) {
    const seconds = body?.['retry_after']
    const afterMs = typeof seconds === 'number' ? Math.ceil(seconds * 1000) : retryAfterMs(reply, at.now)
    return { ...retry(afterMs, body?.['global'] === true ? 'rate_global' : 'rate'), ...(afterMs === undefined ? {} : { paceMs: afterMs }) }
  }
  if (reply.status === 400) return rejected()
  if ([401, 403, 404].includes(reply.status)) return disabled('token')
  return byStatus(reply, at) ?? unknown()
}

/** How long the next call waits, as the provider's headers say. */
function pace({ headers }: Reply): { paceMs?: number } {
  const seconds = Number(headers['x-ratelimit-reset-after'])
  return headers['x-ratelimit-remaining'] === '0' && seconds > 0 ? { paceMs: Math.ceil(seconds * 1000) } : {}
}

export const discord: HttpChannelType = {
  type: 'discord',
  title: { zh: 'Discord', en: 'Discord' },
  config: Type.Object(
    {
      token: Type.String({ pattern: '^[\\w-]{20,200}$' }),
      webhookId: Type.String({ pattern: '^\\d{5,30}$' }),
      threadId: Type.Optional(Type.String({ pattern: '^\\d{5,30}$' })),
    },
    { additionalProperties: false },
  ),
  secrets: ['token'],
  rates: [{ count: 5, perMs: 2000 }],
  dialect: 'discord',
  limit: { unit: 'chars', markdown: 4096, text: 4096 },
  url: {
    hosts: ['discord.com', 'discordapp.com'],
    split(url) {
      const [, webhookId, token] = /^\/api\/(?:v\d+\/)?webhooks\/(\d+)\/([\w-]+)$/.exec(url.pathname) ?? []
      return webhookId && token ? { webhookId, token } : undefined
    },
  },
  build(message, config, at) {
    const [first] = message.links
    const thread = str(config, 'threadId')
    const embed = {
      title: message.title.slice(0, 256),
      description: message.text,
      ...(first ? { url: first.url } : {}),
      color: message.resolved ? green : colours[message.priority],
      fields: message.links.slice(1, 5).map((link) => ({ name: link.label, value: link.url, inline: true })),
      timestamp: message.at.toISOString(),
    }
    return {
      method: 'POST',
      url: `${at.base('discord', 'https://discord.com')}/api/webhooks/${str(config, 'webhookId')}/${str(config, 'token')}?wait=true${thread ? `&thread_id=${thread}` : ''}`,
      headers: jsonHeaders,
      body: JSON.stringify({ embeds: [embed], allowed_mentions: { parse: [] } }),
    }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    return { ...withWords(judge(reply, body, at), body?.['code'], body?.['message']), ...pace(reply) }
  },
}
