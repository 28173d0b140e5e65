// SPDX-License-Identifier: AGPL-3.0-only
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { SecureContext } from 'node:tls'
import type { Clock } from '../../clock.ts'

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
