// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { minuteMs } from '../channel-type.ts'
import type { OwnChannelType } from '../channel-type.ts'
import { disabled, gone, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { Outcome } from '../outcome.ts'

const header = '^[^\\r\\n\\u0000]*$'

export const email: OwnChannelType = {
  type: 'email',
  own: 'email',
  title: { zh: '邮件', en: 'E-mail' },
  config: Type.Object(
    {
      host: Type.String({ pattern: '^[A-Za-z0-9.:\\[\\]-]{1,253}$' }),
      port: Type.Integer({ minimum: 1, maximum: 65_535 }),
      security: Type.Union([Type.Literal('tls'), Type.Literal('starttls'), Type.Literal('none')]),
      user: Type.Optional(Type.String({ pattern: header, maxLength: 200 })),
      password: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
      from: Type.String({ pattern: '^[^\\r\\n]*[^\\s@<>]+@[^\\s@<>]+[^\\r\\n]*$', maxLength: 300 }),
      replyTo: Type.Optional(Type.String({ pattern: '^[^\\s@]+@[^\\s@]+$', maxLength: 300 })),
      to: Type.Optional(Type.String({ pattern: '^[^\\s@]+@[^\\s@]+$', maxLength: 300 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['password'],
  rates: [{ count: 30, perMs: minuteMs }],
  dialect: 'html',
  limit: { unit: 'bytes', markdown: 1_000_000, text: 1_000_000 },
}

/** What an SMTP answer means [notifications 4.6]. */
export function classifySmtp(code: number, words: string): Outcome {
  const judge = (): Outcome => {
    if (code >= 200 && code < 300) return sent()
    if (code >= 400 && code < 500) return retry(undefined, `smtp_${code}`)
    if ([530, 534, 535, 538].includes(code)) return disabled('auth')
    if ([550, 551, 553, 556].includes(code)) return gone('mailbox')
    if (code === 552) return rejected('size')
    if (code >= 500 && code < 600) return rejected(`smtp_${code}`)
    return unknown(`smtp_${code}`)
  }
  return withWords(judge(), code, words)
}
