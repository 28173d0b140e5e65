// SPDX-License-Identifier: AGPL-3.0-only
import { createHmac, createPublicKey, timingSafeEqual, verify } from 'node:crypto'

export type ReceivedWebhook = {
  /** As Node or `fetch` has them. */
  headers: Headers | Readonly<Record<string, string | string[] | undefined>>
  /** The very bytes that came: not parsed and written again. */
  rawBody: string | Uint8Array
  /** `whsec_…`, or the public key `whpk_…`. */
  secret: string
  /** How far its instant may be from now; 300 s. */
  toleranceS?: number
}
/** `id` is the same in every attempt: whoever remembers it handles each message once. */
export type VerifiedWebhook = { id: string; type: string; timestamp: string; data: Record<string, unknown> }

export class WebhookError extends Error {
  readonly code: 'WEBHOOK_HEADERS' | 'WEBHOOK_OLD' | 'WEBHOOK_SIGNATURE'

  constructor(code: WebhookError['code'], message: string) {
    super(message)
    this.name = 'WebhookError'
    this.code = code
  }
}

/** ASN.1 of an ed25519 public key before its 32 bytes (RFC 8410). */
const spki = Buffer.from('302a300506032b6570032100', 'hex')

/**
 * Checks a webhook by Standard Webhooks 1.0.0.
 *
 * @throws {WebhookError} unless one of its signatures is right and it is fresh
 */
export function verifyWebhook({ headers, rawBody, secret, toleranceS = 300 }: ReceivedWebhook): VerifiedWebhook {
  const header = (name: string) => {
    const value = headers instanceof Headers ? headers.get(name) : headers[name]
    return typeof value === 'string' ? value : ''
  }
  const [id, timestamp, signatures] = [header('webhook-id'), header('webhook-timestamp'), header('webhook-signature')]
  if (id === '' || !/^\d{1,12}$/.test(timestamp) || signatures === '') refuse('WEBHOOK_HEADERS', 'webhook headers are missing')
  const isFresh = Math.abs(Date.now() / 1000 - Number(timestamp)) <= toleranceS
  if (!isFresh) refuse('WEBHOOK_OLD', 'the webhook is too old, or from the future')
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), Buffer.from(rawBody)])
  const isOurs = signatures.split(' ').some((one) => isRight(one, signed, secret))
  if (!isOurs) refuse('WEBHOOK_SIGNATURE', 'no signature is right')
  return { id, ...(JSON.parse(Buffer.from(rawBody).toString('utf8')) as Omit<VerifiedWebhook, 'id'>) }
}

function refuse(code: WebhookError['code'], message: string): never {
  throw new WebhookError(code, message)
}

function isRight(signature: string, signed: Buffer, secret: string): boolean {
  const [version, base64 = ''] = signature.split(',')
  const given = Buffer.from(base64, 'base64')
  if (secret.startsWith('whpk_')) {
    const key = createPublicKey({ key: Buffer.concat([spki, Buffer.from(secret.slice(5), 'base64')]), format: 'der', type: 'spki' })
    return version === 'v1a' && verify(null, signed, key, given)
  }
  const wanted = createHmac('sha256', Buffer.from(secret.replace(/^whsec_/, ''), 'base64'))
    .update(signed)
    .digest()
  return version === 'v1' && given.length === wanted.length && timingSafeEqual(given, wanted)
}
