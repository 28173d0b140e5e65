// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { dayMs, jsonHeaders, str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, jsonOf, memberOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

const chinaMs = 8 * 3_600_000
const titleChars = 32

/** From `now` to the next 00:05 in China, when the day's count begins anew; it has no summer time. */
export function untilChinaMorning(now: number): number {
  const local = now + chinaMs
  const today = Math.floor(local / dayMs) * dayMs + 300_000
  return (today > local ? today : today + dayMs) - local
}

function judge(reply: Reply, body: Record<string, unknown> | undefined, at: At): Outcome {
  const code = body?.['code']
  const data = memberOf(body, 'data')
  const words = `${String(body?.['message'] ?? '')} ${String(body?.['info'] ?? '')}`
  if (reply.status === 200 && code === 0) {
    return data?.['error'] === 'SUCCESS' || data?.['errno'] === 0 ? sent(data['pushid']) : unknown()
  }
  // One code for different things: the second code or the words tell them apart.
  if (code === 40001 && (body?.['scode'] === 461 || words.includes('错误的Key'))) return disabled('token')
  if (code === 40001 && (body?.['scode'] === 471 || words.includes('超过当天的发送次数'))) {
    return retry(untilChinaMorning(at.now), 'daily_limit')
  }
  if (code === 20001) return rejected()
  if (code === undefined) return byStatus(reply, at) ?? unknown()
  return unknown(`code_${String(code)}`)
}

export const serverchan: HttpChannelType = {
  type: 'serverchan',
  title: { zh: 'Server酱', en: 'ServerChan' },
  config: Type.Object({ sendKey: Type.String({ pattern: '^(SCT\\w{5,100}|sctp\\d+t\\w{5,100})$' }) }, { additionalProperties: false }),
  secrets: ['sendKey'],
  rates: [{ count: 5, perMs: dayMs }],
  dialect: 'commonmark',
  limit: { unit: 'bytes', markdown: 32_000, text: 32_000 },
  digests: true,
  url: {
    hosts: ['sctapi.ftqq.com', '*.push.ft07.com'],
    split(url) {
      const key = /^(?:\/send)?\/(\w+)\.send$/.exec(url.pathname)?.[1]
      return key === undefined ? undefined : { sendKey: key }
    },
  },
  build(message, config, at) {
    const key = str(config, 'sendKey')
    const number = /^sctp(\d+)t/.exec(key)?.[1]
    const url = number
      ? `${at.base('serverchan', `https://${number}.push.ft07.com`)}/send/${key}.send`
      : `${at.base('serverchan', 'https://sctapi.ftqq.com')}/${key}.send`
    const links = message.links.map((link) => `[${link.label}](${link.url})`).join(' ')
    const title = [...(message.title || message.text)].slice(0, titleChars).join('')
    return {
      method: 'POST',
      url,
      headers: jsonHeaders,
      body: JSON.stringify({
        title,
        desp: [message.text, links].filter(Boolean).join('\n\n'),
        short: [...message.text].slice(0, 64).join(''),
      }),
    }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    return withWords(judge(reply, body, at), body?.['scode'] ?? body?.['code'], body?.['info'] ?? body?.['message'])
  },
}
