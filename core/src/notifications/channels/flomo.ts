// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { dayMs, jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, jsonOf, memberOf, rejected, sent, unknown, withWords } from '../outcome.ts'

export const flomo: HttpChannelType = {
  type: 'flomo',
  title: { zh: 'flomo 浮墨', en: 'flomo' },
  config: Type.Object(
    {
      user: Type.String({ pattern: '^[A-Za-z0-9]{1,64}$' }),
      secret: Type.String({ pattern: '^[A-Za-z0-9]{1,128}$' }),
      tags: Type.Optional(Type.Array(Type.String({ pattern: '^[^\\s#]{1,50}$' }), { maxItems: 10 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['user', 'secret'],
  rates: [
    { count: 1, perMs: 1000 },
    { count: 100, perMs: dayMs },
  ],
  dialect: 'plain',
  limit: { unit: 'chars', markdown: 4500, text: 4500 },
  digests: true,
  url: {
    hosts: ['flomoapp.com'],
    split(url) {
      const [, user, secret] = /^\/iwh\/(\w+)\/(\w+)\/?$/.exec(url.pathname) ?? []
      return user && secret ? { user, secret } : undefined
    },
  },
  build(message, config, at) {
    const tags = Array.isArray(config['tags']) ? config['tags'].map((tag) => `#${String(tag)}`).join(' ') : '#iot/alarm'
    const links = message.links.map((link) => `${link.label}: ${link.url}`).join('\n')
    return {
      method: 'POST',
      url: `${at.base('flomo', 'https://flomoapp.com')}/iwh/${str(config, 'user')}/${str(config, 'secret')}/`,
      headers: jsonHeaders,
      body: JSON.stringify({ content: [message.title, message.text, links, tags].filter(Boolean).join('\n') }),
    }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    const general = byStatus(reply, at)
    if (general) return withWords(general, body?.['code'], body?.['message'])
    if (body?.['code'] === undefined) return unknown()
    const outcome = body['code'] === 0 ? sent(memberOf(body, 'memo')?.['slug']) : rejected()
    return withWords(outcome, body['code'], body['message'])
  },
}
