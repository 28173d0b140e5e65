// SPDX-License-Identifier: AGPL-3.0-only
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { eq, isNull, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import { licenseState } from '../db/tables.ts'
import type { SealPlace } from '../secrets.ts'
import { thumbprintOf } from './keys.ts'
import { addLicenseEvent, readStateRow } from './rows.ts'

/** The installation's own key pair: it signs requests, and a license may be tied to it. */
export type InstanceKey = { privateKey: KeyObject; publicKey: KeyObject; jkt: string }

/**
 * [L-42] Opens the sealed key, or makes one at the first start. One that does not open is replaced and an event says so:
 * licenses tied to the old key then have their days of mismatch, and nothing stops.
 */
export async function ensureInstanceKey(context: Pick<Context, 'db' | 'secrets' | 'rootTenant' | 'clock'>): Promise<InstanceKey> {
  const { db, secrets, rootTenant, clock } = context
  const place: SealPlace = { column: 'license_state.instance_key', tenantId: rootTenant.tenantId, rowId: rootTenant.tenantId }
  const open = (sealed: string | null): InstanceKey | undefined => {
    try {
      return sealed === null ? undefined : describe(createPrivateKey(secrets.open(sealed, place)))
    } catch {
      return undefined
    }
  }
  const stored = await db.withTenant(rootTenant, readStateRow)
  const known = open(stored.instanceKey)
  if (known) return known
  const made = describe(generateKeyPairSync('ed25519').privateKey)
  const sealed = secrets.seal(made.privateKey.export({ type: 'pkcs8', format: 'pem' } as const), place)
  const isOurs = await db.withTenant(rootTenant, async (tx) => {
    const before = stored.instanceKey === null ? isNull(licenseState.instanceKey) : eq(licenseState.instanceKey, stored.instanceKey)
    const change = { instanceKey: sealed, instanceJkt: made.jkt, revision: sql`${licenseState.revision} + 1` }
    const changed = await tx.update(licenseState).set(change).where(before).returning({ id: licenseState.tenantId })
    if (changed.length > 0 && stored.instanceKey !== null) {
      const event = { actor: 'system', action: 'license.instance_key_changed', detail: { from: stored.instanceJkt, to: made.jkt } }
      await addLicenseEvent(tx, rootTenant.tenantId, clock.now(), event)
    }
    return changed.length > 0
  })
  if (isOurs) return made
  // Another server was faster; its key is the one.
  return open((await db.withTenant(rootTenant, readStateRow)).instanceKey) ?? made
}

function describe(privateKey: KeyObject): InstanceKey {
  const publicKey = createPublicKey(privateKey)
  return { privateKey, publicKey, jkt: thumbprintOf(publicKey) }
}
