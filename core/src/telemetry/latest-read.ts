// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Db, Scope, Tx } from '../db/client.ts'
import { ChunkDamaged, decodeChunk } from './chunk-codec.ts'
import type { FirstStore } from './first-store.ts'
import { RowCursor, decodeEnds } from './segment-rows.ts'
import type { LatestOptions, StoredPoint } from './store.ts'
import { askTwice, blockBytes, readTail } from './tail.ts'

const endOfTime = Number.MAX_SAFE_INTEGER
/** UTF-16 units of a text that is held in memory; a longer one is read again when somebody asks for it. */
const longestHeld = 1024
/** Keys brought with one question: some milliseconds of work. */
const pageOfKeys = 5000
/** Of those so many are united at once: their last values may be long. */
const unitedAtOnce = 100
/** Chunks that are opened at a time for a last value which is too long to stand beside them. */
const chunksAtOnce = 4

/** Newest value of a key; without the point when that is a long text. */
export type Newest = { keyNo: number; ts: number; point: StoredPoint | undefined }
export type FoundValue = Newest & { deviceNo: number; key: string }

/** `long`: of these keys (numbers by device), and no others, long texts come too. */
export type LatestQuestion = {
  scope: Scope
  deviceNos: readonly number[]
  options: LatestOptions
  long?: ReadonlyMap<number, ReadonlySet<number>>
  /** Only what is in chunks. */
  isMerged?: boolean
}
export type LatestSource = { db: Db; first: FirstStore; onDamaged: (error: ChunkDamaged, deviceNo: number) => void }

type KeyRow = { device_no: number; key: string; key_no: number; first_ts: string | null; last_ts: string | null; ends: Buffer | null }
type Tail = Map<number, Map<number, Newest>>

/** Bytes of a value in memory, roughly. */
export function heldBytes(point: StoredPoint | undefined): number {
  return 100 + 2 * textLength(point)
}

export function newestOf(keyNo: number, point: StoredPoint, keepsLong = false): Newest {
  return { keyNo, ts: point.ts, point: keepsLong || textLength(point) <= longestHeld ? point : undefined }
}

function textLength(point: StoredPoint | undefined): number {
  return point && (point.kind === 'string' || point.kind === 'json') ? point.value.length : 0
}

/**
 * Newest values from what is stored, in parts; a part may come a second time. A group of devices that
 * has too much outside chunks is divided, down to one that is gone through in blocks.
 */
export async function readLatest(source: LatestSource, question: LatestQuestion, take: (values: FoundValue[]) => void): Promise<void> {
  const groups = [question.deviceNos]
  for (let group = groups.pop(); group; group = groups.pop()) {
    if (group.length === 0) continue
    const asked = { ...question, deviceNos: group }
    const ask = () => source.db.withTenant(question.scope, (tx) => readGroup(tx, source, asked, take))
    const isDone = await askTwice(ask).catch(async (error: unknown) => {
      if (await source.first.wentWith(error)) return ask()
      throw error
    })
    const middle = group.length >> 1
    if (!isDone) groups.push(group.slice(0, middle), group.slice(middle))
  }
}

/** Segments first, since their points move into chunks. @returns false when it is too much for one question */
async function readGroup(tx: Tx, source: LatestSource, question: LatestQuestion, take: (values: FoundValue[]) => void): Promise<boolean> {
  const { deviceNos, options, long } = question
  const tail: Tail = new Map(deviceNos.map((no) => [no, new Map()]))
  type TailRow = { device_no: number; points: Buffer | null }
  const rows = question.isMerged
    ? []
    : await tx.execute<TailRow>(sql`select * from telemetry_tail(${sql.param(deviceNos)}::int4[], 0, ${endOfTime}, ${blockBytes})`)
  if (rows.at(-1)?.points !== null) {
    for (const { device_no, points } of rows) keepNewest(tail, device_no, points!, long)
  } else {
    if (deviceNos.length > 1) return false
    for await (const block of readTail(tx, deviceNos[0]!, 0, endOfTime)) keepNewest(tail, deviceNos[0]!, block, long)
  }
  const old = new Map((await source.first.latest(tx, deviceNos)).map((point) => [`${point.deviceNo} ${point.key}`, point]))
  const names = options.keys ? sql`${sql.param([...options.keys])}::text[]` : sql`null`
  for (let rest = deviceNos, after = 0; rest.length > 0;) {
    const page = await tx.execute<KeyRow>(
      sql`select * from telemetry_last_chunks(${sql.param(rest)}::int4[], ${names}, ${options.maxKeys ?? null}, ${after}, ${pageOfKeys})`,
    )
    const values: FoundValue[] = []
    for (let i = 0; i < page.length; i += unitedAtOnce) {
      const part = page.slice(i, i + unitedAtOnce)
      const last = await readLongEnds(tx, source, part, tail)
      for (const row of part) {
        const { device_no: deviceNo, key_no: keyNo, key } = row
        const keepsLong = long?.get(deviceNo)?.has(keyNo) ?? false
        let newest = tail.get(deviceNo)!.get(keyNo)
        if (isNewerThan(row, newest)) {
          const point = row.ends ? decodeEnds(row.ends, Number(row.first_ts), Number(row.last_ts)).last : last.get(row)
          if (point) newest = newestOf(keyNo, point, keepsLong)
        }
        const before = old.get(`${deviceNo} ${key}`)
        if (before && before.ts > (newest?.ts ?? 0)) {
          const { deviceNo: _, key: __, ...point } = before
          newest = newestOf(keyNo, point, keepsLong)
        }
        if (newest) values.push({ ...newest, deviceNo, key })
      }
    }
    take(values)
    if (page.length < pageOfKeys) break
    rest = rest.slice(rest.indexOf(page.at(-1)!.device_no))
    after = page.at(-1)!.key_no
  }
  return true
}

/** At the same ts the later write wins, and rows come in the order they were written [V-8]. */
function keepNewest(tail: Tail, deviceNo: number, rows: Buffer, long: LatestQuestion['long']): void {
  const byKey = tail.get(deviceNo)!
  for (const cursor = new RowCursor(rows); cursor.next();) {
    if (cursor.ts < (byKey.get(cursor.keyNo)?.ts ?? 0)) continue
    byKey.set(cursor.keyNo, newestOf(cursor.keyNo, cursor.point(), long?.get(deviceNo)?.has(cursor.keyNo)))
  }
}

function isNewerThan({ last_ts }: KeyRow, newest: Newest | undefined): boolean {
  return last_ts !== null && Number(last_ts) > (newest?.ts ?? 0)
}

/** Last points of chunks whose ends are long, where those are the newest. */
async function readLongEnds(tx: Tx, { onDamaged }: LatestSource, page: readonly KeyRow[], tail: Tail): Promise<Map<KeyRow, StoredPoint>> {
  const found = new Map<KeyRow, StoredPoint>()
  const wanted = page.filter((row) => row.ends === null && isNewerThan(row, tail.get(row.device_no)!.get(row.key_no)))
  for (let i = 0; i < wanted.length; i += chunksAtOnce) {
    const some = wanted.slice(i, i + chunksAtOnce).map(async (row) => {
      const [chunk] = await tx.execute<{ points: Buffer }>(
        sql`select points from telemetry_chunks_of(${row.device_no}, ${row.key_no}, ${Number(row.last_ts)}, ${endOfTime}, 1, true, 0)`,
      )
      if (!chunk) return
      try {
        const last = decodeChunk(chunk.points).at(-1)
        if (last) found.set(row, last)
      } catch (error) {
        if (!(error instanceof ChunkDamaged)) throw error
        onDamaged(error, row.device_no)
      }
    })
    await Promise.all(some)
  }
  return found
}
