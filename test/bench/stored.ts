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
