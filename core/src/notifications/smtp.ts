// SPDX-License-Identifier: AGPL-3.0-only
import type { Socket } from 'node:net'
import nodemailer from 'nodemailer'
import { ConnectError, blockedClass } from '../outbound.ts'
import type { Outbound } from '../outbound.ts'
import { str } from './channel-type.ts'
import type { ChannelConfig, Rendered } from './channel-type.ts'
import { classifySmtp } from './channels/email.ts'
import { disabled, retry, sent, withWords } from './outcome.ts'
import type { Outcome } from './outcome.ts'

const connectMs = 5000
const callMs = 60_000

type SmtpError = Error & { responseCode?: number; code?: string; response?: string }

/**
 * One message to one mailbox. `tls` and `starttls` never fall back to plain text. The `Message-ID` is the same in
 * every attempt, so that mail programs show one that came twice once.
 *
 * @param html the text as HTML
 */
export async function sendEmail(
  outbound: Outbound,
  config: ChannelConfig,
  message: Rendered,
  html: string,
  groupKey?: string,
): Promise<Outcome> {
  const security = str(config, 'security')
  const target = { kind: 'smtp' as const, host: str(config, 'host').replace(/^\[|\]$/g, ''), port: Number(config['port']) }
  let socket: Socket
  try {
    socket = await outbound.connect(target, security === 'tls' ? {} : undefined)
  } catch (error) {
    return connectFailure(error)
  }
  const from = str(config, 'from')
  const domain = /@([^\s@<>]+)/.exec(from)?.[1] ?? 'localhost'
  const idOf = (name: string) => `<${name}@${domain}>`
  const transport = nodemailer.createTransport({
    host: target.host,
    port: target.port,
    secure: security === 'tls',
    requireTLS: security === 'starttls',
    ignoreTLS: security === 'none',
    connection: socket,
    secured: security === 'tls',
    tls: { servername: target.host, minVersion: 'TLSv1.2' },
    greetingTimeout: connectMs,
    socketTimeout: callMs,
    disableFileAccess: true,
    disableUrlAccess: true,
    ...(str(config, 'user') ? { auth: { user: str(config, 'user'), pass: str(config, 'password') } } : {}),
  })
  try {
    const info: { response?: string; messageId?: string } = await transport.sendMail({
      from,
      to: message.address ?? str(config, 'to'),
      ...(str(config, 'replyTo') ? { replyTo: str(config, 'replyTo') } : {}),
      subject: message.title,
      text: [message.text, ...message.links.map((link) => `${link.label}: ${link.url}`)].join('\n'),
      ...(message.format === 'markdown' ? { html } : {}),
      messageId: idOf(message.deliveryId),
      ...(groupKey ? { inReplyTo: idOf(groupKey), references: idOf(groupKey) } : {}),
      headers: { 'Auto-Submitted': 'auto-generated', 'X-Auto-Response-Suppress': 'All' },
    })
    return withWords(sent(info.messageId), undefined, info.response)
  } catch (error) {
    return failure(error as SmtpError, security)
  } finally {
    transport.close()
    socket.destroy()
  }
}

function connectFailure(error: unknown): Outcome {
  const blocked = blockedClass(error)
  if (blocked !== undefined) return disabled('address_blocked', `The address may not be connected to (${blocked}).`)
  if (error instanceof ConnectError && error.reason === 'TLS_FAILED') return disabled('tls', error.message)
  return retry(undefined, error instanceof ConnectError ? error.reason.toLowerCase() : 'connection')
}

function failure(error: SmtpError, security: string): Outcome {
  // Refusing STARTTLS, or a certificate that is not right, is no reason to go on without it.
  const isTls = error.code === 'ETLS' || /^(ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO)/.test(error.code ?? '')
  if (isTls || (security === 'starttls' && /STARTTLS/i.test(error.message))) {
    return withWords(disabled('tls'), error.responseCode, error.message)
  }
  if (error.responseCode !== undefined) return classifySmtp(error.responseCode, error.response ?? error.message)
  if (error.code === 'EAUTH') return withWords(disabled('auth'), undefined, error.message)
  if (error.code === 'EENVELOPE') return withWords({ outcome: 'rejected', reason: 'address' }, undefined, error.message)
  return withWords(retry(undefined, error.code === 'ETIMEDOUT' ? 'timeout' : 'connection'), undefined, error.message)
}
