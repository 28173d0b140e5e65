// SPDX-License-Identifier: AGPL-3.0-only
import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findRunningDatabase } from '../../core/src/db/embedded.ts'
import { check, historyReader, isClean, sqlReader } from './checker.ts'
import type { Reader, Verdict } from './checker.ts'
import type { ExternalDatabase } from './external-database.ts'
import { Installation } from './installation.ts'
import type { LoadedDevice } from './installation.ts'
import { readLedger } from './ledger.ts'
import type { Ledger, Message } from './ledger.ts'
import type { LoadReport, LoadSettings } from './load.ts'
import { monotonicMs } from './processes.ts'

/** Devices of the load. */
const deviceCount = 50
/** Well above the 500 messages per second that a control needs [RE-22]. */
export const messagesPerS = 1500

type LoadOptions = { messagesPerS?: number; isDisordered?: boolean }

export type LoadRun = {
  /** Waits until a message that was sent after `since` is acknowledged. */
  ackedAfter(since: number, timeoutMs?: number): Promise<void>
  /** Stops the load, closes its ledger and reads it. */
  stop(): Promise<Ledger>
}

/** What a round came to; `lost`, `duplicates`, `phantoms` add up both ways of reading. */
export type RoundCheck = { ledger: Ledger; verdict: Verdict; problems: string[] }

/** An installation under load over many rounds, and everything that was ever sent to it. */
export class LoadSession {
  readonly installation: Installation
  readonly #devices: LoadedDevice[]
  readonly readers: readonly Reader[]
  readonly #base = Math.floor(Date.now() / 86_400_000) * 86_400_000 - 86_400_000
  readonly #all: Message[] = []
  #next = 1
  #child: ChildProcess | undefined
  #round = 0

  constructor(installation: Installation, devices: LoadedDevice[], readers: readonly Reader[]) {
    this.installation = installation
    this.#devices = devices
    this.readers = readers
  }

  /** Ends a load that was left running by a round that failed. */
  endLoad(): void {
    this.#child?.kill()
  }

  get deviceIds(): string[] {
    return this.#devices.map((device) => device.id)
  }

  /** Starts the load in a process of its own and waits for its first acknowledgements. */
  async startLoad(seed: number, options: LoadOptions = {}): Promise<LoadRun> {
    const { ports, folder } = this.installation
    const settings: LoadSettings = {
      ledger: join(folder, `ledger-${++this.#round}.jsonl`),
      seed,
      base: this.#base,
      first: this.#next,
      devices: this.#devices,
      mqttPort: ports.mqtt,
      httpPort: ports.http,
      messagesPerS: options.messagesPerS ?? messagesPerS,
      isDisordered: options.isDisordered ?? false,
    }
    const child = fork(join(import.meta.dirname, 'load.ts'), [JSON.stringify(settings)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child = child
    let report: LoadReport = { acked: 0, lastOkAt: 0, next: this.#next }
    child.on('message', (message) => (report = message as LoadReport))
    const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
    const ackedAfter = async (since: number, timeoutMs = 30_000) => {
      const deadline = monotonicMs() + timeoutMs
      while (report.lastOkAt <= since) {
        if (child.exitCode !== null) throw new Error(`the load ended with ${child.exitCode}`)
        if (monotonicMs() > deadline) throw new Error(`nothing was acknowledged within ${timeoutMs} ms`)
        await sleep(10)
      }
    }
    await ackedAfter(0)
    return {
      ackedAfter,
      stop: async () => {
        child.send('stop')
        const code = await exited
        if (code !== 0) throw new Error(`the load ended with ${code}`)
        return readLedger(settings.ledger)
      },
    }
  }

  /** Checks the samples of one run in every way of reading. */
  async check(ledger: Ledger): Promise<RoundCheck> {
    const first = this.#next
    this.#all.push(...ledger.messages)
    this.#next = lastSample(ledger.messages, first) + 1
    return { ledger, ...(await this.#checkFrom(ledger.messages, first)) }
  }

  /** Checks everything that was ever sent, once more. */
  async checkAll(): Promise<{ verdict: Verdict; problems: string[] }> {
    return this.#checkFrom(this.#all, 0)
  }

  async #checkFrom(messages: readonly Message[], first: number): Promise<{ verdict: Verdict; problems: string[] }> {
    const expected = { base: this.#base, deviceIds: this.deviceIds, messages }
    let sum: Verdict | undefined
    for (const reader of this.readers) {
      const verdict = await check(expected, reader, first)
      if (sum && isClean(sum) && isClean(verdict) && sum.stored !== verdict.stored) {
        verdict.phantoms += Math.abs(sum.stored - verdict.stored)
        verdict.examples.push(`${reader.name} reads ${verdict.stored} points, the way before it ${sum.stored}`)
      }
      sum = sum && !isClean(sum) ? sum : verdict
    }
    return { verdict: sum!, problems: sum!.examples }
  }
}

/** Number of the newest sample. */
function lastSample(messages: readonly Message[], least: number): number {
  return messages.reduce((last, message) => Math.max(last, message.n + message.count - 1), least)
}

export type OpenSession = { session: LoadSession; close(keep: boolean): Promise<void> }

export type SessionOptions = { hooks?: string; logLevel?: string; external?: ExternalDatabase }

/** Starts a server with devices and opens the ways of reading it. */
export async function openSession(name: string, options: SessionOptions = {}): Promise<OpenSession> {
  const { hooks, logLevel, external } = options
  const installation = new Installation({
    name,
    environment: {
      ...(hooks ? { IOT_PMS_TEST_HOOKS: hooks } : {}),
      ...(logLevel ? { IOT_PMS_LOG_LEVEL: logLevel } : {}),
      ...(external ? { DATABASE_URL: external.appUrl, IOT_PMS_MIGRATE_URL: external.adminUrl } : {}),
    },
  })
  try {
    await installation.start()
    await installation.openApi()
    const devices = await installation.createDevices(deviceCount)
    const adminUrl = external?.adminUrl ?? (await findRunningDatabase(installation.dataDir))!.adminUrl
    const sql = sqlReader(adminUrl)
    const session = new LoadSession(installation, devices, [historyReader(installation), sql])
    return {
      session,
      close: async (keep) => {
        session.endLoad()
        await sql.close()
        await installation.dispose(keep)
      },
    }
  } catch (error) {
    await installation.dispose(true)
    throw error
  }
}
