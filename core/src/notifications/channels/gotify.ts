// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, jsonOf, rejected, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

const priorities = [0, 10, 7, 5, 3, 1] as const

function judge(reply: Reply, body: Record<string, unknown> | undefined, at: At): Outcome {
  if (reply.status === 200) return typeof body?.['id'] === 'number' ? sent(body['id']) : unknown()
  if (reply.status === 401 || reply.status === 403) return disabled('token')
  if (reply.status === 400) return rejected()
  return byStatus(reply, at) ?? unknown()
}

export const gotify: HttpChannelType = {
  type: 'gotify',
  title: { zh: 'Gotify', en: 'Gotify' },
  config: Type.Object(
    { server: Type.String({ pattern: '^https?://\\S+$', maxLength: 500 }), appToken: Type.String({ pattern: '^[\\w.-]{5,100}$' }) },
    { additionalProperties: false },
  ),
  secrets: ['appToken'],
  addresses: ['server'],
  rates: [],
  dialect: 'commonmark',
  limit: { unit: 'chars', markdown: 20_000, text: 20_000 },
  build(message, config, at) {
    const [first] = message.links
    const display = message.format === 'markdown' ? { 'client::display': { contentType: 'text/markdown' } } : {}
    return {
      method: 'POST',
      url: `${at.base('gotify', str(config, 'server').replace(/\/+$/, ''))}/message`,
      headers: { ...jsonHeaders, 'x-gotify-key': str(config, 'appToken') },
      body: JSON.stringify({
        title: message.title,
        message: message.text,
        priority: priorities[message.priority],
        extras: { ...display, ...(first ? { 'client::notification': { click: { url: first.url } } } : {}) },
      }),
    }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    return withWords(judge(reply, body, at), body?.['errorCode'], body?.['errorDescription'] ?? body?.['error'])
  },
}
