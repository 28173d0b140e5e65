// SPDX-License-Identifier: AGPL-3.0-only

/** Latencies are counted in steps of 0.1 ms up to 10 s. */
const stepMs = 0.1
const steps = 100_000

/** What the load generator has sent and got acknowledged, in all and in the time being measured. */
export class Meter {
  /** Nothing more is sent. */
  isStopping = false
  isMeasuring = false
  acked = 0
  ackedInAll = 0
  outstanding = 0
  readonly #counts = new Uint32Array(steps)

  sent(count: number): void {
    this.outstanding += count
  }

  acknowledged(latencyMs: number): void {
    this.outstanding--
    this.ackedInAll++
    if (!this.isMeasuring) return
    this.acked++
    this.#counts[Math.min(steps - 1, Math.max(0, Math.floor(latencyMs / stepMs)))]!++
  }

  /** Measures anew. */
  begin(): void {
    this.isMeasuring = true
    this.acked = 0
    this.#counts.fill(0)
  }

  percentileMs(share: number): number {
    let left = this.acked * share
    for (let step = 0; step < steps; step++) {
      left -= this.#counts[step]!
      if (left <= 0) return step * stepMs
    }
    return steps * stepMs
  }

  fail(reason: string): never {
    console.error(`generator: ${reason}`)
    process.exit(1)
  }
}
