// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHmac } from 'node:crypto'
import { request } from 'node:http'
import type { Socket } from 'node:net'
import type { ModuleContext } from '@iot-pms/core'
import type { HttpTarget } from './schemas.ts'
import { targetOf } from './sink-target.ts'
import type { Sink } from './sinks.ts'

export type HttpSinkOptions = {
  name: string
  target: HttpTarget
  outbound: Pick<ModuleContext['outbound'], 'connect'>
  now: () => number
}

/** Batches by POST; 2xx means taken. `Idempotency-Key` lets the receiver pass over what it has. */
export function createHttpSink({ name, target, outbound, now }: HttpSinkOptions): Sink {
  return {
    name,
    async send({ stream, entries, checkpoints }, signal) {
      const [from, to] = [entries[0]?.payload.seq ?? 0, entries.at(-1)?.payload.seq ?? 0]
      const body = JSON.stringify({ stream, from, to, events: entries, checkpoints })
      const key = entries.length > 0 ? `${stream}:${from}-${to}` : `${stream}:checkpoint-${checkpoints.at(-1)?.body.size}`
      const { url, ...guarded } = targetOf(target.url)
      const socket = await outbound.connect(guarded, url.protocol === 'https:' ? { ca: target.ca } : undefined)
      const status = await post(socket, url, signal, body, {
        ...target.headers,
        'content-type': 'application/json',
        'idempotency-key': key,
        'x-iot-pms-signature': signBody(body, target.secret, Math.floor(now() / 1000)),
      })
      if (status < 200 || status > 299) throw new Error(`answered ${status}`)
    },
  }
}

/** On a connection that was checked; it follows no redirect, which would lead elsewhere. */
function post(socket: Socket, url: URL, signal: AbortSignal, body: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        method: 'POST',
        path: `${url.pathname}${url.search}`,
        headers: { ...headers, host: url.host, 'content-length': Buffer.byteLength(body), connection: 'close' },
        createConnection: () => socket,
        signal,
      },
      (answer) => {
        answer.resume()
        answer.once('end', () => resolve(answer.statusCode ?? 0))
        answer.once('error', reject)
      },
    )
    sent.once('error', (error) => {
      socket.destroy()
      reject(error)
    })
    sent.end(body)
  })
}

/** `t=<unix>,v1=<hex HMAC-SHA-256 of "t.body">` */
export function signBody(body: string, secret: string, unix: number): string {
  return `t=${unix},v1=${createHmac('sha256', secret).update(`${unix}.${body}`).digest('hex')}`
}
