// SPDX-License-Identifier: AGPL-3.0-only
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'

const everyMs = 3_600_000

export type UpkeepStep = { name: string; run: (tenant: Scope) => Promise<void> }

/** Once an hour: what the bin and the logs of every tenant no longer keep. */
export class Upkeep {
  readonly #context: Context
  #steps: readonly UpkeepStep[]
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined
  #isStopped = false

  constructor(context: Context, steps: readonly UpkeepStep[]) {
    this.#context = context
    this.#steps = steps
  }

  /** Adds a step of a module. @returns takes it away again, after a run of it that is under way */
  add(step: UpkeepStep): () => Promise<void> {
    this.#steps = [...this.#steps, step]
    return async () => {
      this.#steps = this.#steps.filter((one) => one !== step)
      await this.#running
    }
  }

  start(): void {
    this.#timer ??= setInterval(() => void this.run(), everyMs).unref()
  }

  /** What runs breaks off after its step; the next start goes on with it. */
  stop(): void {
    clearInterval(this.#timer)
    this.#isStopped = true
  }

  /** Never fails, and never runs twice at a time: whoever calls meanwhile gets the run under way. */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => (this.#running = undefined))
    return this.#running
  }

  async #run(): Promise<void> {
    const { db, log } = this.#context
    const tenants = await listTenants(db).catch((error: unknown) => {
      log.warn({ err: error }, 'the upkeep could not list the tenants')
      return []
    })
    for (const tenant of tenants) {
      for (const { name, run } of this.#steps) {
        if (this.#isStopped) return
        // One that fails, for whatever tenant, stops no other.
        await run(tenant).catch((error: unknown) => {
          if (!this.#isStopped) log.warn({ err: error, step: name, tenant: tenant.tenantId }, 'a step of the upkeep failed')
        })
      }
    }
  }
}
