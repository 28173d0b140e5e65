// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash, createPublicKey } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import type { EvidenceSigner } from '@iot-pms/core'
import { canonical } from './canonical.ts'
import type { EventPayload } from './event.ts'
import { addLeaf, rootOf, sizeOf } from './tree.ts'
import type { Edge } from './tree.ts'

/** An event in its chain, as it is stored and exported. */
export type Entry = { prev: string; hash: string; payload: EventPayload }

/** All that is needed to go on with a chain. */
export type Head = { seq: number; hash: string; edge: Edge }

export const zeroHash = '0'.repeat(64)
export const emptyHead: Head = { seq: 0, hash: zeroHash, edge: [] }

/** hash(n) = SHA-256(hash(n − 1) as 32 bytes ‖ canonical(payload n)), lower-case hex */
export function hashEntry(prev: string, payload: unknown): string {
  return createHash('sha256').update(Buffer.from(prev, 'hex')).update(canonical(payload)).digest('hex')
}

/** The next entries of a chain and its new head. @param make builds the payload of a number */
export function appendEntries(head: Head, makers: readonly ((seq: number) => EventPayload)[]): { entries: Entry[]; head: Head } {
  const entries: Entry[] = []
  let { seq, hash, edge } = head
  for (const make of makers) {
    const payload = make(++seq)
    const entry = { prev: hash, hash: hashEntry(hash, payload), payload }
    entries.push(entry)
    hash = entry.hash
    edge = addLeaf(edge, Buffer.from(hash, 'hex'))
  }
  return { entries, head: { seq, hash, edge } }
}

/** What is signed about a chain [AU-40]. */
export type CheckpointBody = {
  v: 1
  log: 'audit'
  tenant: string
  size: number
  root: string
  head: string
  at: string
  prev: string
  key: string
}
export type Checkpoint = { body: CheckpointBody; signature: string }

/** @param tenant its id, or `platform` @param former the checkpoint before; undefined for the first of a chain */
export function signCheckpoint(
  chain: { tenant: string; head: Head; at: Date },
  former: Checkpoint | undefined,
  signer: EvidenceSigner,
): Checkpoint {
  const { tenant, head, at } = chain
  if (sizeOf(head.edge) !== head.seq) throw new Error('the edge does not belong to this head')
  const body: CheckpointBody = {
    v: 1,
    log: 'audit',
    tenant,
    size: head.seq,
    root: rootOf(head.edge).toString('hex'),
    head: head.hash,
    at: at.toISOString(),
    prev: former ? hashBody(former.body) : zeroHash,
    key: signer.id,
  }
  return { body, signature: signer.sign(Buffer.from(canonical(body))).toString('base64') }
}

export function hashBody(body: CheckpointBody): string {
  return createHash('sha256').update(canonical(body)).digest('hex')
}

/** First 16 hex digits of SHA-256 of the raw public key. @param key private or public Ed25519 */
export function keyIdOf(key: KeyObject): string {
  return createHash('sha256').update(rawPublicKeyOf(key)).digest('hex').slice(0, 16)
}

export function rawPublicKeyOf(key: KeyObject): Buffer {
  const { x } = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' })
  return Buffer.from(x!, 'base64url')
}
