// SPDX-License-Identifier: AGPL-3.0-only
import { createTally } from './series.ts'
import type { Source } from './series.ts'
import { mergeSeries } from './merge.ts'
import type { HistoryPlan } from './history.ts'
import { toJsonText } from './values.ts'

/**
 * A JSON object per value and line, as long as it may be: `{"ts","device","key","value"}`, aggregated ones
 * with `agg`. Devices one after the other, each in time order. Values as in history answers; an empty bucket
 * that was to be filled is null.
 */
export async function* ndjsonLines(devices: readonly { name: string; source: Source }[], plan: HistoryPlan): AsyncGenerator<string> {
  const aggs = plan.reading.form === 'buckets' ? plan.reading.aggs : [undefined]
  for (const { name, source } of devices) {
    const members = plan.keys.map((key) =>
      aggs.map(
        (agg) => `,"device":${JSON.stringify(name)},"key":${JSON.stringify(key)}${agg === undefined ? '' : `,"agg":"${agg}"`},"value":`,
      ),
    )
    for await (const block of mergeSeries([source], plan, createTally())) {
      let text = ''
      for (const { ts, rows } of block) {
        for (const { seriesIndex, row } of rows) {
          for (const [index, value] of row.values.entries()) {
            if (value === undefined && plan.fill === 'none') continue
            text += `{"ts":${ts}${members[seriesIndex]![index]!}${value === undefined ? 'null' : toJsonText(value)}}\n`
          }
        }
      }
      yield text
    }
  }
}
