// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import type { BucketRow } from './aggregate.ts'
import { ZoneOffsets } from './buckets.ts'
import { byteOrderMark, csvRow, textCell } from './csv.ts'
import { maxTs } from './history.ts'
import type { HistoryPlan } from './history.ts'
import { readRows, createTally } from './series.ts'
import type { Order, Source } from './series.ts'
import { toCsvCell } from './values.ts'

/** Rows of a file, as far as spreadsheets go comfortably [N-9]. */
export const maxExportRows = 1_000_000

export type ExportLayout = 'long' | 'wide'
export type ExportFile = { fileName: string; chunks: AsyncGenerator<string> }

const headers = {
  zh: { time: '时间', offset: '时区偏移', device: '设备', key: '键', value: '值' },
  en: { time: 'time', offset: 'utc_offset', device: 'device', key: 'key', value: 'value' },
} as const satisfies Record<Language, unknown>

/**
 * A CSV file of §17.3, written while the points are read: rows in time order, `long` with a row per
 * value, `wide` with a row per time and a column per key.
 * @throws {ProblemError} `EXPORT_TOO_LARGE` with the number of rows, before anything is read
 */
export async function createExport(
  source: Source,
  deviceName: string,
  plan: HistoryPlan,
  layout: ExportLayout,
  language: Language,
): Promise<ExportFile> {
  const count = await countRows(source, plan, layout)
  if (count > maxExportRows) throw new ProblemError('EXPORT_TOO_LARGE', { params: { count, limit: maxExportRows } })
  const times = new LocalTimes(plan.timeZone)
  const days = [plan.from, plan.to].map((ts) => times.format(ts).slice(0, 10)).join('_')
  return {
    // Characters that no file system minds, and none that could end the header.
    fileName: `${[...deviceName.replace(/[^\p{L}\p{N}._ -]/gu, '_')].slice(0, 100).join('')}_${days}.csv`,
    chunks: layout === 'long' ? longRows(source, deviceName, plan, times, language) : wideRows(source, plan, times, language),
  }
}

async function* longRows(
  source: Source,
  deviceName: string,
  plan: HistoryPlan,
  times: LocalTimes,
  language: Language,
): AsyncGenerator<string> {
  const { time, offset, device, key, value } = headers[language]
  yield byteOrderMark + csvRow([time, offset, device, key, value].map(textCell))
  const deviceCell = textCell(deviceName)
  const labels = columnsOf(plan).map((labelsOfKey) => labelsOfKey.map(textCell))
  for await (const block of mergeRows(source, plan)) {
    let text = ''
    for (const { ts, rows } of block) {
      const at = times.cells(ts)
      for (const { keyIndex, row } of rows) {
        for (const [column, typed] of row.values.entries()) {
          if (typed !== undefined) text += `${at},${deviceCell},${labels[keyIndex]![column]!},${toCsvCell(typed)}\r\n`
        }
      }
    }
    yield text
  }
}

async function* wideRows(source: Source, plan: HistoryPlan, times: LocalTimes, language: Language): AsyncGenerator<string> {
  const { time, offset } = headers[language]
  const columns = columnsOf(plan)
  const perKey = columns[0]?.length ?? 0
  yield byteOrderMark + csvRow([time, offset, ...columns.flat()].map(textCell))
  for await (const block of mergeRows(source, plan)) {
    let text = ''
    for (const { ts, rows } of block) {
      const cells: string[] = Array.from({ length: columns.length * perKey }, () => '')
      for (const { keyIndex, row } of rows) {
        for (const [column, typed] of row.values.entries()) if (typed !== undefined) cells[keyIndex * perKey + column] = toCsvCell(typed)
      }
      text += csvRow([times.cells(ts), ...cells])
    }
    yield text
  }
}

/** Column names of each key: several aggregations of one key are told apart. */
function columnsOf({ keys, reading }: HistoryPlan): string[][] {
  const aggs = reading.form === 'buckets' ? reading.aggs : []
  return keys.map((key) => (aggs.length > 1 ? aggs.map((agg) => `${key} ${agg}`) : [key]))
}

/** Rows of one instant, keys in order. */
type Instant = { ts: number; rows: { keyIndex: number; row: BucketRow }[] }

/** All keys side by side in time order; only a part of a page of each is in memory. */
async function* mergeRows(source: Source, { keys, from, to, order, reading }: HistoryPlan): AsyncGenerator<Instant[]> {
  const tally = createTally()
  const readers = keys.map((key) => new RowReader(readRows(source, { key, from, to, order }, reading, tally)))
  try {
    for (const reader of readers) await reader.fill()
    for (;;) {
      const block: Instant[] = []
      for (let instant = takeInstant(readers, order); instant; instant = takeInstant(readers, order)) block.push(instant)
      if (block.length > 0) yield block
      const empty = readers.filter((reader) => reader.head === undefined && !reader.isDone)
      if (empty.length === 0) return
      for (const reader of empty) await reader.fill()
    }
  } finally {
    // Whoever stops in the middle, as a closed connection does, leaves no query behind.
    await Promise.all(readers.map((reader) => reader.stop()))
  }
}

/** The next rows of all keys, undefined at the end and while a key has to read on first. */
function takeInstant(readers: readonly RowReader[], order: Order): Instant | undefined {
  let ts: number | undefined
  for (const reader of readers) {
    const head = reader.head
    if (head === undefined) {
      if (!reader.isDone) return undefined
    } else if (ts === undefined || (order === 'desc' ? head.ts > ts : head.ts < ts)) ts = head.ts
  }
  if (ts === undefined) return undefined
  const rows: Instant['rows'] = []
  for (const [keyIndex, reader] of readers.entries()) if (reader.head?.ts === ts) rows.push({ keyIndex, row: reader.take() })
  return { ts, rows }
}

class RowReader {
  readonly #blocks: AsyncGenerator<BucketRow[]>
  #rows: BucketRow[] = []
  #next = 0
  isDone = false

  constructor(blocks: AsyncGenerator<BucketRow[]>) {
    this.#blocks = blocks
  }

  /** The row that comes next, undefined when more must be read. */
  get head(): BucketRow | undefined {
    return this.#rows[this.#next]
  }

  take(): BucketRow {
    return this.#rows[this.#next++]!
  }

  async fill(): Promise<void> {
    while (this.head === undefined && !this.isDone) {
      const step = await this.#blocks.next()
      this.isDone = step.done === true
      this.#rows = step.done ? [] : step.value
      this.#next = 0
    }
  }

  async stop(): Promise<void> {
    await this.#blocks.return(undefined)
  }
}

/** Buckets and sampled points are few enough by their own limits; raw points are counted. */
async function countRows(source: Source, plan: HistoryPlan, layout: ExportLayout): Promise<number> {
  const { keys, from, to, reading } = plan
  if (reading.form !== 'raw') return 0
  const { limit } = reading
  const counts: number[] = []
  for (const key of keys) counts.push(Math.min(limit, await source.store.count(source.scope, source.deviceId, [key], from, to)))
  const points = counts.reduce((sum, count) => sum + count, 0)
  const most = Math.max(...counts)
  // A wide file has at least as many rows as its longest key, and one row for points of one instant:
  // where the counts leave it open, only the times themselves can tell.
  if (layout === 'long' || points <= maxExportRows || most > maxExportRows) return layout === 'long' ? points : most
  let rows = 0
  for await (const block of mergeRows(source, plan)) rows += block.length
  return rows
}

/** Times of a zone's wall clock, with the offset that tells a repeated hour apart [N-8]. */
class LocalTimes {
  readonly #offsets: ZoneOffsets
  #offsetMs = Number.NaN
  #offsetText = ''

  constructor(timeZone: string) {
    this.#offsets = new ZoneOffsets(timeZone)
  }

  /** `YYYY-MM-DD HH:mm:ss.SSS` */
  format(ts: number): string {
    const text = new Date(Math.min(ts + this.#offsets.at(ts).offsetMs, maxTs)).toISOString()
    return `${text.slice(0, -14)} ${text.slice(-13, -1)}`
  }

  /** The cells of time and offset: dates, which are never guarded. */
  cells(ts: number): string {
    const { offsetMs } = this.#offsets.at(ts)
    if (offsetMs !== this.#offsetMs) {
      this.#offsetMs = offsetMs
      this.#offsetText = formatOffset(offsetMs)
    }
    return `${this.format(ts)},${this.#offsetText}`
  }
}

/** `+08:00`; zones of long ago also have seconds. */
function formatOffset(offsetMs: number): string {
  const text = new Date(Math.abs(offsetMs)).toISOString()
  return `${offsetMs < 0 ? '-' : '+'}${text.slice(11, offsetMs % 60_000 === 0 ? 16 : 19)}`
}
