#!/usr/bin/env node
// SPDX-License-Identifier: AGPL-3.0-only
import { parseArgs } from 'node:util'
import { ApiError } from './errors.ts'
import { NotificationHub } from './notifications.ts'
import type { Message } from './notifications.ts'

const usage = `iot-pms-notify --to <receiver> | --user <id> | --channel <id> | --email <address>  [options] [text]

Sends a message through IoT PMS and waits until every delivery has come to an end.
Without a text it is read from the standard input.

  --title <text>       one line, up to 200 characters
  --priority <name>    urgent, high, normal, low or info
  --dedup <key>        a second message with this key within five minutes is not sent
  --no-wait            end when the server has taken it

IOT_PMS_URL and IOT_PMS_API_KEY say where, and as whom (scopes notify.send and notify.read).
Exit code 0: sent by at least one way; 1: by none; 2: refused; 64: wrong arguments.
`

try {
  process.exitCode = await main()
} catch (error) {
  const sentence = error instanceof ApiError ? `${error.code}: ${error.message}` : error instanceof Error ? error.message : String(error)
  process.stderr.write(`${sentence}\n`)
  process.exitCode = error instanceof ApiError ? 2 : 1
}

async function main(): Promise<number> {
  const options = {
    to: { type: 'string' },
    user: { type: 'string' },
    channel: { type: 'string' },
    email: { type: 'string' },
    title: { type: 'string' },
    priority: { type: 'string', default: 'normal' },
    dedup: { type: 'string' },
    'no-wait': { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  } as const
  const { values, positionals } = parseArgs({ options, allowPositionals: true })
  const { IOT_PMS_URL: url, IOT_PMS_API_KEY: apiKey } = process.env
  const to: Exclude<Message['to'], unknown[]> = {
    ...(values.to === undefined ? {} : { receiver: values.to }),
    ...(values.user === undefined ? {} : { userId: values.user }),
    ...(values.channel === undefined ? {} : { channelId: values.channel }),
    ...(values.email === undefined ? {} : { email: values.email }),
  }
  if (values.help || !url || !apiKey || Object.keys(to).length !== 1) {
    process.stderr.write(usage)
    return values.help ? 0 : 64
  }
  const hub = new NotificationHub({ url, apiKey })
  const sent = await hub.sendSmart({
    to,
    text: positionals.length > 0 ? positionals.join(' ') : await readInput(),
    priority: values.priority as NonNullable<Message['priority']>,
    ...(values.title === undefined ? {} : { title: values.title }),
    ...(values.dedup === undefined ? {} : { dedupKey: values.dedup }),
  })
  process.stdout.write(`${sent.id}\n`)
  if (values['no-wait']) return 0
  const last = new Map<string, string>()
  for await (const { at, deliveryId, type, state, reason } of hub.follow(sent.id)) {
    last.set(deliveryId, state)
    process.stdout.write(`${at} ${type} ${state}${reason === null ? '' : ` (${reason})`}\n`)
  }
  return [...last.values()].some((state) => ['sent', 'delivered', 'read', 'acked'].includes(state)) ? 0 : 1
}

async function readInput(): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8').trim()
}
