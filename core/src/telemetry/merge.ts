// SPDX-License-Identifier: AGPL-3.0-only
import type { BucketRow } from './aggregate.ts'
import type { HistoryPlan } from './history.ts'
import { readFilled } from './fill.ts'
import { readKey } from './series.ts'
import type { KeyRange, Order, Source, Tally } from './series.ts'
import type { StoredPoint } from './store.ts'

/** Rows of one instant, series in order. */
export type Instant = { ts: number; rows: { seriesIndex: number; row: BucketRow }[] }

/** Rows handed on at a time. */
const blockRows = 1000

/** Each key of each source as one series, all side by side in time order; of each only a block is in memory. */
export async function* mergeSeries(sources: readonly Source[], plan: HistoryPlan, tally: Tally): AsyncGenerator<Instant[]> {
  const { keys, from, to, order } = plan
  const readers = sources.flatMap((source) => keys.map((key) => openReader(source, { key, from, to, order }, plan, tally)))
  try {
    for (const reader of readers) await reader.fill()
    for (;;) {
      let block: Instant[] = []
      for (let instant = takeInstant(readers, order); instant; instant = takeInstant(readers, order)) {
        if (block.push(instant) < blockRows) continue
        yield block
        block = []
      }
      if (block.length > 0) yield block
      const empty = readers.filter((reader) => reader.headTs === undefined && !reader.isDone)
      if (empty.length === 0) return
      for (const reader of empty) await reader.fill()
    }
  } finally {
    // Whoever stops in the middle, as a closed connection does, leaves no query behind.
    await Promise.all(readers.map((reader) => reader.stop()))
  }
}

/** The next rows of all series, undefined at the end and while a series has to read on first. */
function takeInstant(readers: readonly SeriesReader[], order: Order): Instant | undefined {
  let ts: number | undefined
  for (const reader of readers) {
    const head = reader.headTs
    if (head === undefined) {
      if (!reader.isDone) return undefined
    } else if (ts === undefined || (order === 'desc' ? head > ts : head < ts)) ts = head
  }
  if (ts === undefined) return undefined
  const rows: Instant['rows'] = []
  for (const [seriesIndex, reader] of readers.entries()) if (reader.headTs === ts) rows.push({ seriesIndex, row: reader.take() })
  return { ts, rows }
}

type SeriesReader = {
  /** When the next row is, undefined when more must be read. */
  readonly headTs: number | undefined
  readonly isDone: boolean
  take(): BucketRow
  fill(): Promise<void>
  stop(): Promise<void>
}

function openReader(source: Source, range: KeyRange, { reading, fill }: HistoryPlan, tally: Tally): SeriesReader {
  if (reading.form === 'buckets') return new BlockReader(readFilled(source, range, reading, tally, fill), (row) => row)
  // A point becomes a row only when it is its turn: the blocks of fifty series would else weigh twice as much.
  return new BlockReader(readKey(source, range, reading, tally), (point: StoredPoint) => ({ ts: point.ts, values: [point] }))
}

class BlockReader<T extends { ts: number }> implements SeriesReader {
  readonly #blocks: AsyncGenerator<T[]>
  readonly #toRow: (item: T) => BucketRow
  #items: T[] = []
  #next = 0
  isDone = false

  constructor(blocks: AsyncGenerator<T[]>, toRow: (item: T) => BucketRow) {
    this.#blocks = blocks
    this.#toRow = toRow
  }

  get headTs(): number | undefined {
    return this.#items[this.#next]?.ts
  }

  take(): BucketRow {
    return this.#toRow(this.#items[this.#next++]!)
  }

  async fill(): Promise<void> {
    while (this.headTs === undefined && !this.isDone) {
      // Let go before the next block is made.
      this.#items = []
      const step = await this.#blocks.next()
      this.isDone = step.done === true
      this.#items = step.done ? [] : step.value
      this.#next = 0
    }
  }

  async stop(): Promise<void> {
    await this.#blocks.return(undefined)
  }
}
