// SPDX-License-Identifier: AGPL-3.0-only
import { closeSync, fdatasync, openSync, readFileSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'

export const keys = ['pulseCounter', 'leakage', 'batteryLevel'] as const

export type Header = { ledger: 1; run: string; seed: number; base: number; keys: readonly string[]; devices: string[]; startedAt: string }

/** `d`: index of the device, `n`: number of the first sample of the message, `c`: how many samples it has, `at`: monotonic ms. */
export type Line =
  | { e: 'sent'; d: number; n: number; c: number; at: number }
  | { e: 'ok'; d: number; n: number; at: number }
  /** Unknown how it ended; `code` of an HTTP answer that left it open. */
  | { e: 'info'; d: number; n: number; at: number; code?: number }
  | { e: 'fail'; d: number; n: number; at: number; rc?: number; code?: number }
  /** An MQTT 5 DISCONNECT of the server. */
  | { e: 'disconnect'; d: number; rc: number; at: number }

/** Most time between an answer and its line being on disk [RE-12]. */
const syncMs = 10

/** What the value of a key is in sample `n`: it follows from `n` alone [RE-11]. */
export function valueOf(key: string, n: number): number | boolean {
  if (key === 'leakage') return n % 3 === 0
  return key === 'pulseCounter' ? n : 100 - (n % 100)
}

/** Values of sample `n` as the device sends them. */
export function sampleJson(base: number, n: number): string {
  return `{"ts":${base + n},"values":{"pulseCounter":${n},"leakage":${n % 3 === 0},"batteryLevel":${100 - (n % 100)}}}`
}

/** Appends lines; what it holds is on disk within {@link syncMs}. */
export class LedgerWriter {
  readonly #file: number
  #waiting = ''
  #isSyncing = false
  readonly #timer: NodeJS.Timeout

  constructor(path: string, header: Header) {
    this.#file = openSync(path, 'ax')
    writeSync(this.#file, `${JSON.stringify(header)}\n`)
    this.#timer = setInterval(() => this.#sync(), syncMs)
  }

  /** Writes at once: what was sent must stand there before the bytes leave. */
  writeNow(lines: readonly Line[]): void {
    if (lines.length === 0) return
    writeSync(this.#file, this.#waiting + format(lines))
    this.#waiting = ''
  }

  /** Writes with the next group. */
  add(line: Line): void {
    this.#waiting += format([line])
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    this.writeNow([])
    if (this.#waiting !== '') writeSync(this.#file, this.#waiting)
    await promisify(fdatasync)(this.#file)
    closeSync(this.#file)
  }

  #sync(): void {
    if (this.#isSyncing || this.#waiting === '') return
    writeSync(this.#file, this.#waiting)
    this.#waiting = ''
    this.#isSyncing = true
    fdatasync(this.#file, (error) => {
      if (error) throw error
      this.#isSyncing = false
    })
  }
}

function format(lines: readonly Line[]): string {
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('')
}

/** One message and how it ended: a repeat that was acknowledged makes it `ok`. */
export type Message = { device: number; n: number; count: number; state: 'ok' | 'fail' | 'info' }

export type Ledger = {
  header: Header
  messages: Message[]
  /** When each acknowledgement came, ascending. */
  okAt: number[]
  disconnects: { device: number; rc: number; at: number }[]
  /** HTTP answers of class 5. */
  httpFailures: number
}

export function readLedger(path: string): Ledger {
  const [first, ...rest] = readFileSync(path, 'utf8').trimEnd().split('\n')
  const messages = new Map<number, Message>()
  const ledger: Ledger = { header: JSON.parse(first!) as Header, messages: [], okAt: [], disconnects: [], httpFailures: 0 }
  for (const text of rest) {
    const line = JSON.parse(text) as Line
    if (line.e === 'disconnect') {
      ledger.disconnects.push({ device: line.d, rc: line.rc, at: line.at })
      continue
    }
    if (line.e === 'sent') {
      // Without an answer it is unknown; a repeat changes nothing about that.
      if (!messages.has(line.n)) messages.set(line.n, { device: line.d, n: line.n, count: line.c, state: 'info' })
      continue
    }
    const message = messages.get(line.n)
    if (!message) throw new Error(`${path} answers sample ${line.n}, which was never sent`)
    if (line.e === 'ok') {
      message.state = 'ok'
      ledger.okAt.push(line.at)
    }
    if (line.e === 'fail' && message.state !== 'ok') message.state = 'fail'
    if (line.e === 'info' && line.code !== undefined) ledger.httpFailures++
  }
  ledger.messages = [...messages.values()]
  return ledger
}
