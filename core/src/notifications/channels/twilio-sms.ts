// SPDX-License-Identifier: AGPL-3.0-only
import { createHmac } from 'node:crypto'
import { Type } from 'typebox'
import { str } from '../channel-type.ts'
import type { HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, gone, jsonOf, rejected, retry, retryAfterMs, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

/** What a callback's `X-Twilio-Signature` must be: HMAC-SHA1 over the address and the sorted names and values. */
export function signTwilio(token: string, url: string, params: Readonly<Record<string, string>>): string {
  const text = Object.entries(params)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .reduce((all, [name, value]) => all + name + value, url)
  return createHmac('sha1', token).update(text).digest('base64')
}

function judge(reply: Reply, body: Record<string, unknown> | undefined, at: At): Outcome {
  const code = Number(body?.['code'])
  if (reply.status === 201) return body?.['sid'] === undefined ? unknown() : sent(body['sid'])
  if ([21211, 21612, 21614].includes(code)) return gone('number')
  if (code === 21610) return gone('opted_out')
  if (code === 21617 || code === 21602) return rejected()
  if ([20003, 20404, 21606, 21608].includes(code)) return disabled(`code_${code}`)
  if (code === 20429 || reply.status === 429 || reply.status >= 500) return retry(retryAfterMs(reply, at.now), 'provider')
  return byStatus(reply, at) ?? unknown()
}

export const twilioSms: HttpChannelType = {
  type: 'twilio_sms',
  title: { zh: 'Twilio 短信', en: 'Twilio SMS' },
  config: Type.Object(
    {
      accountSid: Type.String({ pattern: '^AC\\w{8,64}$' }),
      authToken: Type.String({ pattern: '^\\w{8,128}$' }),
      from: Type.Optional(Type.String({ pattern: '^(\\+[1-9]\\d{6,14}|[A-Za-z0-9 ]{1,11})$' })),
      messagingServiceSid: Type.Optional(Type.String({ pattern: '^MG\\w{8,64}$' })),
      phone: Type.Optional(Type.String({ maxLength: 20 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['authToken'],
  rates: [{ count: 1, perMs: 1000 }],
  dialect: 'plain',
  limit: { unit: 'chars', markdown: 1600, text: 1600 },
  isOnce: true,
  check: (config) =>
    (config['from'] === undefined) === (config['messagingServiceSid'] === undefined)
      ? [{ pointer: '/config/from', detail: 'Give either a number to send from or a messaging service.' }]
      : [],
  build(message, config, at) {
    const sid = str(config, 'accountSid')
    const service = str(config, 'messagingServiceSid')
    const form = new URLSearchParams({
      To: message.address ?? str(config, 'phone'),
      ...(service ? { MessagingServiceSid: service } : { From: str(config, 'from') }),
      Body: [message.title, message.text].filter(Boolean).join('\n').slice(0, 1600),
      ...(message.callbackUrl ? { StatusCallback: message.callbackUrl } : {}),
    })
    return {
      method: 'POST',
      url: `${at.base('twilio_sms', 'https://api.twilio.com')}/2010-04-01/Accounts/${sid}/Messages.json`,
      headers: {
        'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
        authorization: `Basic ${Buffer.from(`${sid}:${str(config, 'authToken')}`).toString('base64')}`,
      },
      body: form.toString(),
    }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    return withWords(judge(reply, body, at), body?.['code'], body?.['message'])
  },
}
