// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import type pg from 'pg'

/** Runs one statement; a pool or a connection. */
type Queryable = Pick<pg.Pool, 'query'>

export type LeaseProof = { name: string; holder: string; epoch: string }

/**
 * Right to do a work that one server at a time may do, kept in the database on the database's time.
 * Who holds it proves so inside the transaction that commits the work: {@link assertHeld}.
 */
export class Lease {
  readonly #name: string
  readonly #seconds: number
  readonly #holder = randomUUID()
  #epoch: string | undefined

  constructor(name: string, seconds: number) {
    this.#name = name
    this.#seconds = seconds
  }

  /** Grows with every holder; 0 while nobody here holds it. */
  get epoch(): number {
    return Number(this.#epoch ?? 0)
  }

  /** @returns true when it is ours now, taken or renewed for another period */
  async acquire(database: Queryable): Promise<boolean> {
    const { rows } = await database.query<{ epoch: string }>(
      // Looked at first: the row is locked while its holder commits, and nobody else should wait for that.
      `insert into leases as l (name, holder, expires_at) select $1, $2, now() + $3 * interval '1 second'
       where not exists (select from leases o where o.name = $1 and o.holder <> $2 and o.expires_at >= now())
       on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at,
         epoch = case when l.holder = excluded.holder then l.epoch else l.epoch + 1 end
       where l.holder = excluded.holder or l.expires_at < now()
       returning epoch`,
      [this.#name, this.#holder, this.#seconds],
    )
    this.#epoch = rows[0]?.epoch
    return this.#epoch !== undefined
  }

  /** What shows that it is ours, wherever the work is done; see {@link assertLease}. */
  get proof(): LeaseProof {
    return { name: this.#name, holder: this.#holder, epoch: this.#epoch ?? '0' }
  }

  /** @throws when another server has taken it over meanwhile; see {@link assertLease} */
  assertHeld(transaction: Queryable): Promise<void> {
    return assertLease(transaction, this.proof)
  }

  /** Lets another server have it at once. */
  async release(database: Queryable): Promise<void> {
    this.#epoch = undefined
    await database.query('update leases set expires_at = now() where name = $1 and holder = $2', [this.#name, this.#holder])
  }
}

/**
 * Keeps others from taking the lease over until the transaction of this connection ends.
 * @throws when another server has taken it over meanwhile
 */
export async function assertLease(transaction: Queryable, { name, holder, epoch }: LeaseProof): Promise<void> {
  const { rowCount } = await transaction.query('select from leases where name = $1 and holder = $2 and epoch = $3 for share', [
    name,
    holder,
    epoch,
  ])
  if (rowCount !== 1) throw new Error(`the lease ${name} was taken over by another server`)
}
