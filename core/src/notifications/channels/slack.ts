// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, rejected, retry, retryAfterMs, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

const sectionChars = 3000
const headerChars = 150

function judge(reply: Reply, at: At): Outcome {
  const body = reply.body.trim()
  if (reply.status === 200) return body === 'ok' ? sent() : unknown()
  if (reply.status === 429) return retry(retryAfterMs(reply, at.now) ?? 1000, 'rate')
  if (['invalid_payload', 'invalid_blocks'].includes(body)) return rejected(body)
  if (['action_prohibited', 'channel_not_found', 'no_service', 'no_team', 'channel_is_archived'].includes(body)) return disabled(body)
  if (body === 'rollup_error') return retry(undefined, body)
  return byStatus(reply, at) ?? unknown()
}

/** In sections of at most 3,000 characters, cut at a line where there is one. */
function sections(text: string): string[] {
  const parts: string[] = []
  for (let rest = text; rest.length > 0;) {
    const end = rest.length <= sectionChars ? rest.length : Math.max(rest.lastIndexOf('\n', sectionChars), 0) || sectionChars
    parts.push(rest.slice(0, end))
    rest = rest.slice(end).replace(/^\n/, '')
  }
  return parts
}

export const slack: HttpChannelType = {
  type: 'slack',
  title: { zh: 'Slack', en: 'Slack' },
  config: Type.Object({ path: Type.String({ pattern: '^T\\w+/B\\w+/\\w+$', maxLength: 200 }) }, { additionalProperties: false }),
  secrets: ['path'],
  rates: [{ count: 1, perMs: 1000 }],
  dialect: 'slack',
  limit: { unit: 'chars', markdown: 40_000, text: 40_000 },
  url: {
    hosts: ['hooks.slack.com'],
    split(url) {
      const path = /^\/services\/(T\w+\/B\w+\/\w+)$/.exec(url.pathname)?.[1]
      return path === undefined ? undefined : { path }
    },
  },
  build(message, config, at) {
    const blocks = [
      ...(message.title ? [{ type: 'header', text: { type: 'plain_text', text: message.title.slice(0, headerChars), emoji: false } }] : []),
      ...sections(message.text).map((text) => ({ type: 'section', text: { type: 'mrkdwn', text, verbatim: true } })),
      ...(message.links.length > 0
        ? [
            {
              type: 'actions',
              elements: message.links.map((link, i) => ({
                type: 'button',
                action_id: `link_${i}`,
                text: { type: 'plain_text', text: link.label },
                url: link.url,
              })),
            },
          ]
        : []),
    ]
    return {
      method: 'POST',
      url: `${at.base('slack', 'https://hooks.slack.com')}/services/${str(config, 'path')}`,
      headers: jsonHeaders,
      body: JSON.stringify({ text: message.title || message.text.slice(0, 300), blocks }),
    }
  },
  classify: (reply, at) => withWords(judge(reply, at), reply.status, reply.body.trim().slice(0, 200)),
}
