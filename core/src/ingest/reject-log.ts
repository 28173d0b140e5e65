// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'

import type { Clock } from '../clock.ts'
import type { Db, Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { EventBus } from '../events.ts'
import { formatCursor, isUuid, parseCursor } from '../http/schemas.ts'
import { redact } from '../log.ts'
import type { Log } from '../log.ts'
import type { Device } from './registry.ts'
import type { Reject } from './rejects.ts'
import type { UplinkSource } from './uplink.ts'

/** A refusal as the reject log keeps and shows it (device API §14). */
export type RejectEntry = {
  id: string
  code: string
  detail: string
  transport: string
  topic: string
  key: string | null
  ts: number | null
  sample: string
  packetId: number | null
  clientId: string | null
  address: string
  count: number
  firstAt: string
  lastAt: string
}

type Open = { device: Device; entry: RejectEntry; closesAt: number; isChanged: boolean }

/** [L-2] Equal refusals within this time share one entry. */
const mergeMs = 60_000
/** [L-2] Kept per device. */
const keptPerDevice = 200
const keptDays = 7
/** [L-3] */
const sampleBytes = 256
/** Entries still open in memory; beyond it new kinds of refusals are only counted. */
const maxOpen = 20_000

/**
 * Keeps why data was refused. Entries gather in memory and are written once a second; a crash may
 * lose the last second of them, never a point.
 */
export class RejectLog {
  readonly #db: Db
  readonly #clock: Clock
  readonly #events: EventBus
  readonly #log: Log
  readonly #open = new Map<string, Open>()
  #cancel: (() => void) | undefined
  #flushing: Promise<void> | undefined
  /** Refusals since the start, for the overview and metrics. */
  total = 0

  constructor(options: { db: Db; clock: Clock; events: EventBus; log: Log }) {
    this.#db = options.db
    this.#clock = options.clock
    this.#events = options.events
    this.#log = options.log
  }

  record(refusal: { device: Device; source: UplinkSource; reject: Reject; payload: Buffer }): void {
    this.total++
    const { device, source, reject } = refusal
    const key = `${device.id} ${reject.code} ${source.topic} ${reject.key ?? ''}`
    const now = this.#clock.now()
    this.#cancel ??= this.#clock.after(1000, () => void this.flush())
    let open = this.#open.get(key)
    if (open && open.closesAt > now) {
      open.entry = { ...open.entry, count: open.entry.count + 1, lastAt: new Date(now).toISOString() }
      open.isChanged = true
    } else {
      if (this.#open.size >= maxOpen) return
      open = { device, entry: createEntry(refusal, now), closesAt: now + mergeMs, isChanged: true }
      this.#open.set(key, open)
    }
    this.#events.emit('device.reject', { tenantId: device.tenantId, deviceId: device.id, entry: open.entry })
  }

  /** Writes what has changed. Called by itself once a second, and at the stop. */
  async flush(): Promise<void> {
    this.#cancel?.()
    this.#cancel = undefined
    await this.#flushing
    this.#flushing = this.#write().catch((error: unknown) => {
      this.#log.warn({ err: error }, 'the reject log could not be written yet')
      this.#cancel ??= this.#clock.after(1000, () => void this.flush())
    })
    await this.#flushing
  }

  /** The refusals of a device, newest first, with what is not yet written. */
  async list(scope: Scope, deviceId: string, limit: number, cursor?: string): Promise<{ items: RejectEntry[]; nextCursor: string | null }> {
    const [at, id] = cursor ? parseCursor(cursor, 2) : []
    if (cursor && (typeof at !== 'number' || !isUuid(id))) throw new ProblemError('CURSOR_INVALID')
    await this.flush()
    const rows = await this.#db.withTenant(scope, (tx) =>
      tx.execute<Omit<RejectEntry, 'firstAt' | 'lastAt'> & { firstAt: number; lastAt: number }>(sql`
        select id, code, detail, transport, topic, key, ts::float8 as ts, sample, packet_id as "packetId", client_id as "clientId", address, count,
          floor(extract(epoch from first_at) * 1000)::float8 as "firstAt", floor(extract(epoch from last_at) * 1000)::float8 as "lastAt"
        from device_rejects where device_id = ${deviceId} ${cursor ? sql`and (floor(extract(epoch from last_at) * 1000), id) < (${at}, ${id}::uuid)` : sql``}
        order by floor(extract(epoch from last_at) * 1000) desc, id desc limit ${limit + 1}`),
    )
    const page = rows.slice(0, limit)
    const last = page.at(-1)
    return {
      items: page.map((row) => ({ ...row, firstAt: new Date(row.firstAt).toISOString(), lastAt: new Date(row.lastAt).toISOString() })),
      nextCursor: rows.length > limit && last ? formatCursor([last.lastAt, last.id]) : null,
    }
  }

  async clear(scope: Scope, deviceId: string): Promise<void> {
    for (const [key, open] of this.#open) if (open.device.id === deviceId) this.#open.delete(key)
    await this.#flushing
    await this.#db.withTenant(scope, (tx) => tx.execute(sql`delete from device_rejects where device_id = ${deviceId}`))
  }

  /** [L-2] Removes what is older than seven days. */
  async removeOld(scope: Scope): Promise<void> {
    await this.#db.withTenant(scope, (tx) =>
      tx.execute(sql`delete from device_rejects where last_at < now() - ${keptDays} * interval '1 day'`),
    )
  }

  async #write(): Promise<void> {
    const now = this.#clock.now()
    const byTenant = new Map<string, { scope: Scope; changed: Open[] }>()
    for (const [key, open] of this.#open) {
      if (!open.isChanged) {
        if (open.closesAt <= now) this.#open.delete(key)
        continue
      }
      const { tenantId, tenantNo } = open.device
      const group = byTenant.get(tenantId) ?? { scope: { tenantId, tenantNo }, changed: [] }
      group.changed.push(open)
      byTenant.set(tenantId, group)
    }
    for (const { scope, changed } of byTenant.values()) {
      for (const open of changed) open.isChanged = false
      try {
        await this.#db.withTenant(scope, (tx) => writeEntries(tx, scope.tenantId, changed))
      } catch (error) {
        // Kept for the next turn: a refusal is shown even when the database was away for a while.
        for (const open of changed) open.isChanged = true
        throw error
      }
    }
  }
}

async function writeEntries(tx: Parameters<Parameters<Db['withTenant']>[1]>[0], tenantId: string, changed: readonly Open[]): Promise<void> {
  const rows = JSON.stringify(changed.map(({ device, entry }) => ({ ...entry, deviceId: device.id })))
  // A device deleted for good meanwhile takes its refusals with it.
  await tx.execute(sql`
    insert into device_rejects (tenant_id, device_id, id, code, detail, transport, topic, key, ts, sample, packet_id, client_id, address, count, first_at, last_at)
    select ${tenantId}, r."deviceId", r.id, r.code, r.detail, r.transport, r.topic, r.key, r.ts, r.sample, r."packetId", r."clientId", r.address, r.count, r."firstAt", r."lastAt"
    from jsonb_to_recordset(${rows}::jsonb) as r ("deviceId" uuid, id uuid, code text, detail text, transport text, topic text, key text, ts int8,
      sample text, "packetId" int4, "clientId" text, address text, count int4, "firstAt" timestamptz, "lastAt" timestamptz)
    where exists (select 1 from devices d where d.id = r."deviceId")
    on conflict (tenant_id, device_id, id) do update set count = excluded.count, last_at = excluded.last_at`)
  const deviceIds = [...new Set(changed.map((open) => open.device.id))]
  await tx.execute(sql`
    delete from device_rejects r using (
      select device_id, id, row_number() over (partition by device_id order by last_at desc, id desc) as place
      from device_rejects where device_id = any(${sql.param(deviceIds)}::uuid[])) old
    where old.place > ${keptPerDevice} and r.device_id = old.device_id and r.id = old.id`)
}

function createEntry(refusal: { source: UplinkSource; reject: Reject; payload: Buffer }, now: number): RejectEntry {
  const { source, reject, payload } = refusal
  const at = new Date(now).toISOString()
  return {
    id: randomUUIDv7(),
    code: reject.code,
    detail: reject.detail,
    transport: source.transport,
    topic: storable(redact(source.topic)),
    key: reject.key === undefined ? null : storable(reject.key.slice(0, 300)),
    ts: reject.ts !== undefined && Number.isSafeInteger(reject.ts) ? reject.ts : null,
    sample: storable(payload.subarray(0, sampleBytes).toString('utf8')),
    packetId: source.packetId ?? null,
    clientId: source.clientId === undefined ? null : storable(source.clientId),
    address: source.address,
    count: 1,
    firstAt: at,
    lastAt: at,
  }
}

/** PostgreSQL text holds neither U+0000 nor lone surrogates. */
function storable(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\uFFFD')
}
