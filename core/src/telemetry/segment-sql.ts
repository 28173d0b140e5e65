// SPDX-License-Identifier: AGPL-3.0-only

/**
 * Statements about the table of one segment. Names cannot be bound as parameters; here they are made of a
 * number and nothing else.
 */
export function tableOf(segmentNo: number): string {
  if (!Number.isSafeInteger(segmentNo)) throw new Error(`${segmentNo} is no number of a segment`)
  return `public.telemetry_segment_${segmentNo}`
}

/** Short-lived and mostly small: compressing rows would cost more than it saves. */
export function createSegment(no: number): string {
  return `create table ${tableOf(no)} (tenant_no int4 not null, device_no int4 not null, seq int4 not null,
      first_ts int8 not null, last_ts int8 not null, points bytea not null) with (autovacuum_enabled = false);
    alter table ${tableOf(no)} alter column points set storage external;
    grant insert on ${tableOf(no)} to pms_ingest`
}

export function copyIntoSegment(no: number): string {
  return `copy ${tableOf(no)} (tenant_no, device_no, seq, first_ts, last_ts, points) from stdin (format binary)`
}

/** Waits for inserts on their way; afterwards there are none any more. */
export function closeSegment(no: number): string {
  return `lock table ${tableOf(no)} in share mode; revoke insert on ${tableOf(no)} from pms_ingest`
}

export function indexSegment(no: number): string {
  return `create index on ${tableOf(no)} (tenant_no, device_no)`
}

/** One row: how much is in it, and from when. */
export function measureSegment(no: number): string {
  return `select count(*) as rows, coalesce(sum(octet_length(points)), 0) as bytes, min(first_ts) as first, max(last_ts) as last from ${tableOf(no)}`
}

export function dropSegment(no: number): string {
  return `drop table if exists ${tableOf(no)}`
}

/** $1 tenant, $2 device, $3 … $4 range. */
export function selectRows(no: number): string {
  return `select ctid::text as place, points from ${tableOf(no)} where tenant_no = $1 and device_no = $2 and first_ts < $4 and last_ts >= $3`
}

/** In the order they were written: $1 first and $2 end of the numbers, $3 rows at most. */
export function selectFrom(no: number): string {
  return `select tenant_no, device_no, seq, points from ${tableOf(no)} where seq >= $1 and seq < $2 order by seq limit $3`
}

/** $1 place of the row. */
export function deleteRow(no: number): string {
  return `delete from ${tableOf(no)} where ctid = $1::tid`
}

/** $1 place of the row, $2 its points. */
export function updateRow(no: number): string {
  return `update ${tableOf(no)} set points = $2 where ctid = $1::tid`
}

/** (tenant, device, points) of several segments by device, each device's points in the order they were written. */
export function selectByDevice(segmentNos: readonly number[]): string {
  const parts = segmentNos.map(
    (no) => `select tenant_no, device_no, ${no} as no, string_agg(points, '' order by seq) as points from ${tableOf(no)} group by 1, 2`,
  )
  return `select tenant_no, device_no, points from (${parts.join(' union all ')}) r order by tenant_no, device_no, no`
}
