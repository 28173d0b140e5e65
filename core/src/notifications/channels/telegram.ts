// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { jsonHeaders, minuteMs, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, gone, jsonOf, memberOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

function judge(reply: Reply, body: Record<string, unknown> | undefined, at: At): Outcome {
  const parameters = memberOf(body, 'parameters')
  const words = String(body?.['description'] ?? '')
  if (reply.status === 200) {
    const id = memberOf(body, 'result')?.['message_id']
    return body?.['ok'] === true && id !== undefined ? sent(id) : unknown()
  }
  if (reply.status === 429) {
    const seconds = parameters?.['retry_after']
    return retry(typeof seconds === 'number' ? seconds * 1000 : minuteMs, 'rate')
  }
  const moved = parameters?.['migrate_to_chat_id']
  if (reply.status === 400 && moved !== undefined) return { outcome: 'retry', reason: 'moved', afterMs: 0, movedTo: String(moved) }
  if (reply.status === 403 || (reply.status === 400 && /chat not found/i.test(words))) return gone('chat')
  if (reply.status === 401 || reply.status === 404) return disabled('token')
  if (reply.status === 400) return rejected()
  return byStatus(reply, at) ?? unknown()
}

export const telegram: HttpChannelType = {
  type: 'telegram',
  title: { zh: 'Telegram', en: 'Telegram' },
  config: Type.Object(
    {
      botToken: Type.String({ pattern: '^\\d{5,20}:[\\w-]{20,100}$' }),
      chatId: Type.String({ pattern: '^(-?\\d{1,20}|@\\w{3,64})$' }),
      threadId: Type.Optional(Type.Integer({ minimum: 1 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['botToken'],
  // 30/s are the bot's, one a second the chat's, and a group takes 20 a minute: a channel is one chat.
  rates: [
    { count: 1, perMs: 1000 },
    { count: 20, perMs: minuteMs },
  ],
  dialect: 'telegram',
  limit: { unit: 'utf16', markdown: 4096, text: 4096 },
  digests: true,
  build(message, config, at) {
    const title = message.title ? `${message.title}\n` : ''
    const links = message.links.map((link) => `\n${link.label}: ${link.url}`).join('')
    const shifted = (message.entities ?? []).map((entity) => ({ ...entity, offset: Number(entity['offset']) + title.length }))
    const bold = message.title ? [{ type: 'bold', offset: 0, length: message.title.length }] : []
    return {
      method: 'POST',
      url: `${at.base('telegram', 'https://api.telegram.org')}/bot${str(config, 'botToken')}/sendMessage`,
      headers: jsonHeaders,
      body: JSON.stringify({
        chat_id: message.address ?? str(config, 'chatId'),
        text: title + message.text + links,
        entities: message.format === 'text' ? [] : [...bold, ...shifted],
        ...(config['threadId'] === undefined ? {} : { message_thread_id: config['threadId'] }),
        disable_notification: message.priority >= 4,
        link_preview_options: { is_disabled: true },
      }),
    }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    return withWords(judge(reply, body, at), body?.['error_code'], body?.['description'])
  },
}
