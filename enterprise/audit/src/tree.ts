// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash } from 'node:crypto'

/** A perfect subtree by its root: `size` leaves, a power of two. */
export type Subtree = { size: number; hash: Buffer }

/**
 * The right edge of a tree: its perfect subtrees from left to right, each smaller than the one before. It is all that
 * is needed to go on and to know the root, so a checkpoint of a chain of any length costs O(log n).
 */
export type Edge = readonly Subtree[]

/** RFC 6962: leaf and node hashes differ in their first byte, so neither passes for the other. */
export function hashLeaf(data: Uint8Array): Buffer {
  return sha256(Buffer.of(0), data)
}

export function hashNode(left: Uint8Array, right: Uint8Array): Buffer {
  return sha256(Buffer.of(1), left, right)
}

/** The edge with one leaf more. @param data of the leaf: the 32 bytes of an entry's hash */
export function addLeaf(edge: Edge, data: Uint8Array): Subtree[] {
  return addSubtree(edge, { size: 1, hash: hashLeaf(data) })
}

/** The edge with a whole subtree more, whose size divides what is there already. */
export function addSubtree(edge: Edge, subtree: Subtree): Subtree[] {
  const grown = [...edge]
  let last = subtree
  while (grown.at(-1)?.size === last.size) {
    const left = grown.pop()!
    last = { size: left.size * 2, hash: hashNode(left.hash, last.hash) }
  }
  return [...grown, last]
}

export function sizeOf(edge: Edge): number {
  return edge.reduce((sum, { size }) => sum + size, 0)
}

/** Root of the whole tree; the empty tree's is SHA-256 of nothing. */
export function rootOf(edge: Edge): Buffer {
  const [last, ...others] = edge.toReversed()
  if (!last) return sha256()
  return others.reduce((right, { hash }) => hashNode(hash, right), last.hash)
}

/**
 * Hashes that lead from a leaf to the root, lowest first (RFC 6962 §2.1.1).
 *
 * @param leaves data of all leaves of the tree the proof is for
 */
export function proveInclusion(index: number, leaves: readonly Uint8Array[]): Buffer[] {
  if (leaves.length <= 1) return []
  const half = largestPowerBelow(leaves.length)
  const [left, right] = [leaves.slice(0, half), leaves.slice(half)]
  return index < half ? [...proveInclusion(index, left), rootOfLeaves(right)] : [...proveInclusion(index - half, right), rootOfLeaves(left)]
}

/** The root that a proof leads to; undefined when it has not the right length for this place. */
export function followProof(index: number, size: number, data: Uint8Array, path: readonly Uint8Array[]): Buffer | undefined {
  if (size === 1) return path.length === 0 ? hashLeaf(data) : undefined
  const [last, rest] = [path.at(-1), path.slice(0, -1)]
  if (!last) return undefined
  const half = largestPowerBelow(size)
  const below = index < half ? followProof(index, half, data, rest) : followProof(index - half, size - half, data, rest)
  if (!below) return undefined
  return index < half ? hashNode(below, last) : hashNode(last, below)
}

export function rootOfLeaves(leaves: readonly Uint8Array[]): Buffer {
  return rootOf(leaves.reduce<Edge>(addLeaf, []))
}

function largestPowerBelow(size: number): number {
  return 2 ** Math.floor(Math.log2(size - 1))
}

function sha256(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}
