// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { randomBytes } from 'node:crypto'
import { problem } from '@iot-pms/core'
import type { ModuleContext, Scope, Tx } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import type { Masking } from './mask.ts'

/** [AU-50] */
const minDays = 180
/** [AU-53] Until a shorter time counts. */
const graceMs = 7 * 86_400_000
/** How long another server may go on with what was set before. */
const keptMs = 60_000

export type AuditSettings = {
  auditDays: number
  /** A shorter time that is to come. */
  pendingDays: number | null
  pendingAt: string | null
  maskNames: string[]
}
type Row = { auditDays: number; pendingDays: number | null; pendingAt: number | null; maskNames: string[]; maskKey: string }

/** What each tenant has set: how long events stay, and what is masked in them. */
export class Settings {
  readonly #context: ModuleContext
  readonly #maskings = new Map<string, { masking: Masking; until: number }>()

  constructor(context: ModuleContext) {
    this.#context = context
  }

  /** [AU-21] In the transaction that records, which makes the key when there is none. */
  async getMasking(tx: Tx, scope: Scope): Promise<Masking> {
    const now = this.#context.clock.monotonic()
    const known = this.#maskings.get(scope.tenantId)
    if (known && known.until > now) return known.masking
    const { maskKey, maskNames } = await this.#read(tx, scope)
    const masking = { key: Buffer.from(maskKey, 'base64'), names: maskNames }
    this.#maskings.set(scope.tenantId, { masking, until: now + keptMs })
    return masking
  }

  async get(tx: Tx, scope: Scope): Promise<AuditSettings> {
    const { auditDays, pendingDays, pendingAt, maskNames } = await this.#read(tx, scope)
    const isDue = pendingAt !== null && pendingAt <= this.#context.clock.now()
    if (isDue && pendingDays !== null) return { auditDays: pendingDays, pendingDays: null, pendingAt: null, maskNames }
    return { auditDays, pendingDays, pendingAt: pendingAt === null ? null : new Date(pendingAt).toISOString(), maskNames }
  }

  /**
   * A longer time counts at once, a shorter one in seven days.
   *
   * @throws {ProblemError} `AUDIT_RETENTION_MIN`
   */
  async update(
    tx: Tx,
    scope: Scope,
    wanted: { auditDays?: number | undefined; maskNames?: readonly string[] | undefined },
  ): Promise<AuditSettings> {
    const before = await this.get(tx, scope)
    const { auditDays = before.auditDays } = wanted
    if (auditDays !== 0 && auditDays < minDays) {
      throw problem('AUDIT_RETENTION_MIN', { errors: [{ pointer: '/auditDays', detail: `at least ${minDays}` }] })
    }
    // Names are only ever added: what was hidden once stays so.
    const maskNames = [...new Set([...before.maskNames, ...(wanted.maskNames ?? [])])]
    const isShorter = auditDays !== 0 && (before.auditDays === 0 || auditDays < before.auditDays)
    const pendingAt = isShorter ? new Date(this.#context.clock.now() + graceMs).toISOString() : null
    // Asked for again before it counts, it does not begin anew.
    const isSame = isShorter && before.pendingDays === auditDays
    await tx.execute(sql`update audit.settings set audit_days = ${isShorter ? before.auditDays : auditDays}, pending_days = ${isShorter ? auditDays : null},
      pending_at = ${isSame ? before.pendingAt : pendingAt}, mask_names = ${JSON.stringify(maskNames)}::text::jsonb where tenant_id = ${scope.tenantId}`)
    const after = await this.get(tx, scope)
    this.#maskings.delete(scope.tenantId)
    this.#context.audit.record(tx, { type: 'audit.retention.update', subject: '-', changes: { from: before, to: after } })
    return after
  }

  async #read(tx: Tx, { tenantId }: Scope): Promise<Row> {
    const place = { column: 'settings.mask_key', tenantId, rowId: tenantId }
    const select = () =>
      tx.execute<Row>(sql`select audit_days as "auditDays", pending_days as "pendingDays", floor(extract(epoch from pending_at) * 1000)::float8 as "pendingAt",
        mask_names as "maskNames", mask_key as "maskKey" from audit.settings where tenant_id = ${tenantId}`)
    let [row] = await select()
    if (!row) {
      const sealed = this.#context.secrets.seal(randomBytes(32).toString('base64'), place)
      await tx.execute(sql`insert into audit.settings (tenant_id, mask_key) values (${tenantId}, ${sealed}) on conflict do nothing`)
      ;[row] = await select()
    }
    try {
      return { ...row!, maskKey: this.#context.secrets.open(row!.maskKey, place) }
    } catch {
      // Restored without the secret key: masked values of before compare with none of now, and recording goes on.
      const maskKey = randomBytes(32).toString('base64')
      await tx.execute(
        sql`update audit.settings set mask_key = ${this.#context.secrets.seal(maskKey, place)} where tenant_id = ${tenantId}`,
      )
      return { ...row!, maskKey }
    }
  }
}
