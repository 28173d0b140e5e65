// SPDX-License-Identifier: AGPL-3.0-only
import { createHmac } from 'node:crypto'
import { Type } from 'typebox'
import { jsonHeaders, minuteMs, str } from '../channel-type.ts'
import type { HttpChannelType, Rendered } from '../channel-type.ts'
import { byStatus, disabled, jsonOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

const colours = ['', 'red', 'orange', 'yellow', 'blue', 'grey'] as const

/** base64 of an HMAC whose key is `timestamp\nsecret` and whose message is empty. @param ts seconds */
export function signFeishu(secret: string, ts: number): string {
  return createHmac('sha256', `${ts}\n${secret}`).update('').digest('base64')
}

function content(message: Rendered, keyword: string) {
  // A keyword the robot insists on is added where the text lacks it.
  const tail = keyword && !`${message.title}${message.text}`.includes(keyword) ? `\n${keyword}` : ''
  if (message.format === 'text') {
    const text = [message.title, message.text].filter(Boolean).join('\n') + tail
    return { msg_type: 'text', content: { text } }
  }
  const actions = message.links.map((link) => ({
    tag: 'button',
    text: { tag: 'plain_text', content: link.label },
    type: 'default',
    url: link.url,
  }))
  return {
    msg_type: 'interactive',
    card: {
      config: { wide_screen_mode: true },
      header: { title: { tag: 'plain_text', content: message.title }, template: message.resolved ? 'green' : colours[message.priority] },
      elements: [{ tag: 'markdown', content: message.text + tail }, ...(actions.length > 0 ? [{ tag: 'action', actions }] : [])],
    },
  }
}

function classify(reply: Reply, at: At): Outcome {
  const body = jsonOf(reply)
  const code = body?.['code'] ?? body?.['StatusCode']
  const words = body?.['msg'] ?? body?.['StatusMessage']
  if (typeof code !== 'number') return byStatus(reply, at) ?? unknown()
  return withWords(judge(code, String(words ?? ''), reply, at), code, words)
}

function judge(code: number, words: string, reply: Reply, at: At): Outcome {
  // The limits bite at full and half hours, when everybody sends.
  const busy = () => retry(minuteMs + Math.floor(at.random() * 15_000), 'rate')
  if (code === 0) return byStatus(reply, at) ?? sent()
  if (code === 11232 || code === 99991400) return busy()
  if (code === 9499) return /too many|frequen|rate/i.test(words) ? busy() : rejected()
  if (code === 19001) return disabled('token')
  if (code === 19021) return disabled('sign', 'The secret is wrong, or the clock of this server is off by more than an hour.')
  if (code === 19022) return disabled('ip')
  if (code === 19024) return rejected('keyword', "Set the robot's keyword in the channel.")
  return unknown(`code_${code}`)
}

function feishuAt(type: 'feishu' | 'lark', host: string, title: { zh: string; en: string }): HttpChannelType {
  return {
    type,
    title,
    config: Type.Object(
      {
        token: Type.String({ pattern: '^[A-Za-z0-9_-]{8,100}$' }),
        signSecret: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
        keyword: Type.Optional(Type.String({ maxLength: 100 })),
      },
      { additionalProperties: false },
    ),
    secrets: ['token', 'signSecret'],
    rates: [
      { count: 5, perMs: 1000 },
      { count: 100, perMs: minuteMs },
    ],
    dialect: 'feishu',
    limit: { unit: 'bytes', markdown: 18_000, text: 18_000 },
    digests: true,
    url: { hosts: [host], split: (url) => tokenOf(/^\/open-apis\/bot\/v2\/hook\/([\w-]+)$/, url) },
    build(message, config, at) {
      const ts = Math.floor(at.now / 1000)
      const secret = str(config, 'signSecret')
      const body = {
        ...(secret ? { timestamp: String(ts), sign: signFeishu(secret, ts) } : {}),
        ...content(message, str(config, 'keyword')),
      }
      const url = `${at.base(type, `https://${host}`)}/open-apis/bot/v2/hook/${str(config, 'token')}`
      return { method: 'POST', url, headers: jsonHeaders, body: JSON.stringify(body) }
    },
    classify,
  }
}

const tokenOf = (pattern: RegExp, url: URL) => {
  const token = pattern.exec(url.pathname)?.[1]
  return token === undefined ? undefined : { token }
}

export const feishu = feishuAt('feishu', 'open.feishu.cn', { zh: '飞书', en: 'Feishu' })
export const lark = feishuAt('lark', 'open.larksuite.com', { zh: 'Lark', en: 'Lark' })
