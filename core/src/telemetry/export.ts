// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import type { TelemetryDevice } from './answers.ts'
import { byteOrderMark, csvRow, textCell } from './csv.ts'
import { maxHistoryKeys } from './history.ts'
import type { HistoryPlan } from './history.ts'
import { LocalTimes } from './local-times.ts'
import { mergeSeries } from './merge.ts'
import { ndjsonLines } from './ndjson.ts'
import type { TypedValue } from './points.ts'
import { createTally } from './series.ts'
import type { Source } from './series.ts'
import { toCsvCell } from './values.ts'
import { createWorkbook } from './xlsx.ts'

/** Rows of a file, as far as spreadsheets go comfortably [N-9]. */
export const maxExportRows = 1_000_000

/** Kinds of files by their ending, with their media type. */
const exportFormats = {
  csv: 'text/csv; charset=utf-8',
  xlsx: 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
  ndjson: 'application/x-ndjson; charset=utf-8',
} as const
type ExportFormat = keyof typeof exportFormats
type ExportLayout = 'long' | 'wide'
type ExportOptions = { format: ExportFormat; layout: ExportLayout; language: Language }
type ExportFile = { fileName: string; contentType: string; chunks: AsyncGenerator<string | Buffer> }

/** A device whose points go into a file. */
type ExportSource = { device: TelemetryDevice; source: Source }

type Row = { ts: number; labels: readonly string[]; values: readonly (TypedValue | undefined)[] }
/** `names`: of the columns behind time and offset. */
type Table = { names: string[]; blocks: AsyncGenerator<Row[]> }

const headers = {
  zh: { time: '时间', offset: '时区偏移', device: '设备', key: '键', value: '值', devices: '台设备' },
  en: { time: 'time', offset: 'utc_offset', device: 'device', key: 'key', value: 'value', devices: ' devices' },
} as const satisfies Record<Language, unknown>

/**
 * A file of §17.3, written while the points are read. `long`: a row per value, devices one after the other,
 * each in time order; `wide`: a row per time, a column per key (and device).
 * @throws {ProblemError} `EXPORT_TOO_LARGE` with the number of rows, before anything is sent; `UNPROCESSABLE`
 *   for a wide file of too many series, or of lines
 */
export async function createExport(
  devices: readonly ExportSource[],
  plan: HistoryPlan,
  { format, layout, language }: ExportOptions,
): Promise<ExportFile> {
  if (layout === 'wide') {
    if (format === 'ndjson') refuseLayout('lines of JSON hold one value each: leave out layout')
    // As many as of one device: a part of each series is in memory.
    if (devices.length * plan.keys.length > maxHistoryKeys) refuseLayout(`a wide file has at most ${maxHistoryKeys} series: use long`)
  }
  if (format !== 'ndjson') {
    const count = await countRows(devices, plan, layout)
    if (count > maxExportRows) throw new ProblemError('EXPORT_TOO_LARGE', { params: { count, limit: maxExportRows } })
  }
  const times = new LocalTimes(plan.timeZone)
  const table = () => (layout === 'long' ? longTable(devices, plan, language) : wideTable(devices, plan))
  const chunks = {
    csv: () => csvText(table(), times, language),
    xlsx: () => workbook(table(), times, language),
    ndjson: () =>
      ndjsonLines(
        devices.map(({ device, source }) => ({ name: device.name, source })),
        plan,
      ),
  }[format]()
  const days = [plan.from, plan.to].map((ts) => times.format(ts).slice(0, 10)).join('_')
  const [first] = devices
  const name = devices.length === 1 && first ? first.device.name : `${devices.length}${headers[language].devices}`
  return { fileName: `${toFileName(name)}_${days}.${format}`, contentType: exportFormats[format], chunks }
}

/** Characters that no file system minds, and none that could end the header. */
function toFileName(text: string): string {
  return [...text.replace(/[^\p{L}\p{N}._ -]/gu, '_')].slice(0, 100).join('')
}

function refuseLayout(detail: string): never {
  throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '?layout', detail }] })
}

async function* csvText({ names, blocks }: Table, times: LocalTimes, language: Language): AsyncGenerator<string> {
  const { time, offset } = headers[language]
  yield byteOrderMark + csvRow([time, offset, ...names].map(textCell))
  // Labels are few and come again in every row.
  const cells = new Map<string, string>()
  const labelCell = (label: string) => {
    const cell = cells.get(label) ?? textCell(label)
    cells.set(label, cell)
    return cell
  }
  for await (const block of blocks) {
    let text = ''
    for (const { ts, labels, values } of block) {
      const ahead = labels.map(labelCell)
      text += csvRow([times.format(ts), times.formatOffset(ts), ...ahead, ...values.map((value) => (value ? toCsvCell(value) : ''))])
    }
    yield text
  }
}

function workbook({ names, blocks }: Table, times: LocalTimes, language: Language): AsyncGenerator<Buffer> {
  const { time, offset } = headers[language]
  const rows = async function* () {
    for await (const block of blocks) {
      yield block.map(({ ts, labels, values }) => ({
        localMs: times.toLocalMs(ts),
        offset: times.formatOffset(ts),
        labels,
        values,
      }))
    }
  }
  return createWorkbook([time, offset, ...names], rows())
}

function longTable(devices: readonly ExportSource[], plan: HistoryPlan, language: Language): Table {
  const { device, key, value } = headers[language]
  return { names: [device, key, value], blocks: longRows(devices, plan) }
}

async function* longRows(devices: readonly ExportSource[], plan: HistoryPlan): AsyncGenerator<Row[]> {
  for (const { device, source } of devices) {
    const labels = columnsOf(plan).map((names) => names.map((name) => [device.name, name]))
    for await (const block of mergeSeries([source], plan, createTally())) {
      const found: Row[] = []
      for (const { ts, rows } of block) {
        for (const { seriesIndex, row } of rows) {
          for (const [column, value] of row.values.entries()) {
            if (value !== undefined || plan.fill !== 'none') found.push({ ts, labels: labels[seriesIndex]![column]!, values: [value] })
          }
        }
      }
      yield found
    }
  }
}

function wideTable(devices: readonly ExportSource[], plan: HistoryPlan): Table {
  const columns = columnsOf(plan).flat()
  const names = devices.length === 1 ? columns : devices.flatMap(({ device }) => columns.map((column) => `${device.name} ${column}`))
  return { names, blocks: wideRows(devices, plan, names.length) }
}

async function* wideRows(devices: readonly ExportSource[], plan: HistoryPlan, width: number): AsyncGenerator<Row[]> {
  const perSeries = width / (devices.length * plan.keys.length)
  const sources = devices.map(({ source }) => source)
  for await (const block of mergeSeries(sources, plan, createTally())) {
    yield block.map(({ ts, rows }) => {
      const values: (TypedValue | undefined)[] = Array.from({ length: width }, () => undefined)
      for (const { seriesIndex, row } of rows) {
        for (const [column, value] of row.values.entries()) values[seriesIndex * perSeries + column] = value
      }
      return { ts, labels: [], values }
    })
  }
}

/** Column names of each key: several aggregations of one key are told apart. */
function columnsOf({ keys, reading }: HistoryPlan): string[][] {
  const aggs = reading.form === 'buckets' ? reading.aggs : []
  return keys.map((key) => (aggs.length > 1 ? aggs.map((agg) => `${key} ${agg}`) : [key]))
}

/** Buckets and sampled points are few enough by their own limits; raw points are counted. */
async function countRows(devices: readonly ExportSource[], plan: HistoryPlan, layout: ExportLayout): Promise<number> {
  const { keys, from, to, reading } = plan
  if (reading.form !== 'raw') return 0
  const counts: number[] = []
  for (const { source } of devices) {
    for (const key of keys) counts.push(Math.min(reading.limit, await source.store.count(source.scope, source.deviceId, [key], from, to)))
  }
  const points = counts.reduce((sum, count) => sum + count, 0)
  const most = Math.max(...counts)
  // A wide file has at least as many rows as its longest series, and one row for points of one instant:
  // where the counts leave it open, only the times themselves can tell.
  if (layout === 'long' || points <= maxExportRows || most > maxExportRows) return layout === 'long' ? points : most
  let rows = 0
  const sources = devices.map(({ source }) => source)
  for await (const block of mergeSeries(sources, plan, createTally())) rows += block.length
  return rows
}
