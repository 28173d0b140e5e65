// SPDX-License-Identifier: AGPL-3.0-only
import { createHmac } from 'node:crypto'
import { Type } from 'typebox'
import { jsonHeaders, minuteMs, str } from '../channel-type.ts'
import type { HttpChannelType, Rendered } from '../channel-type.ts'
import { byStatus, disabled, jsonOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

/** As it stands in the query. @param ts milliseconds */
export function signDingtalk(secret: string, ts: number): string {
  return encodeURIComponent(createHmac('sha256', secret).update(`${ts}\n${secret}`).digest('base64'))
}

function judge(code: number, words: string, reply: Reply, at: At): Outcome {
  if (code === 0) return byStatus(reply, at) ?? sent()
  if (code === 130101 || code === 410100) return retry(minuteMs, 'rate')
  if (code === -1) return retry(5000, 'busy')
  if (code === 310000) {
    if (/keywords/i.test(words)) return rejected('keyword', "Set the robot's keyword in the channel.")
    if (/sign|timestamp/i.test(words)) {
      return disabled('sign', 'The secret is wrong, or the clock of this server is off by more than an hour.')
    }
    return disabled(/\bip\b/i.test(words) ? 'ip' : 'security')
  }
  if ([300001, 300005, 400101].includes(code)) return disabled('token')
  if ([400013, 400102, 400106].includes(code)) return disabled('robot')
  if ([40035, 43002, 460101].includes(code)) return rejected()
  return unknown(`code_${code}`)
}

function classify(reply: Reply, at: At): Outcome {
  const body = jsonOf(reply)
  if (body?.['status'] === 1111 && typeof body['wait'] === 'number') {
    return withWords(retry(body['wait'] * 1000, 'punished'), 1111, body['punish'])
  }
  const code = body?.['errcode']
  if (typeof code !== 'number') return byStatus(reply, at) ?? unknown()
  return withWords(judge(code, String(body?.['errmsg'] ?? ''), reply, at), code, body?.['errmsg'])
}

function bodyOf(message: Rendered, keyword: string, mobiles: readonly string[]) {
  const tail = keyword && !`${message.title}${message.text}`.includes(keyword) ? `\n\n${keyword}` : ''
  // Whom it mentions must also stand in the text.
  const mentions = mobiles.map((mobile) => `@${mobile}`).join(' ')
  const at = { atMobiles: mobiles, isAtAll: false }
  if (message.format === 'text') {
    const text = [message.title, message.text, mentions].filter(Boolean).join('\n') + tail
    return { msgtype: 'text', text: { content: text }, at }
  }
  const links = message.links.map((link) => `[${link.label}](${link.url})`).join(' ')
  const text = [`### ${message.title}`, message.text, links, mentions].filter(Boolean).join('\n\n') + tail
  return { msgtype: 'markdown', markdown: { title: message.title, text }, at }
}

export const dingtalk: HttpChannelType = {
  type: 'dingtalk',
  title: { zh: '钉钉', en: 'DingTalk' },
  config: Type.Object(
    {
      accessToken: Type.String({ pattern: '^[A-Za-z0-9]{16,128}$' }),
      signSecret: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
      keyword: Type.Optional(Type.String({ maxLength: 100 })),
      atMobiles: Type.Optional(Type.Array(Type.String({ pattern: '^\\+?\\d{5,20}$' }), { maxItems: 50 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['accessToken', 'signSecret'],
  rates: [{ count: 20, perMs: minuteMs }],
  dialect: 'dingtalk',
  limit: { unit: 'bytes', markdown: 18_000, text: 18_000 },
  digests: true,
  url: {
    hosts: ['oapi.dingtalk.com'],
    split(url) {
      const token = url.searchParams.get('access_token')
      return url.pathname === '/robot/send' && token ? { accessToken: token } : undefined
    },
  },
  build(message, config, at) {
    const secret = str(config, 'signSecret')
    const signed = secret ? `&timestamp=${at.now}&sign=${signDingtalk(secret, at.now)}` : ''
    const mobiles = Array.isArray(config['atMobiles']) ? config['atMobiles'].map(String) : []
    return {
      method: 'POST',
      url: `${at.base('dingtalk', 'https://oapi.dingtalk.com')}/robot/send?access_token=${encodeURIComponent(str(config, 'accessToken'))}${signed}`,
      headers: jsonHeaders,
      body: JSON.stringify(bodyOf(message, str(config, 'keyword'), mobiles)),
    }
  },
  classify,
}
