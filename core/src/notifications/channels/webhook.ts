// SPDX-License-Identifier: AGPL-3.0-only
import { createHmac, createPrivateKey, createPublicKey, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { Type } from 'typebox'
import { str } from '../channel-type.ts'
import type { ChannelConfig, HttpChannelType, Rendered } from '../channel-type.ts'
import { disabled, rejected, retry, retryAfterMs, sent, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'

const maxBodyBytes = 20_480
const redirects = new Set([301, 302, 303, 307, 308])
/** ASN.1 of an ed25519 private key before its 32 bytes (RFC 8410). */
const pkcs8 = Buffer.from('302e020100300506032b657004220420', 'hex')

type Signed = { id: string; ts: number; body: string }

/** Standard Webhooks, symmetric. @param secret `whsec_` and base64 of 24–64 bytes */
export function signV1(secret: string, { id, ts, body }: Signed): string {
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
  return `v1,${createHmac('sha256', key).update(`${id}.${ts}.${body}`).digest('base64')}`
}

/** Standard Webhooks, ed25519. @param seed 32 bytes */
export function signV1a(seed: Buffer, { id, ts, body }: Signed): string {
  return `v1a,${sign(null, Buffer.from(`${id}.${ts}.${body}`), privateKey(seed)).toString('base64')}`
}

/** The public key of a seed as receivers are given it. */
export function whpk(seed: Buffer): string {
  const der = createPublicKey(privateKey(seed)).export({ format: 'der', type: 'spki' })
  return `whpk_${der.subarray(-32).toString('base64')}`
}

function privateKey(seed: Buffer): KeyObject {
  return createPrivateKey({ key: Buffer.concat([pkcs8, seed]), format: 'der', type: 'pkcs8' })
}

/** At most 20 KiB: of what is larger, arrays are cut and it says so. */
export function webhookBody(message: Rendered): string {
  const head = { type: message.event, timestamp: message.at.toISOString() }
  const whole = JSON.stringify({ ...head, data: message.data })
  if (Buffer.byteLength(whole) <= maxBodyBytes) return whole
  for (let keep = 10; keep >= 0; keep = keep === 0 ? -1 : Math.floor(keep / 2)) {
    const cut = JSON.stringify({ ...head, data: { ...cutArrays(message.data, keep), truncated: true } })
    if (Buffer.byteLength(cut) <= maxBodyBytes) return cut
  }
  const [link] = message.links
  return JSON.stringify({ ...head, data: { title: message.title, ...(link ? { url: link.url } : {}), truncated: true } })
}

function cutArrays(data: Record<string, unknown>, keep: number): Record<string, unknown> {
  return Object.fromEntries(Object.entries(data).map(([name, value]) => [name, Array.isArray(value) ? value.slice(0, keep) : value]))
}

/** `whsec_…` whose bytes are base64 of the right length. */
export function isWebhookSecret(text: string): boolean {
  const base64 = text.replace(/^whsec_/, '')
  const bytes = Buffer.from(base64, 'base64')
  const isBase64 = bytes.toString('base64').replace(/=+$/, '') === base64.replace(/=+$/, '')
  return text.startsWith('whsec_') && isBase64 && bytes.length >= 24 && bytes.length <= 64
}

const ownHeader = /^(host|content-length|content-type|connection|transfer-encoding|webhook-.*)$/i

function check(config: ChannelConfig): { pointer: string; detail: string }[] {
  const problems = [...Object.keys(headersOf(config, 'headers')), ...Object.keys(headersOf(config, 'headerSecrets'))]
    .filter((name) => ownHeader.test(name))
    .map((name) => ({ pointer: `/config/headers/${name}`, detail: 'This header is set by the server.' }))
  const secret = str(config, 'signingSecret')
  if (str(config, 'algorithm') !== 'v1a' && secret && !isWebhookSecret(secret)) {
    problems.push({ pointer: '/config/signingSecret', detail: 'whsec_ and base64 of 24 to 64 bytes are needed.' })
  }
  return problems
}

function headersOf(config: ChannelConfig, name: string): Record<string, string> {
  const value = config[name]
  return typeof value === 'object' && value !== null ? (value as Record<string, string>) : {}
}

/** The 32 bytes of an asymmetric signing secret. */
export const seedOf = (secret: string): Buffer => Buffer.from(secret.replace(/^whsk_/, ''), 'base64')

function signatures(config: ChannelConfig, signed: Signed): string {
  const until = str(config, 'oldSecretUntil')
  const isOldGood = until === '' || signed.ts * 1000 < Date.parse(until)
  const isAsymmetric = str(config, 'algorithm') === 'v1a'
  // After a change of the secret the old one signs too for a day.
  return [str(config, 'signingSecret'), isOldGood ? str(config, 'oldSecret') : '']
    .filter(Boolean)
    .map((secret) => (isAsymmetric ? signV1a(seedOf(secret), signed) : signV1(secret, signed)))
    .join(' ')
}

function classify(reply: Reply, at: At): Outcome {
  const { status } = reply
  if (status >= 200 && status < 300) return sent()
  if (redirects.has(status)) return disabled('redirect')
  if (status === 410) return withWords(disabled('gone'), 410, reply.body.slice(0, 300))
  if (status === 413) return rejected('size')
  return withWords(retry(retryAfterMs(reply, at.now), `http_${status}`), status, reply.body.slice(0, 300))
}

const Headers = Type.Record(
  Type.String({ pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$" }),
  Type.String({ pattern: '^[\\x20-\\x7e]{0,1000}$' }),
  {
    additionalProperties: false,
    maxProperties: 20,
  },
)

export const webhook: HttpChannelType = {
  type: 'webhook',
  title: { zh: 'Webhook', en: 'Webhook' },
  config: Type.Object(
    {
      url: Type.String({ pattern: '^https?://\\S+$', maxLength: 2000 }),
      method: Type.Optional(Type.Union([Type.Literal('POST'), Type.Literal('PUT')])),
      headers: Type.Optional(Headers),
      headerSecrets: Type.Optional(Headers),
      algorithm: Type.Optional(Type.Union([Type.Literal('v1'), Type.Literal('v1a')])),
      signingSecret: Type.Optional(Type.String({ maxLength: 200 })),
      oldSecret: Type.Optional(Type.String({ maxLength: 200 })),
      oldSecretUntil: Type.Optional(Type.String({ format: 'date-time' })),
    },
    { additionalProperties: false },
  ),
  secrets: ['signingSecret', 'oldSecret', 'headerSecrets'],
  addresses: ['url'],
  rates: [{ count: 50, perMs: 1000 }],
  dialect: 'plain',
  limit: { unit: 'chars', markdown: 20_000, text: 20_000 },
  check,
  build(message, config, at) {
    const body = webhookBody(message)
    const ts = Math.floor(at.now / 1000)
    return {
      method: str(config, 'method') === 'PUT' ? 'PUT' : 'POST',
      url: str(config, 'url'),
      headers: {
        ...headersOf(config, 'headers'),
        ...headersOf(config, 'headerSecrets'),
        'content-type': 'application/json',
        'webhook-id': message.deliveryId,
        'webhook-timestamp': String(ts),
        'webhook-signature': signatures(config, { id: message.deliveryId, ts, body }),
      },
      body,
    }
  },
  classify,
}
