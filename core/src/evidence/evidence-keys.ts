// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, createPrivateKey, generateKeyPairSync, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { evidenceKeys } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'

/** Any number that no other lock of ours has. */
const keyLock = 7_316_204_917

/** Signs in the name of this installation; `id` tells others which public key to look for. */
export type EvidenceSigner = { id: string; sign(bytes: Uint8Array): Buffer }
export type EvidencePublicKey = { id: string; publicKey: Buffer; createdAt: Date }

/**
 * Ed25519 keys for statements about what is stored [EV-10]: made at first use, independent of the license, the private
 * part sealed. There is one set for the installation.
 */
export class EvidenceKeys {
  readonly #context: Context
  #signer: Promise<EvidenceSigner> | undefined

  constructor(context: Context) {
    this.#context = context
  }

  /** The key that signs now. */
  signer(): Promise<EvidenceSigner> {
    this.#signer ??= this.#open().catch((error: unknown) => {
      this.#signer = undefined
      throw error
    })
    return this.#signer
  }

  /** All that ever signed, the oldest first. */
  async publicKeys(): Promise<EvidencePublicKey[]> {
    const { db, rootTenant } = this.#context
    const rows = await db.withTenant(rootTenant, (tx) => tx.select().from(evidenceKeys).orderBy(evidenceKeys.createdAt, evidenceKeys.id))
    return rows.map(({ id, publicKey, createdAt }) => ({ id, publicKey, createdAt }))
  }

  /** A new key signs from now on; other servers of the database follow when they start. */
  async rotate(): Promise<EvidenceSigner> {
    const { db, rootTenant } = this.#context
    const made = await db.withTenant(rootTenant, (tx) => this.#create(tx))
    this.#signer = Promise.resolve(made)
    return made
  }

  async #open(): Promise<EvidenceSigner> {
    const { db, rootTenant, secrets } = this.#context
    return db.withTenant(rootTenant, async (tx) => {
      // Two servers that start together must not make two keys.
      await tx.execute(sql`select pg_advisory_xact_lock(${keyLock})`)
      const [row] = await tx
        .select()
        .from(evidenceKeys)
        .orderBy(sql`${evidenceKeys.createdAt} desc, ${evidenceKeys.id} desc`)
        .limit(1)
      if (!row) return this.#create(tx)
      try {
        return toSigner(row.id, createPrivateKey(secrets.open(row.sealed, placeOf(rootTenant.tenantId, row.id))))
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error
        // Restored without the secret key: what was signed stays provable by the public half, another key goes on.
        return this.#create(tx)
      }
    })
  }

  async #create(tx: Tx): Promise<EvidenceSigner> {
    const { rootTenant, secrets, audit } = this.#context
    const { tenantId } = rootTenant
    const { publicKey, privateKey } = generateKeyPairSync('ed25519')
    const raw = Buffer.from(publicKey.export({ format: 'jwk' }).x!, 'base64url')
    const id = createHash('sha256').update(raw).digest('hex').slice(0, 16)
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
    await tx.insert(evidenceKeys).values({ tenantId, id, publicKey: raw, sealed: secrets.seal(pem, placeOf(tenantId, id)) })
    audit.record(tx, { type: 'audit.key.rotate', subject: `key:${id}`, isPlatform: true })
    return toSigner(id, privateKey)
  }
}

const placeOf = (tenantId: string, rowId: string) => ({ column: 'evidence_keys.sealed', tenantId, rowId })

function toSigner(id: string, key: KeyObject): EvidenceSigner {
  return { id, sign: (bytes) => sign(null, bytes, key) }
}
