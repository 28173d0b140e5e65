// SPDX-License-Identifier: AGPL-3.0-only

/** One sample a minute is plenty for a forecast of days, and a day of them shows the rhythm of a day. */
const sampleMs = 60_000
const keptMs = 86_400_000
/** Less than this says more about a checkpoint than about growth. */
const shortestMs = 1_800_000
const dayMs = 86_400_000
/** Beyond ten years a forecast is no news. */
const farthestDays = 3650

type Sample = { at: number; freeBytes: number }

/** How fast the space goes, from the measurements of the last day. Times are monotonic ms. */
export class DiskTrend {
  #samples: Sample[] = []
  #totalBytes = 0

  add(at: number, { freeBytes, totalBytes }: { freeBytes: number; totalBytes: number }): void {
    // A volume that was enlarged, or another quota: what was measured before says nothing about it.
    if (totalBytes !== this.#totalBytes) this.#samples = []
    this.#totalBytes = totalBytes
    const last = this.#samples.at(-1)
    if (last && at - last.at < sampleMs) return
    this.#samples.push({ at, freeBytes })
    if (at - this.#samples[0]!.at > keptMs) this.#samples.shift()
  }

  /** Bytes used up per day (negative: freed) by the line of least squares; undefined until half an hour is known. */
  get bytesPerDay(): number | undefined {
    const samples = this.#samples
    if (samples.length < 3 || samples.at(-1)!.at - samples[0]!.at < shortestMs) return undefined
    const meanAt = samples.reduce((sum, one) => sum + one.at, 0) / samples.length
    const meanFree = samples.reduce((sum, one) => sum + one.freeBytes, 0) / samples.length
    let covariance = 0
    let variance = 0
    for (const { at, freeBytes } of samples) {
      covariance += (at - meanAt) * (freeBytes - meanFree)
      variance += (at - meanAt) ** 2
    }
    return (-covariance / variance) * dayMs
  }

  /** Days until nothing is left at this rate; undefined while that is unknown, never or far away. */
  forecastDays(freeBytes: number): number | undefined {
    const rate = this.bytesPerDay
    if (rate === undefined || rate <= 0) return undefined
    const days = freeBytes / rate
    return days <= farthestDays ? days : undefined
  }
}
