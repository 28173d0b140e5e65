// SPDX-License-Identifier: AGPL-3.0-only

/** [jobs 6.2] Runs that count for a worker's health. */
const windowRuns = 50
const windowMs = 15 * 60_000
/** Fewer runs than this say nothing. */
const meaningfulRuns = 10
const unhealthyRate = 0.5
const warningRate = 0.2

export type Health = { state: 'running' | 'warning' | 'unhealthy'; score: number; runs: number; errors: number }

/** The last runs of a worker. It forgets: whoever's last 50 runs were good is well again. */
export class HealthWindow {
  readonly #runs: { at: number; ok: boolean }[] = []

  add(at: number, ok: boolean): void {
    this.#runs.push({ at, ok })
    if (this.#runs.length > windowRuns) this.#runs.shift()
  }

  clear(): void {
    this.#runs.length = 0
  }

  read(now: number): Health {
    while (this.#runs[0] && this.#runs[0].at < now - windowMs) this.#runs.shift()
    const runs = this.#runs.length
    const errors = this.#runs.filter((run) => !run.ok).length
    const rate = runs === 0 ? 0 : errors / runs
    const score = Math.floor((1 - rate) * 100)
    if (runs <= meaningfulRuns || rate <= warningRate) return { state: 'running', score, runs, errors }
    return { state: rate > unhealthyRate ? 'unhealthy' : 'warning', score, runs, errors }
  }
}
