// SPDX-License-Identifier: AGPL-3.0-only
import { fork } from 'node:child_process'
import { join } from 'node:path'
import type { KillOrder, KillReport } from './log-killer.ts'

/** The process that kills; it is there before the load is. */
export class Killer {
  readonly #child: ReturnType<typeof fork>
  readonly #messages: AsyncGenerator

  private constructor() {
    this.#child = fork(join(import.meta.dirname, 'log-killer.ts'), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#messages = listen(this.#child)
  }

  static async start(): Promise<Killer> {
    const killer = new Killer()
    await new Promise((resolve, reject) => killer.#child.once('spawn', resolve).once('error', reject))
    return killer
  }

  async watch(order: KillOrder): Promise<void> {
    this.#child.send(order)
    await this.#messages.next()
  }

  async report(): Promise<KillReport> {
    const { value } = await this.#messages.next()
    return value as KillReport
  }
}

async function* listen(child: ReturnType<typeof fork>): AsyncGenerator {
  const waiting: unknown[] = []
  let wake = () => {}
  let isEnded = false
  child.on('message', (message) => (waiting.push(message), wake()))
  child.once('exit', () => ((isEnded = true), wake()))
  for (;;) {
    while (waiting.length > 0) yield waiting.shift()
    if (isEnded) throw new Error('the killer ended without a report')
    await new Promise<void>((resolve) => (wake = resolve))
  }
}
