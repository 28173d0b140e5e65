// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { randomUUID } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { ProblemError, problem } from '@iot-pms/core'
import type { ModuleContext, Scope, Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import { createHttpSink } from './http-sink.ts'
import type { SinkCreate, SinkKind, SinkPatch, SinkTarget, SinkView } from './schemas.ts'
import { addressProblem, isPrivateAddress, targetOf } from './sink-target.ts'
import { createFileSink } from './sinks.ts'
import type { Sink } from './sinks.ts'
import { createSyslogSink } from './syslog-sink.ts'

export type Chains = 'own' | 'platform' | 'both'
type Row = {
  id: string
  name: string
  kind: SinkKind
  enabled: boolean
  chains: Chains
  sealed: string
  updatedAt: number
  failingSince: number | null
  deliveredSeq: number
}

const hostName = /^(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}))*\.?$/

/** Where events of a tenant go. What says where and with which secret is sealed and never shown again [AU-43]. */
export class SinkStore {
  readonly #context: ModuleContext

  constructor(context: ModuleContext) {
    this.#context = context
  }

  async list(tx: Tx): Promise<SinkView[]> {
    return (await readRows(tx)).map((row) => toView(row))
  }

  /** @throws {ProblemError} `NOT_FOUND` */
  async get(tx: Tx, id: string): Promise<SinkView> {
    return toView(await readRow(tx, id))
  }

  /** @throws {ProblemError} `NAME_TAKEN`, `AUDIT_SINK_ADDRESS`, `UNPROCESSABLE` */
  async create(tx: Tx, scope: Scope, wanted: SinkCreate): Promise<SinkView> {
    const { name, target, enabled = true, chains = 'own' } = wanted
    this.#requireRoot(scope, chains)
    const id = randomUUID()
    const rows = await tx.execute(sql`insert into audit.sinks (tenant_id, id, name, kind, enabled, chains, sealed)
      values (${scope.tenantId}, ${id}, ${name}, ${target.kind}, ${enabled}, ${chains}, ${this.#seal(scope, id, target)}) on conflict do nothing returning 1`)
    if (rows.length === 0) throw new ProblemError('NAME_TAKEN', { params: { name } })
    this.#context.audit.record(tx, {
      type: 'audit.sink.create',
      subject: `sink:${id}`,
      targetName: name,
      changes: { from: null, to: { kind: target.kind, chains, enabled } },
    })
    return this.get(tx, id)
  }

  /** A target replaces the one before as a whole: nothing of it is shown that could be sent back. */
  async update(tx: Tx, scope: Scope, id: string, patch: SinkPatch): Promise<SinkView> {
    const row = await readRow(tx, id)
    const { name = row.name, enabled = row.enabled, chains = row.chains, target } = patch
    this.#requireRoot(scope, chains)
    const taken = await tx.execute(sql`select 1 from audit.sinks where name = ${name} and id <> ${id}`)
    if (taken.length > 0) throw new ProblemError('NAME_TAKEN', { params: { name } })
    await tx.execute(sql`update audit.sinks set name = ${name}, enabled = ${enabled}, chains = ${chains}, kind = ${target?.kind ?? row.kind},
      sealed = ${target ? this.#seal(scope, id, target) : row.sealed}, updated_at = clock_timestamp() where id = ${id}`)
    const from = { name: row.name, enabled: row.enabled, chains: row.chains, kind: row.kind }
    const to = { name, enabled, chains, kind: target?.kind ?? row.kind, ...(target ? { target: 'replaced' } : {}) }
    this.#context.audit.record(tx, { type: 'audit.sink.update', subject: `sink:${id}`, targetName: name, changes: { from, to } })
    return this.get(tx, id)
  }

  async delete(tx: Tx, id: string): Promise<void> {
    const row = await readRow(tx, id)
    await tx.execute(sql`delete from audit.sinks where id = ${id}`)
    await tx.execute(sql`delete from audit.sink_state where sink = ${id}`)
    this.#context.audit.record(tx, { type: 'audit.sink.delete', subject: `sink:${id}`, targetName: row.name })
  }

  /** Enabled sinks of a tenant, ready to send; `version` changes with what they do. */
  async open(scope: Scope): Promise<{ sink: Sink; chains: Chains; version: string }[]> {
    const rows = await this.#context.db.withTenant(scope, (tx) => readRows(tx))
    return rows
      .filter(({ enabled }) => enabled)
      .map((row) => ({ sink: this.build(row.id, this.#open(scope, row)), chains: row.chains, version: String(row.updatedAt) }))
  }

  /** The sink of a target that need not be stored. @param name under which cursors are kept */
  build(name: string, target: SinkTarget): Sink {
    const { outbound, version, clock, folder } = this.#context
    switch (target.kind) {
      case 'file':
        return createFileSink(join(folder, 'events', name), { name, events: true })
      case 'http':
        return createHttpSink({ name, target, outbound, now: () => clock.now() })
      case 'syslog':
        return createSyslogSink({ name, target, outbound, host: hostname(), version })
    }
  }

  /** @throws {ProblemError} `AUDIT_SINK_ADDRESS` where the guard of outbound addresses does not let it through */
  async check(target: SinkTarget): Promise<void> {
    try {
      if (target.kind === 'http') await this.#context.outbound.checkSaved(targetOf(target.url))
      if (target.kind === 'syslog') {
        if (isIP(target.host) === 0 && !hostName.test(target.host)) throw addressProblem('/target/host', 'no name or address')
        await this.#context.outbound.checkSaved({ kind: 'syslog', host: target.host, port: target.port })
        if (!target.tls && !(await this.#isPrivate(target.host))) {
          throw addressProblem('/target/tls', 'without TLS only in a private network')
        }
      }
    } catch (error) {
      if (error instanceof ProblemError && error.code === 'OUTBOUND_URL_BLOCKED') {
        throw problem('AUDIT_SINK_ADDRESS', { errors: error.errors ?? [], cause: error })
      }
      throw error
    }
  }

  /** RFC 6587 carries everything in clear: only where the next hop is ours. */
  async #isPrivate(host: string): Promise<boolean> {
    const found = isIP(host) ? [{ address: host }] : await lookup(host, { all: true }).catch(() => [])
    return found.every(({ address }) => isPrivateAddress(address))
  }

  #requireRoot({ tenantId }: Scope, chains: Chains): void {
    if (chains === 'own' || tenantId === this.#context.rootTenant.tenantId) return
    throw new ProblemError('UNPROCESSABLE', {
      errors: [{ pointer: '/chains', detail: 'The chain of the platform belongs to its administrators.' }],
    })
  }

  #seal({ tenantId }: Scope, id: string, target: SinkTarget): string {
    return this.#context.secrets.seal(JSON.stringify(target), { column: 'sinks.sealed', tenantId, rowId: id })
  }

  #open({ tenantId }: Scope, { id, sealed }: Row): SinkTarget {
    return JSON.parse(this.#context.secrets.open(sealed, { column: 'sinks.sealed', tenantId, rowId: id })) as SinkTarget
  }

  /** The stored target, for a test of it. */
  async targetOf(tx: Tx, scope: Scope, id: string): Promise<SinkTarget> {
    return this.#open(scope, await readRow(tx, id))
  }
}

function readRows(tx: Tx): Promise<Row[]> {
  return tx
    .execute<Row>(sql`select s.id, s.name, s.kind, s.enabled, s.chains, s.sealed, extract(epoch from s.updated_at)::float8 as "updatedAt",
        extract(epoch from min(t.failing_since))::float8 as "failingSince", coalesce(min(t.seq), 0)::float8 as "deliveredSeq"
      from audit.sinks s left join audit.sink_state t on t.tenant_id = s.tenant_id and t.sink = s.id::text group by s.tenant_id, s.id order by s.name`)
    .then((rows) => [...rows])
}

async function readRow(tx: Tx, id: string): Promise<Row> {
  const row = (await readRows(tx)).find((one) => one.id === id)
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

function toView({ id, name, kind, enabled, chains, updatedAt, failingSince, deliveredSeq }: Row): SinkView {
  const at = (seconds: number) => new Date(seconds * 1000).toISOString()
  return {
    id,
    name,
    kind,
    enabled,
    chains,
    updatedAt: at(updatedAt),
    failingSince: failingSince === null ? null : at(failingSince),
    deliveredSeq,
  }
}
