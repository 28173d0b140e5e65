// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { jsonHeaders, minuteMs, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, jsonOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

function judge(code: number, reply: Reply, at: At): Outcome {
  if (code === 0) return byStatus(reply, at) ?? sent()
  if (code === 45009) return retry(minuteMs, 'rate')
  if (code === -1) return retry(5000, 'busy')
  if (code === 93000) return disabled('token')
  if (code === 60020) return disabled('ip')
  if ([40008, 40058, 44004, 45002].includes(code)) return rejected()
  return unknown(`code_${code}`)
}

export const wecom: HttpChannelType = {
  type: 'wecom',
  title: { zh: '企业微信', en: 'WeCom' },
  config: Type.Object(
    {
      key: Type.String({ pattern: '^[A-Za-z0-9-]{16,64}$' }),
      mentionedList: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { maxItems: 50 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['key'],
  rates: [{ count: 20, perMs: minuteMs }],
  dialect: 'wecom',
  limit: { unit: 'bytes', markdown: 4096, text: 2048 },
  digests: true,
  url: {
    hosts: ['qyapi.weixin.qq.com'],
    split(url) {
      const key = url.searchParams.get('key')
      return url.pathname === '/cgi-bin/webhook/send' && key ? { key } : undefined
    },
  },
  build(message, config, at) {
    const links = message.links
      .map((link) => (message.format === 'text' ? `${link.label}: ${link.url}` : `[${link.label}](${link.url})`))
      .join(' ')
    const whole = (title: string) => [title, message.text, links].filter(Boolean).join('\n')
    const mentioned = Array.isArray(config['mentionedList']) ? config['mentionedList'] : []
    const body =
      message.format === 'text'
        ? { msgtype: 'text', text: { content: whole(message.title), mentioned_list: mentioned, mentioned_mobile_list: [] } }
        : { msgtype: 'markdown', markdown: { content: whole(message.title && `**${message.title}**`) } }
    const url = `${at.base('wecom', 'https://qyapi.weixin.qq.com')}/cgi-bin/webhook/send?key=${encodeURIComponent(str(config, 'key'))}`
    return { method: 'POST', url, headers: jsonHeaders, body: JSON.stringify(body) }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    const code = body?.['errcode']
    if (typeof code !== 'number') return byStatus(reply, at) ?? unknown()
    return withWords(judge(code, reply, at), code, body?.['errmsg'])
  },
}
