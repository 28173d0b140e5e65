// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHmac } from 'node:crypto'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { canonical } from './canonical.ts'
import type { Checkpoint, Entry } from './chain.ts'
import { severityOf, toCef, toJsonLine } from './formats.ts'

/** What goes to a sink at once: consecutive entries of one chain, and checkpoints that have been signed since. */
export type Batch = { stream: string; entries: readonly Entry[]; checkpoints: readonly Checkpoint[] }

/** Takes a batch or throws; the same batch may come again [AU-42]. */
export type Sink = { name: string; send(batch: Batch, signal: AbortSignal): Promise<void> }

/** A stream's name as part of a file's. */
function fileNameOf(stream: string): string {
  return stream.replaceAll(':', '-')
}

/**
 * [AU-41] The default sink: checkpoints in one file per chain, events in one per day of their own time if wanted, each
 * append flushed to the disk before it counts as delivered.
 */
export function createFileSink(folder: string, options: { name: string; events: boolean }): Sink {
  return {
    name: options.name,
    async send({ stream, entries, checkpoints }) {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      const days = options.events ? Map.groupBy(entries, ({ payload }) => payload.ts.slice(0, 10)) : new Map<string, Entry[]>()
      for (const [day, those] of days) {
        await appendDurably(join(folder, `events-${fileNameOf(stream)}-${day}.jsonl`), those.map(toJsonLine).join(''))
      }
      if (checkpoints.length === 0) return
      const lines = checkpoints.map((checkpoint) => `${canonical(checkpoint)}\n`).join('')
      await appendDurably(join(folder, `checkpoints-${fileNameOf(stream)}.jsonl`), lines)
    },
  }
}

async function appendDurably(path: string, text: string): Promise<void> {
  const file = await open(path, 'a', 0o600)
  try {
    await file.appendFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

export type HttpSinkOptions = {
  name: string
  url: URL
  /** Signs every body; the receiver compares. */
  secret: string
  headers?: Readonly<Record<string, string>>
  /** Sends the request: whoever creates the sink says which addresses may be reached. */
  fetch: (url: URL, init: RequestInit) => Promise<Response>
  now: () => number
}

/** Batches by POST; 2xx means taken. `Idempotency-Key` lets the receiver pass over what it has. */
export function createHttpSink({ name, url, secret, headers = {}, fetch, now }: HttpSinkOptions): Sink {
  return {
    name,
    async send({ stream, entries, checkpoints }, signal) {
      const [from, to] = [entries[0]?.payload.seq ?? 0, entries.at(-1)?.payload.seq ?? 0]
      const body = JSON.stringify({ stream, from, to, events: entries, checkpoints })
      const key = entries.length > 0 ? `${stream}:${from}-${to}` : `${stream}:checkpoint-${checkpoints.at(-1)?.body.size}`
      const answer = await fetch(url, {
        method: 'POST',
        body,
        signal,
        redirect: 'error',
        headers: {
          ...headers,
          'content-type': 'application/json',
          'idempotency-key': key,
          'x-iot-pms-signature': signBody(body, secret, Math.floor(now() / 1000)),
        },
      })
      await answer.body?.cancel()
      if (!answer.ok) throw new Error(`answered ${answer.status}`)
    },
  }
}

/** `t=<unix>,v1=<hex HMAC-SHA-256 of "t.body">` */
export function signBody(body: string, secret: string, unix: number): string {
  return `t=${unix},v1=${createHmac('sha256', secret).update(`${unix}.${body}`).digest('hex')}`
}

const facility = 13
/** RFC 5424: critical, error, warning, informational by severity of the event. */
const levels = { 7: 3, 5: 4, 6: 5, 3: 6 } as const

/**
 * One message of RFC 5424 in the octet-counted frame of RFC 5425 and 6587.
 *
 * @param host name of the sender; anything but printable ASCII is left out
 */
export function toSyslog(entry: Entry, options: { host: string; version: string; format: 'cef' | 'json' }): Buffer {
  const { payload } = entry
  const priority = facility * 8 + levels[severityOf(payload)]
  const host = options.host.replace(/[^\x21-\x7e]/g, '').slice(0, 255) || '-'
  const text = options.format === 'cef' ? toCef(entry, options.version) : canonical(entry)
  const message = Buffer.from(`<${priority}>1 ${payload.ts} ${host} iot-pms - ${payload.type.slice(0, 32)} - \ufeff${text}`)
  return Buffer.concat([Buffer.from(`${message.length} `), message])
}
