// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { classifyDbError } from '../db/errors.ts'
import type { Device } from '../ingest/registry.ts'
import { attributeColumns, toStored } from './columns.ts'
import type { StoredAttribute, ValueColumns } from './columns.ts'

/** Which keys of a scope: the named ones, or `all`; a scope left out is not asked for. */
export type WantedKeys = readonly string[] | 'all'
export type AttributeQuestion = { client?: WantedKeys; shared?: WantedKeys }
export type AttributeAnswer = { client: StoredAttribute[]; shared: StoredAttribute[] }
/** `too_large`: it would have more than 1 MiB; `unavailable`: the database has been away for long, or the server stops. */
export type AnswerOrNone = AttributeAnswer | 'too_large' | 'unavailable'

type Waiting = {
  device: Device
  question: AttributeQuestion
  resolve: (answer: AnswerOrNone) => void
  reject: (error: unknown) => void
}
type Row = ValueColumns & { no: number; scope: 'client' | 'shared'; key: string; updatedAt: number; isTooLarge: boolean }

/** Questions one query answers. */
const mostTogether = 50
/** What one answer may hold; a value counts with its name and some bytes of its own. */
const maxAnswerBytes = 1_048_576
const bytesPerValue = 64
/** One more than fit into the largest answer. */
const mostRows = maxAnswerBytes / bytesPerValue + 1
const retryMs = 500
/** Questions that may wait for the database; those of HTTP devices are asked anew before their answer comes. */
const mostWaiting = 10_000

/**
 * Answers what devices ask about their attributes: always from the database, so that an answer holds
 * whatever was acknowledged before, but one query serves all questions that came in while the last one ran.
 */
export class AttributeReads {
  readonly #context: Context
  readonly #waiting: Waiting[] = []
  #isReading = false
  #isStopped = false

  constructor(context: Context) {
    this.#context = context
  }

  /** Waits for a database that is away. */
  read(device: Device, question: AttributeQuestion): Promise<AnswerOrNone> {
    if (this.#waiting.length >= mostWaiting) return Promise.resolve('unavailable')
    return new Promise((resolve, reject) => {
      this.#waiting.push({ device, question, resolve, reject })
      if (!this.#isReading) void this.#readAll()
    })
  }

  /** What still waits is told that there is no answer. */
  stop(): void {
    this.#isStopped = true
  }

  async #readAll(): Promise<void> {
    this.#isReading = true
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, mostTogether)
      const groups = Map.groupBy(batch, ({ device }) => device.tenantId).values()
      for (const group of groups) await this.#answer(group).catch((error: unknown) => group.forEach(({ reject }) => reject(error)))
    }
    this.#isReading = false
  }

  async #answer(group: readonly Waiting[]): Promise<void> {
    const { tenantId, tenantNo } = group[0]!.device
    const scope = { tenantId, tenantNo }
    const query = questionSql(scope, JSON.stringify(group.flatMap(toRows)))
    for (;;) {
      try {
        return await this.#read(scope, query, (rows) => tell(group, rows))
      } catch (error) {
        if (classifyDbError(error) !== 'unavailable') throw error
        if (this.#isStopped) return group.forEach(({ resolve }) => resolve('unavailable'))
        await sleep(retryMs, undefined, { ref: false })
      }
    }
  }

  /** Done when the rows are there: nobody has to wait for the end of a transaction that only reads, and the next one may begin. */
  #read(scope: Scope, query: SQL, take: (rows: Iterable<Row>) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const work = async (tx: Tx) => {
        take(await tx.execute<Row>(query))
        resolve()
      }
      this.#context.db.withTenant(scope, work).catch(reject)
    })
  }
}

function toRows({ device, question }: Waiting, no: number) {
  return (['client', 'shared'] as const).flatMap((scope) => {
    const keys = question[scope]
    return keys === undefined ? [] : [{ no, device: device.id, scope, keys: keys === 'all' ? null : toMembers(keys) }]
  })
}

function tell(group: readonly Waiting[], rows: Iterable<Row>): void {
  const answers = group.map((): AttributeAnswer => ({ client: [], shared: [] }))
  const tooLarge = new Set<number>()
  for (const row of rows) {
    if (row.isTooLarge) tooLarge.add(row.no)
    else answers[row.no]![row.scope].push(toStored(row))
  }
  for (const [no, { resolve }] of group.entries()) resolve(tooLarge.has(no) ? 'too_large' : answers[no]!)
}

/** As names of an object PostgreSQL finds a key among thousands without going through all of them. */
function toMembers(keys: readonly string[]): Record<string, 0> {
  return Object.fromEntries(keys.map((key) => [key, 0]))
}

const questionSql = (scope: Scope, wanted: string) => sql`
  select r.no, r.scope, a.key, a.kind, a.num, a.big, a.txt, a."updatedAt", a.bytes > ${maxAnswerBytes} as "isTooLarge"
  from jsonb_to_recordset(${wanted}::jsonb) as r (no int4, device uuid, scope text, keys jsonb)
  cross join lateral (
    select b.*, row_number() over () as row, sum(octet_length(key) + coalesce(octet_length(txt), 0) + ${bytesPerValue}::int8) over () as bytes
    from (
      select ${attributeColumns} from device_attributes a
      where a.tenant_id = ${scope.tenantId} and a.device_id = r.device and a.scope = r.scope
        and (r.keys is null or r.keys ? a.key)
      order by a.key collate "C" limit ${mostRows}
    ) b
  ) a
  where a.bytes <= ${maxAnswerBytes} or a.row = 1`
