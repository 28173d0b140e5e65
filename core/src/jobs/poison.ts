// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { Db, Scope } from '../db/client.ts'

/** [jobs 7.4] So many jobs of one payload failing for good within a day put it into quarantine. */
const failures = 3
const refreshMs = 10_000

type Payload = { tenantId: string } & Record<string, unknown>

/** Payloads that keep failing for good go straight to the dead letters until somebody releases them. */
export class Poison {
  readonly #db: Db
  readonly #findScope: (tenantId: string) => Promise<Scope | undefined>
  /** Per tenant what is quarantined, as `queue:hash`. */
  readonly #known = new Map<string, { at: number; hashes: ReadonlySet<string> }>()

  constructor(db: Db, findScope: (tenantId: string) => Promise<Scope | undefined>) {
    this.#db = db
    this.#findScope = findScope
  }

  /** One job with this payload is dead. */
  async note(queue: string, data: Payload): Promise<void> {
    const scope = await this.#findScope(data.tenantId)
    if (!scope) return
    const hash = hashOf(data)
    await this.#db.withTenant(scope, (tx) =>
      tx.execute(sql`insert into job_poison as p (tenant_id, queue, payload_sha256) values (${scope.tenantId}, ${queue}, ${hash})
        on conflict (tenant_id, queue, payload_sha256) do update set
          failures = case when p.first_at > now() - interval '24 hours' then p.failures + 1 else 1 end,
          first_at = case when p.first_at > now() - interval '24 hours' then p.first_at else now() end,
          last_at = now(),
          quarantined_at = case when p.first_at > now() - interval '24 hours' and p.failures + 1 >= ${failures}
            then coalesce(p.quarantined_at, now()) else p.quarantined_at end`),
    )
    this.#known.delete(scope.tenantId)
  }

  async isQuarantined(scope: Scope, queue: string, data: Payload): Promise<boolean> {
    let known = this.#known.get(scope.tenantId)
    if (!known || Date.now() - known.at > refreshMs) {
      const rows = await this.#db.withTenant(scope, (tx) =>
        tx.execute<{ queue: string; hash: string }>(
          sql`select queue, encode(payload_sha256, 'hex') as hash from job_poison where quarantined_at is not null`,
        ),
      )
      known = { at: Date.now(), hashes: new Set(rows.map((row) => `${row.queue}:${row.hash}`)) }
      this.#known.set(scope.tenantId, known)
    }
    return known.hashes.size > 0 && known.hashes.has(`${queue}:${hashOf(data).toString('hex')}`)
  }

  async list(scope: Scope): Promise<{ queue: string; hash: string; failures: number; since: Date }[]> {
    const rows = await this.#db.withTenant(scope, (tx) =>
      tx.execute<{ queue: string; hash: string; failures: number; since: string }>(
        sql`select queue, encode(payload_sha256, 'hex') as hash, failures, quarantined_at as since from job_poison
          where quarantined_at is not null order by quarantined_at desc limit 500`,
      ),
    )
    return rows.map((row) => ({ ...row, since: new Date(row.since) }))
  }

  async release(scope: Scope, queue: string, hash: string): Promise<boolean> {
    const rows = await this.#db.withTenant(scope, (tx) =>
      tx.execute(
        sql`delete from job_poison where queue = ${queue} and payload_sha256 = ${Buffer.from(hash, 'hex')} and quarantined_at is not null returning 1`,
      ),
    )
    this.#known.delete(scope.tenantId)
    return rows.length > 0
  }
}

/**
 * Hash of what a payload says without the ids in it: two jobs about the same thing have the same. A payload of ids
 * alone says nothing else, so there they count: not every job of its queue is the same one.
 */
export function hashOf(data: Payload): Buffer {
  const isOnlyIds = Object.keys(data).every(isId)
  return createHash('sha256').update(canonical(data, isOnlyIds)).digest()
}

const isId = (name: string) => name === 'id' || name.endsWith('Id')

function canonical(value: unknown, withIds: boolean): string {
  if (Array.isArray(value)) return `[${value.map((one) => canonical(one, withIds)).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  const members = Object.entries(value).filter(([name]) => withIds || name === 'tenantId' || !isId(name))
  return `{${members
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, one]) => `${JSON.stringify(name)}:${canonical(one, withIds)}`)
    .join(',')}}`
}
