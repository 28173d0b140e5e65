// SPDX-License-Identifier: AGPL-3.0-only
import type { BucketRow } from './aggregate.ts'
import type { TypedValue } from './points.ts'
import { readRows } from './series.ts'
import type { KeyRange, Reading, Source, Tally } from './series.ts'

/** What stands for a bucket without a value: nothing, null, or the value of the bucket before. */
export const fillModes = ['none', 'null', 'previous'] as const
export type FillMode = (typeof fillModes)[number]

/**
 * Buckets of one key in the asked order, where `fill` says so without gaps: a row for every bucket, an
 * undefined value where there is none. `previous` means earlier in time, whatever the order; before the
 * first value of the range there is nothing to repeat.
 */
export async function* readFilled(
  source: Source,
  range: KeyRange,
  reading: Extract<Reading, { form: 'buckets' }>,
  tally: Tally,
  fill: FillMode,
): AsyncGenerator<BucketRow[]> {
  if (fill === 'none') {
    yield* readRows(source, range, reading, tally)
    return
  }
  const found = new Map<number, BucketRow>()
  for await (const rows of readRows(source, range, reading, tally)) for (const row of rows) found.set(row.ts, row)
  let before: (TypedValue | undefined)[] = reading.aggs.map(() => undefined)
  const rows = reading.edges.slice(0, -1).map((ts): BucketRow => {
    const row = found.get(ts)
    const values = before.map((value, index) => row?.values[index] ?? (fill === 'previous' ? value : undefined))
    before = values
    return { ts, values }
  })
  yield range.order === 'desc' ? rows.toReversed() : rows
}
