// SPDX-License-Identifier: AGPL-3.0-only
import { X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { SecureContext } from 'node:tls'
import type { Clock } from '../../clock.ts'
import type { ClientCertificate } from './connect.ts'

/**
 * Does the handshake of TLS as the server, on a socket that nobody has read from. `done` is called once: with the
 * encrypted stream, or with nothing when it failed or took too long.
 */
export function startTls(
  socket: Socket,
  { context, clock, handshakeMs }: { context: SecureContext; clock: Clock; handshakeMs: number },
  done: (secure: TLSSocket | undefined) => void,
): TLSSocket {
  // A certificate is asked for and never required; whose it is decides who looks credentials up.
  const secure = new TLSSocket(socket, { isServer: true, secureContext: context, requestCert: true, rejectUnauthorized: false })
  let isDone = false
  const settle = (result: TLSSocket | undefined) => {
    if (isDone) return
    isDone = true
    cancel()
    done(result)
  }
  const cancel = clock.after(handshakeMs, () => secure.destroy())
  secure.once('secure', () => settle(secure))
  secure.once('close', () => settle(undefined))
  return secure
}

/** More certificates than this explain nothing. */
const longestChain = 5

/** What the client showed in the handshake, undefined when nothing. */
export function readClientCertificate(secure: TLSSocket): ClientCertificate | undefined {
  const leaf = secure.getPeerX509Certificate()
  if (leaf === undefined) return undefined
  const others: X509Certificate[] = []
  let one = secure.getPeerCertificate(true)
  // One that signs itself is its own issuer.
  while (others.length < longestChain && one.issuerCertificate !== undefined && one.issuerCertificate !== one) {
    one = one.issuerCertificate
    others.push(new X509Certificate(one.raw))
  }
  return { leaf, others }
}
