// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { copyIn, copyOn } from '../db/copy-in.ts'
import type { Clock } from '../clock.ts'
import { sqlStateOf } from '../db/errors.ts'
import { inTransaction } from '../db/transaction.ts'
import type { Log } from '../log.ts'
import { SegmentEncoder } from './segment-rows.ts'
import { closeSegment, copyIntoSegment, createSegment, dropSegment, indexSegment, measureSegment } from './segment-sql.ts'
import type { DeviceWrite } from './store.ts'

/** Bounds of the active segment: it has no index, so a read looks through all of it (some ms). */
const defaultRows = 100_000
const maxBytes = 16 * 1024 * 1024
const maxAgeMs = 300_000
/** After this long nobody can see a compacted segment any more: twice the statement time-out of readers and more. */
const defaultGraceMs = 60_000
const stopMs = 1000
/** Rules that do not get on hold up merging for so long [alarms and rules 5.4]. */
const longestHoldMs = 900_000
/** So many sealed segments may wait before writes are slowed down, by so much for each further one; they never stop. */
const patience = 8
const delayPerSegmentMs = 10
const maxDelayMs = 100

/** The segment being written. */
type Segment = {
  no: number
  copy: string
  seq: number
  rows: number
  bytes: number
  openedAt: number
  inFlight: number
  /** First rows of the batches on their way. */
  starts: Set<number>
}

/** A place in the order of commits: the row of this number in this segment. */
export type LogPosition = { segmentNo: number; seq: number }

type Measured = { rows: string; bytes: string; first: string; last: string }

/** A segment nobody writes any more, whose points wait to be put into chunks. */
export type SealedSegment = { no: number; rows: number; bytes: number; ageMs: number }

export type SegmentOptions = {
  /** Connections as `pms_ingest`, which commit synchronously. */
  writer: pg.Pool
  /** Connections as `pms_store`. */
  keeper: pg.Pool
  clock: Clock
  log: Log
  graceMs?: number | undefined
  /** Rows after which a segment is sealed. */
  maxRows?: number | undefined
}

/**
 * The front of the store: a batch is copied into an unindexed table of this server's own and is durable with
 * that one commit. By size or age the table is sealed: nobody may insert any more, and it gets its index.
 */
export class Segments {
  readonly #options: SegmentOptions
  readonly #owner = randomUUID()
  readonly #encoders: SegmentEncoder[] = []
  #active: Segment | undefined
  /** Segments of ours that are not written any more and wait to be sealed, in their order. */
  readonly #left: Segment[] = []
  #opening: Promise<Segment> | undefined
  #rotating: Promise<void> | undefined
  #waiting = 0
  #lastNo = 0

  constructor(options: SegmentOptions) {
    this.#options = options
  }

  /** Opens a segment and seals those that ended servers left; one that still lives opens another. */
  async start(): Promise<void> {
    await this.#open()
    await this.#sealOthers(0).catch((error: unknown) => this.#warn(error))
  }

  /** Seals what is left, so that no other server has to wait for it. */
  async stop(): Promise<void> {
    const active = this.#active
    this.#active = undefined
    if (active) this.#left.push(active)
    const sealed = (this.#rotating ?? Promise.resolve()).then(() => this.#sealLeft()).catch((error: unknown) => this.#warn(error))
    await Promise.race([sealed, sleep(stopMs, undefined, { ref: false })])
  }

  /** Seals segments of other servers that should have done so long ago: those have ended, or are told by their next write. */
  sealForsaken(): Promise<void> {
    return this.#sealOthers(2 * maxAgeMs)
  }

  /** Every row of this server before it is committed, and its writer was told. */
  get position(): LogPosition {
    for (const { no, starts } of this.#active ? [...this.#left, this.#active] : this.#left) {
      if (starts.size > 0) return { segmentNo: no, seq: Math.min(...starts) }
    }
    return this.#active ? { segmentNo: this.#active.no, seq: this.#active.seq + 1 } : { segmentNo: this.#lastNo + 1, seq: 0 }
  }

  /** Commits the rows of a batch. @throws the database's error */
  async write(batch: readonly DeviceWrite[]): Promise<void> {
    await this.#giveWay()
    for (let attempt = 1; ; attempt++) {
      const segment = this.#active ?? (await this.#open())
      segment.inFlight++
      try {
        await this.#copy(segment, batch)
        break
      } catch (error) {
        // Sealed by another server that took this one for dead, or gone with a restored database.
        const isFenced = ['42501', '42P01'].includes(sqlStateOf(error) ?? '')
        if (!isFenced || attempt > 1) throw error
        if (this.#active === segment) this.#active = undefined
      } finally {
        segment.inFlight--
      }
    }
    const { rows, bytes } = this.#active ?? { rows: 0, bytes: 0 }
    if (rows >= (this.#options.maxRows ?? defaultRows) || bytes >= maxBytes) this.rotate().catch((error: unknown) => this.#warn(error))
  }

  /** Tries a batch and takes it back: throws what {@link write} would throw. */
  async probe(batch: readonly DeviceWrite[]): Promise<void> {
    const segment = this.#active ?? (await this.#open())
    const encoder = this.#encode(segment, batch)
    await inTransaction(this.#options.writer, (client) => copyOn(client, segment.copy, encoder.finish()), 'rollback')
  }

  /** Seals what is old enough, so that readers of the database see it in chunks. */
  async tick(): Promise<void> {
    const segment = this.#active
    if (segment && segment.rows > 0 && this.#options.clock.monotonic() - segment.openedAt >= maxAgeMs) await this.rotate()
    else if (this.#left.length > 0) await (this.#rotating ??= this.#sealLeft().finally(() => (this.#rotating = undefined)))
  }

  /** Opens the next segment and seals this one, when it has rows. */
  rotate(): Promise<void> {
    return (this.#rotating ??= this.#rotate().finally(() => (this.#rotating = undefined)))
  }

  /**
   * Sealed segments in their order, up to the first that is still open elsewhere: what was written before is merged
   * before. What rules may have to read again in the order of commits stays as it is, but not for ever.
   */
  async listSealed(): Promise<SealedSegment[]> {
    const { rows } = await this.#options.keeper.query<{ no: number; rows: string; bytes: string; age: number }>(
      `select segment_no as no, row_count as rows, size_bytes as bytes, extract(epoch from clock_timestamp() - sealed_at)::float8 as age
       from telemetry_segments s where state = 'sealed' and not exists (
         select from telemetry_segments a where a.state = 'active' and a.segment_no < s.segment_no and a.owner <> $1)
         and (not exists (select from rule_checkpoints c where c.segment_no <= s.segment_no) or sealed_at < now() - $2 * interval '1 ms')
       order by segment_no`,
      [this.#owner, longestHoldMs],
    )
    this.#waiting = rows.length
    return rows.map(({ no, rows: count, bytes, age }) => ({ no, rows: Number(count), bytes: Number(bytes), ageMs: age * 1000 }))
  }

  /** Removes the tables of compacted segments that no reader can see any more. */
  async dropCompacted(): Promise<void> {
    const graceMs = this.#options.graceMs ?? defaultGraceMs
    const { rows } = await this.#options.keeper.query<{ no: number }>(
      `select segment_no as no from telemetry_segments
       where state = 'compacted' and compacted_at <= clock_timestamp() - $1 * interval '1 ms' order by 1`,
      [graceMs],
    )
    for (const { no } of rows) {
      this.#options.log.debug({ segment: no }, 'telemetry: dropping')
      const dropped = inTransaction(this.#options.keeper, async (client) => {
        await client.query(`set local lock_timeout = '500ms'`)
        await client.query(dropSegment(no))
        await client.query('delete from telemetry_segments where segment_no = $1', [no])
      })
      await dropped.catch((error: unknown) => {
        // A backup may still read it: then it goes another time, and those that follow do not wait.
        if (sqlStateOf(error) !== '55P03') throw error
      })
    }
  }

  /** Merging has to keep up: what waits is slower to read, and takes more room. */
  async #giveWay(): Promise<void> {
    const delayMs = Math.min(maxDelayMs, (this.#waiting - patience) * delayPerSegmentMs)
    if (delayMs > 0) await new Promise<void>((resolve) => this.#options.clock.after(delayMs, resolve))
  }

  async #rotate(): Promise<void> {
    const old = this.#active
    if (old && old.rows > 0) {
      await this.#open()
      this.#left.push(old)
    }
    await this.#sealLeft()
  }

  async #sealOthers(olderThanMs: number): Promise<void> {
    const { rows } = await this.#options.keeper.query<{ no: number }>(
      `select segment_no as no from telemetry_segments
       where state = 'active' and owner <> $1 and opened_at <= clock_timestamp() - $2 * interval '1 ms' order by 1`,
      [this.#owner, olderThanMs],
    )
    for (const { no } of rows) await this.#seal(no)
  }

  /** One that fails is tried again before those that follow: were it merged after them, its older values would win. */
  async #sealLeft(): Promise<void> {
    for (let segment = this.#left[0]; segment; segment = this.#left[0]) {
      while (segment.inFlight > 0) await sleep(1)
      await this.#seal(segment.no)
      this.#left.shift()
    }
  }

  /** One at a time: writers that find no segment wait for the same one. */
  #open(): Promise<Segment> {
    return (this.#opening ??= this.#create().finally(() => (this.#opening = undefined)))
  }

  async #create(): Promise<Segment> {
    const no = await inTransaction(this.#options.keeper, async (client) => {
      const { rows } = await client.query<{ no: number }>('insert into telemetry_segments (owner) values ($1) returning segment_no as no', [
        this.#owner,
      ])
      const number = rows[0]!.no
      await client.query(createSegment(number))
      return number
    })
    this.#lastNo = no
    return (this.#active = {
      no,
      copy: copyIntoSegment(no),
      seq: 0,
      rows: 0,
      bytes: 0,
      openedAt: this.#options.clock.monotonic(),
      inFlight: 0,
      starts: new Set(),
    })
  }

  async #copy(segment: Segment, batch: readonly DeviceWrite[]): Promise<void> {
    const start = segment.seq + 1
    const encoder = this.#encode(segment, batch)
    if (encoder.rowCount > 0) {
      const bytes = encoder.finish()
      segment.starts.add(start)
      await copyIn(this.#options.writer, segment.copy, bytes).finally(() => segment.starts.delete(start))
      segment.rows += encoder.rowCount
      segment.bytes += bytes.length
    }
    this.#encoders.push(encoder)
  }

  #encode(segment: Segment, batch: readonly DeviceWrite[]): SegmentEncoder {
    const encoder = this.#encoders.pop() ?? new SegmentEncoder()
    encoder.start()
    for (const { device, points } of batch) if (points.length > 0) encoder.add(device, ++segment.seq, points)
    return encoder
  }

  /**
   * Ends all inserts into a segment and gives it its index; an empty one counts as compacted. The lock waits for
   * inserts on their way, and without the right to insert a server that was only slow cannot come back to it.
   */
  async #seal(no: number): Promise<void> {
    this.#options.log.debug({ segment: no }, 'telemetry: sealing')
    await inTransaction(this.#options.keeper, async (client) => {
      await client.query(`set local lock_timeout = '10s'`)
      const { rows } = await client.query(`select from telemetry_segments where segment_no = $1 and state = 'active' for update`, [no])
      if (rows.length === 0) return
      await client.query(closeSegment(no))
      const measured = await client.query<Measured>(measureSegment(no))
      const { rows: count, bytes, first, last } = measured.rows[0]!
      if (count === '0') {
        // Not dropped at once: a reader may have just found it.
        await client.query(`update telemetry_segments set state = 'compacted', compacted_at = clock_timestamp() where segment_no = $1`, [
          no,
        ])
        return
      }
      await client.query(indexSegment(no))
      await client.query(
        `update telemetry_segments set state = 'sealed', sealed_at = clock_timestamp(), row_count = $2, size_bytes = $3, first_ts = $4, last_ts = $5
         where segment_no = $1`,
        [no, count, bytes, first, last],
      )
      this.#waiting++
    })
  }

  #warn(error: unknown): void {
    this.#options.log.warn({ err: error }, 'a telemetry segment could not be sealed yet')
  }
}
