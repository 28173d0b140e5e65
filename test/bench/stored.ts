// SPDX-License-Identifier: AGPL-3.0-only
import type postgres from 'postgres'

/** Messages by segment, which has a row for each. Segments stay for a minute after they were compacted. */
export type StoredMessages = ReadonlyMap<number, number>

export async function readStored(sql: postgres.Sql): Promise<StoredMessages> {
  return sql.begin('isolation level repeatable read', async (tx) => {
    const segments = await tx<{ no: number; rows: string | null }[]>`select segment_no as no, row_count as rows from telemetry_segments`
    const stored = new Map<number, number>()
    for (const { no, rows } of segments) {
      const count = rows ?? (await tx<{ count: string }[]>`select count(*) from ${tx(`telemetry_segment_${no}`)}`)[0]!.count
      stored.set(no, Number(count))
    }
    return stored
  })
}

/** Messages stored between two moments less than a minute apart. */
export function countSince(before: StoredMessages, after: StoredMessages): number {
  return after.entries().reduce((sum, [no, rows]) => sum + rows - (before.get(no) ?? 0), 0)
}

/** Segments are gone a minute after they were compacted at the earliest. */
const readEveryMs = 20_000

/** Counts what is stored over any time, by looking often enough to see each segment before it goes. */
export class StoredCounter {
  readonly #sql: postgres.Sql
  readonly #most = new Map<number, number>()
  #before: StoredMessages = new Map()
  #timer: NodeJS.Timeout | undefined
  #reading: Promise<void> = Promise.resolve()

  constructor(sql: postgres.Sql) {
    this.#sql = sql
  }

  async start(): Promise<void> {
    this.#before = await readStored(this.#sql)
    this.#timer = setInterval(() => {
      this.#reading = this.#reading.then(() => this.#read())
    }, readEveryMs)
  }

  /** @returns messages stored since the start */
  async stop(): Promise<number> {
    clearInterval(this.#timer)
    await this.#reading
    await this.#read()
    return countSince(this.#before, this.#most)
  }

  async #read(): Promise<void> {
    for (const [no, rows] of await readStored(this.#sql)) this.#most.set(no, rows)
  }
}
