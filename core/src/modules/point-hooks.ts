// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { Device } from '../ingest/registry.ts'
import type { Stored } from '../ingest/pipeline.ts'
import type { Log } from '../log.ts'
import type { Point } from '../telemetry/points.ts'

type Run = (device: Device, points: readonly Point[]) => void | Promise<void>
type Hook = { name: string; run: Run; failures: number; slow: number; skippedUntil: number; loggedAt: number }

/** [MO-22] */
const slowMs = 50
const failuresInARow = 100
const skipMs = 60_000
const logEveryMs = 60_000

/** What modules do with points after their commit: a hook that fails or is slow affects nobody else, and is told of once a minute. */
export class PointHooks {
  readonly #clock: Clock
  readonly #log: Log
  #hooks: readonly Hook[] = []

  constructor(clock: Clock, log: Log) {
    this.#clock = clock
    this.#log = log
  }

  add(name: string, run: Run): () => void {
    const hook: Hook = { name, run, failures: 0, slow: 0, skippedUntil: 0, loggedAt: Number.NEGATIVE_INFINITY }
    this.#hooks = [...this.#hooks, hook]
    return () => (this.#hooks = this.#hooks.filter((one) => one !== hook))
  }

  run(stored: Stored): void {
    if (this.#hooks.length === 0 || stored.kind !== 'telemetry' || stored.points.length === 0) return
    for (const hook of this.#hooks) this.#call(hook, stored)
  }

  #call(hook: Hook, { device, points }: Stored): void {
    const started = this.#clock.monotonic()
    if (started < hook.skippedUntil) return
    try {
      const result = hook.run(device, points)
      if (result) {
        result.then(
          () => (hook.failures = 0),
          (error: unknown) => this.#fail(hook, error),
        )
      } else hook.failures = 0
    } catch (error) {
      this.#fail(hook, error)
    }
    const ms = this.#clock.monotonic() - started
    if (ms <= slowMs) return
    hook.slow++
    this.#tell(hook, { ms: Math.round(ms), times: hook.slow }, 'a module holds up the work after commits')
  }

  #fail(hook: Hook, error: unknown): void {
    hook.failures++
    if (hook.failures < failuresInARow) return this.#tell(hook, { err: error }, 'a module failed after a commit')
    hook.failures = 0
    hook.skippedUntil = this.#clock.monotonic() + skipMs
    this.#log.warn({ err: error, module: hook.name }, 'a module failed a hundred times in a row and is left out for a minute')
  }

  #tell(hook: Hook, detail: object, message: string): void {
    const now = this.#clock.monotonic()
    if (now - hook.loggedAt < logEveryMs) return
    hook.loggedAt = now
    this.#log.warn({ ...detail, module: hook.name }, message)
  }
}
