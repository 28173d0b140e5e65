// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Db, Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'

const maxBytes = 262_144
const tries = 5

export type StateDocument<T> = { value: T; version: number }

/** One versioned JSON document that all servers share [jobs 7.3]; `value` is up to 256 KiB. */
export class SharedState<T extends object> {
  readonly #db: Db
  readonly #scope: Scope
  readonly #place: { scope: string; key: string }

  constructor(db: Db, scope: Scope, place: { scope: string; key: string }) {
    this.#db = db
    this.#scope = scope
    this.#place = place
  }

  async get(): Promise<StateDocument<T> | undefined> {
    const [row] = await this.#db.withTenant(this.#scope, (tx) =>
      tx.execute<{ value: T; version: number }>(
        sql`select value, version::float8 as version from state_documents where scope = ${this.#place.scope} and key = ${this.#place.key}`,
      ),
    )
    return row
  }

  /**
   * @param expectedVersion of the document it replaces; 0 when there must be none
   * @returns the new version
   * @throws {ProblemError} `STATE_CONFLICT` when somebody was faster, `BODY_TOO_LARGE`
   */
  async set(value: T, expectedVersion: number): Promise<number> {
    const text = JSON.stringify(value)
    if (Buffer.byteLength(text) > maxBytes) throw new ProblemError('BODY_TOO_LARGE', { params: { limit: maxBytes } })
    const { scope, key } = this.#place
    const [row] = await this.#db.withTenant(this.#scope, (tx) =>
      expectedVersion === 0
        ? tx.execute<{ version: number }>(sql`insert into state_documents (tenant_id, scope, key, value)
            values (${this.#scope.tenantId}, ${scope}, ${key}, ${text}::text::jsonb) on conflict do nothing returning version::float8 as version`)
        : tx.execute<{
            version: number
          }>(sql`update state_documents set value = ${text}::text::jsonb, version = version + 1, updated_at = now()
            where scope = ${scope} and key = ${key} and version = ${expectedVersion} returning version::float8 as version`),
    )
    if (!row) throw new ProblemError('STATE_CONFLICT')
    return row.version
  }

  /**
   * Reads, changes and writes, again when somebody was faster.
   *
   * @throws {ProblemError} `STATE_CONFLICT` after five tries
   */
  async update(change: (value: T | undefined) => T): Promise<StateDocument<T>> {
    for (let attempt = 1; ; attempt++) {
      const current = await this.get()
      const value = change(current?.value)
      try {
        return { value, version: await this.set(value, current?.version ?? 0) }
      } catch (error) {
        const isConflict = error instanceof ProblemError && error.code === 'STATE_CONFLICT'
        if (!isConflict || attempt === tries) throw error
      }
    }
  }
}
