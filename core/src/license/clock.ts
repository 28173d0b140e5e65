// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Clock } from '../clock.ts'
import type { Tx } from '../db/client.ts'

const hourMs = 3_600_000
/** [L-90] A clock that goes ahead by no more than this beside the time that passed is believed at once. */
const believedJumpMs = 48 * hourMs
/** Minutes of running after which a larger jump is believed. */
const pendingLimitMinutes = 1440
/** [L-93] */
const suspectMs = 24 * hourMs

/**
 * Time that cannot be turned back: the largest time seen is kept in the database, and a jump ahead counts only after
 * a day of running, so that one wrong answer of a time server changes nothing.
 */
export class LicenseClock {
  readonly #clock: Clock
  #highWater: number
  #readAt: number
  #ranAt: number | undefined

  constructor(clock: Clock) {
    this.#clock = clock
    this.#highWater = clock.now()
    this.#readAt = clock.monotonic()
  }

  /** [L-92] Effective now in ms. */
  now(): number {
    const system = this.#clock.now()
    const elapsed = this.#clock.monotonic() - this.#readAt
    const isJump = system - this.#highWater > elapsed + believedJumpMs
    return Math.floor(isJump ? this.#highWater + elapsed : Math.max(system, this.#highWater))
  }

  get highWater(): number {
    return this.#highWater
  }

  /** The larger of the two times this instance could be asked about: what the machine says, and what is believed. */
  get latest(): number {
    return Math.max(this.#clock.now(), this.now())
  }

  /** [L-93] The system clock is more than a day behind what was seen. */
  get isSuspect(): boolean {
    return this.#highWater - this.#clock.now() > suspectMs
  }

  /** Takes over the stored mark. */
  read(highWater: number): void {
    this.#highWater = highWater
    this.#readAt = this.#clock.monotonic()
  }

  /**
   * [L-90] One statement, which all replicas may run.
   *
   * @param lowerBounds times before which it cannot be, in ms [L-91]
   */
  async advance(tx: Tx, lowerBounds: readonly number[] = []): Promise<void> {
    const now = Math.floor(this.#clock.now())
    const monotonic = this.#clock.monotonic()
    const step = Math.max(0, Math.floor(monotonic - (this.#ranAt ?? monotonic)))
    const least = Math.floor(Math.max(0, ...lowerBounds))
    const isJump = sql`${now}::int8 - greatest(high_water, ${least}::int8) > ${step + believedJumpMs}::int8`
    const isBelieved = sql`pending_minutes + ${step / 60_000}::float8 >= ${pendingLimitMinutes}`
    const [row] = await tx.execute<{ highWater: string }>(sql`
      update license_state set
        high_water = case when ${isJump} and not (${isBelieved}) then greatest(high_water, ${least}::int8)
          else greatest(high_water, ${least}::int8, ${now}::int8) end,
        pending_minutes = case when ${isJump} and not (${isBelieved}) then pending_minutes + ${step / 60_000}::float8 else 0 end
      returning high_water as "highWater"`)
    this.#ranAt = monotonic
    if (row) this.read(Number(row.highWater))
  }

  /**
   * [L-94] A license signed after the mark was spoilt shows that the mark is wrong: it goes back to what the license and
   * the build vouch for, or to the system clock where that is later.
   */
  async heal(tx: Tx, iatMs: number, builtAt: number): Promise<void> {
    if (iatMs >= this.#highWater - suspectMs) return
    const healed = Math.floor(Math.max(iatMs, builtAt, Math.min(this.#clock.now(), this.#highWater)))
    await tx.execute(sql`update license_state set high_water = ${healed}::int8, pending_minutes = 0`)
    this.read(healed)
  }
}
