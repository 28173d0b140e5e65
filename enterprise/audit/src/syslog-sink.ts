// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { once } from 'node:events'
import type { ModuleContext } from '@iot-pms/core'
import { canonical } from './canonical.ts'
import type { Checkpoint, Entry } from './chain.ts'
import { severityOf, toCef } from './formats.ts'
import type { SyslogTarget } from './schemas.ts'
import type { Sink } from './sinks.ts'

export type SyslogSinkOptions = {
  name: string
  target: SyslogTarget
  outbound: Pick<ModuleContext['outbound'], 'connect'>
  /** Name of the sender. */
  host: string
  version: string
}

const facility = 13
/** RFC 5424: critical, error, warning, informational by severity of the event. */
const levels = { 7: 3, 5: 4, 6: 5, 3: 6 } as const
const informational = 6

/**
 * RFC 5425 with TLS, RFC 6587 without: octet-counted frames. Syslog acknowledges nothing, so a batch has a connection of
 * its own and counts as taken when the other side has closed it after the last byte.
 */
export function createSyslogSink({ name, target, outbound, host, version }: SyslogSinkOptions): Sink {
  const { port, tls, format, ca } = target
  return {
    name,
    async send({ entries, checkpoints }, signal) {
      const socket = await outbound.connect({ kind: 'syslog', host: target.host, port }, tls ? { ca } : undefined)
      const give = () => socket.destroy(new Error('it took too long'))
      signal.addEventListener('abort', give)
      try {
        const frames = [
          ...entries.map((entry) => toSyslog(entry, { host, version, format })),
          ...checkpoints.map((one) => frameCheckpoint(one, host)),
        ]
        const closed = once(socket, 'close')
        // What the receiver says is not for us; unread it would keep the end from being seen.
        socket.resume()
        socket.end(Buffer.concat(frames))
        await Promise.race([closed, once(socket, 'error').then(([error]) => Promise.reject(error as Error))])
      } finally {
        signal.removeEventListener('abort', give)
        socket.destroy()
      }
    },
  }
}

/**
 * One message of RFC 5424 in the octet-counted frame of RFC 5425 and 6587.
 *
 * @param host name of the sender; anything but printable ASCII is left out
 */
export function toSyslog(entry: Entry, options: { host: string; version: string; format: 'cef' | 'json' }): Buffer {
  const { payload } = entry
  const text = options.format === 'cef' ? toCef(entry, options.version) : canonical(entry)
  return frame({ level: levels[severityOf(payload)], at: payload.ts, host: options.host, id: payload.type.slice(0, 32), text })
}

function frameCheckpoint(checkpoint: Checkpoint, host: string): Buffer {
  return frame({ level: informational, at: checkpoint.body.at, host, id: 'audit.checkpoint', text: canonical(checkpoint) })
}

function frame({ level, at, host, id, text }: { level: number; at: string; host: string; id: string; text: string }): Buffer {
  const name = host.replace(/[^\x21-\x7e]/g, '').slice(0, 255) || '-'
  const message = Buffer.from(`<${facility * 8 + level}>1 ${at} ${name} iot-pms - ${id} - \ufeff${text}`)
  return Buffer.concat([Buffer.from(`${message.length} `), message])
}
