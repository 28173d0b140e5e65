// SPDX-License-Identifier: AGPL-3.0-only
import type pg from 'pg'
import { sqlStateOf } from '../db/errors.ts'
import { decodeRows } from './segment-rows.ts'
import { selectFrom } from './segment-sql.ts'
import type { LogPosition } from './segments.ts'
import type { LatestPoint } from './store.ts'

/** One message as it was committed. */
export type LogRow = { tenantNo: number; deviceNo: number; segmentNo: number; seq: number; points: readonly LatestPoint[] }

/** Rows brought at a time. */
const pageRows = 5000
const undefinedTable = '42P01'

/**
 * Reads what is not merged into chunks yet, in the order of its commits: each device's messages come as they were
 * written. A row that is committed while this runs may be missed when it has an earlier number.
 */
export async function* readSegmentLog(keeper: pg.Pool, from: LogPosition | undefined, before: LogPosition): AsyncGenerator<LogRow[]> {
  const names = new Map<string, string>()
  const { rows: segments } = await keeper.query<{ no: number }>(
    `select segment_no as no from telemetry_segments where state <> 'compacted' and segment_no between $1 and $2 order by 1`,
    [from?.segmentNo ?? 0, before.segmentNo],
  )
  for (const { no } of segments) {
    let seq = no === from?.segmentNo ? from.seq : 0
    for (;;) {
      const page = await readPage(keeper, no, seq, no === before.segmentNo ? before.seq : undefined)
      if (page.length === 0) break
      seq = page.at(-1)!.seq + 1
      yield await decodePage(keeper, names, no, page)
      if (page.length < pageRows) break
    }
  }
}

type Raw = { tenant_no: number; device_no: number; seq: number; points: Buffer }

async function readPage(keeper: pg.Pool, no: number, from: number, before: number | undefined): Promise<Raw[]> {
  try {
    return (await keeper.query<Raw>(selectFrom(no), [from, before ?? 2 ** 31 - 1, pageRows])).rows
  } catch (error) {
    // Merged and dropped meanwhile: then it was before all that is asked for.
    if (sqlStateOf(error) === undefinedTable) return []
    throw error
  }
}

async function decodePage(keeper: pg.Pool, names: Map<string, string>, segmentNo: number, page: readonly Raw[]): Promise<LogRow[]> {
  const decoded = page.map(({ tenant_no: tenantNo, device_no: deviceNo, seq, points }) => ({
    row: { tenantNo, deviceNo, segmentNo, seq },
    points: [...decodeRows(points)],
  }))
  const unknown = new Set<number>()
  for (const { row, points } of decoded) {
    for (const { keyNo } of points) if (!names.has(`${row.tenantNo} ${keyNo}`)) unknown.add(keyNo)
  }
  if (unknown.size > 0) {
    const { rows } = await keeper.query<{ tenant_no: number; key_no: number; key: string }>(
      'select tenant_no, key_no, key from telemetry_keys where key_no = any($1)',
      [[...unknown]],
    )
    for (const { tenant_no, key_no, key } of rows) names.set(`${tenant_no} ${key_no}`, key)
  }
  return decoded.map(({ row, points }) => ({
    ...row,
    points: points.flatMap(({ keyNo, ...point }) => {
      const key = names.get(`${row.tenantNo} ${keyNo}`)
      return key === undefined ? [] : [{ ...point, key }]
    }),
  }))
}
