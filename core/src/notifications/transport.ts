// SPDX-License-Identifier: AGPL-3.0-only
import { request as requestHttp } from 'node:http'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { ConnectError, blockedClass, parseTarget } from '../outbound.ts'
import type { Outbound } from '../outbound.ts'
import { version } from '../version.ts'
import type { HttpCall } from './channel-type.ts'
import { disabled, retry } from './outcome.ts'
import type { Outcome, Reply } from './outcome.ts'

/** [notifications §3] The whole call, and what is read of an answer. */
const callMs = 15_000
const maxReplyBytes = 65_536

export type Answered = { reply: Reply } | { failure: Outcome }

export type CallOptions = {
  outbound: Outbound
  /** The host administrator's own address: no guard [notifications §4]. */
  isExempt: boolean
  /** A call that must not be repeated when its answer was lost. */
  isOnce: boolean
  signal?: AbortSignal
}

/**
 * Makes one call. No redirect is followed, the connection goes to an address that was checked, and the answer is cut
 * after 64 KiB. A failure says whether the call may have arrived.
 */
export async function call(made: HttpCall, options: CallOptions): Promise<Answered> {
  let socket: Socket
  try {
    const target = parseTarget(made.url, 'http')
    const tls = target.url.protocol === 'https:' ? {} : undefined
    socket = options.isExempt ? await options.outbound.connectUnguarded(target, tls) : await options.outbound.connect(target, tls)
  } catch (error) {
    return { failure: connectFailure(error) }
  }
  try {
    return { reply: await exchange(made, socket, options.signal) }
  } catch (error) {
    // The request was on its way: whether it arrived nobody knows.
    const reason = error instanceof Error && error.message === 'timeout' ? 'timeout' : 'connection'
    return { failure: options.isOnce ? { outcome: 'uncertain', reason } : retry(undefined, reason) }
  } finally {
    socket.destroy()
  }
}

function connectFailure(error: unknown): Outcome {
  const blocked = blockedClass(error)
  if (blocked !== undefined) return disabled('address_blocked', `The address may not be connected to (${blocked}).`)
  if (error instanceof ConnectError) {
    return error.reason === 'TLS_FAILED' ? disabled('tls', error.message) : retry(undefined, error.reason.toLowerCase())
  }
  return retry(undefined, 'connection')
}

function exchange(made: HttpCall, socket: Socket, signal: AbortSignal | undefined): Promise<Reply> {
  const url = new URL(made.url)
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => request.destroy(new Error('timeout')), callMs)
    const end = (settle: () => void) => {
      clearTimeout(timer)
      settle()
    }
    const request = requestHttp(
      {
        method: made.method,
        // TLS is in the socket already, whatever the scheme is.
        host: url.hostname,
        port: url.port || (url.protocol === 'https:' ? 443 : 80),
        path: url.pathname + url.search,
        headers: {
          host: url.host,
          'user-agent': `iot-pms/${version}`,
          accept: 'application/json, */*;q=0.5',
          connection: 'close',
          ...made.headers,
          'content-length': Buffer.byteLength(made.body),
        },
        createConnection: () => socket,
        ...(signal ? { signal } : {}),
      },
      (response) => {
        readBody(response).then(
          (body) => end(() => resolve({ status: response.statusCode ?? 0, headers: flat(response), body })),
          (error: unknown) => end(() => reject(error instanceof Error ? error : new Error(String(error)))),
        )
      },
    )
    request.on('error', (error) => end(() => reject(error)))
    request.end(made.body)
  })
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    // Whoever sends without end is not waited for.
    if (bytes >= maxReplyBytes) break
  }
  return Buffer.concat(chunks).subarray(0, maxReplyBytes).toString('utf8')
}

function flat(response: IncomingMessage): Record<string, string> {
  return Object.fromEntries(
    Object.entries(response.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : (value ?? '')]),
  )
}
