// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Db, Scope } from './client.ts'

export type Installation = { installId: string; secretKeyId: string | null }

/** The one row about the installation as a whole. */
export async function loadInstallation(db: Db): Promise<Installation> {
  const rows = await db.withRole('pms_jobs', (tx) =>
    tx.execute<Installation>(sql`select install_id as "installId", secret_key_id as "secretKeyId" from installation`),
  )
  return rows[0]!
}

/** Notes which secret key sealed the stored values, so that a wrong one is noticed at the start. */
export async function saveSecretKeyId(db: Db, keyId: string): Promise<void> {
  await db.withRole('pms_jobs', (tx) => tx.execute(sql`update installation set secret_key_id = ${keyId}`))
}

export async function listTenants(db: Db): Promise<(Scope & { isRoot: boolean })[]> {
  const rows = await db.withRole('pms_jobs', (tx) =>
    tx.execute<{ tenantId: string; tenantNo: number; isRoot: boolean }>(
      sql`select id as "tenantId", number as "tenantNo", root as "isRoot" from tenants where status = 'active' order by number`,
    ),
  )
  return [...rows]
}

export async function loadRootTenant(db: Db): Promise<Scope> {
  const root = (await listTenants(db)).find((tenant) => tenant.isRoot)
  if (!root) throw new Error('the database has no root tenant')
  return { tenantId: root.tenantId, tenantNo: root.tenantNo }
}
