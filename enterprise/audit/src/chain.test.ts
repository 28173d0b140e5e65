// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { canonical } from './canonical.ts'
import { appendEntries, emptyHead, hashBody, keyIdOf, rawPublicKeyOf, signCheckpoint, zeroHash } from './chain.ts'
import type { Checkpoint, Head } from './chain.ts'
import fixture from './fixture.json' with { type: 'json' }
import { fixtureLog, makeLog, signer, signingKey } from './testing.ts'
import { addLeaf, followProof, hashLeaf, hashNode, proveInclusion, rootOf, rootOfLeaves, sizeOf } from './tree.ts'
import type { Edge } from './tree.ts'

describe('the canonical form', () => {
  it.each(fixture.jcs)('writes $canonical', ({ input, canonical: text, sha256 }) => {
    expect(canonical(input)).toBe(text)
    expect(createHash('sha256').update(canonical(input)).digest('hex')).toBe(sha256)
  })

  it('does not depend on the order in which members were set', () => {
    expect(canonical({ b: [1, { d: 2, c: 3 }], a: '\u2028' })).toBe('{"a":"\u2028","b":[1,{"c":3,"d":2}]}')
    expect(canonical(-0)).toBe('0')
  })

  it.each<[string, unknown]>([
    ['NaN', Number.NaN],
    ['Infinity', [Number.POSITIVE_INFINITY]],
    ['undefined', { a: undefined }],
    ['a bigint', 1n],
    ['half a surrogate pair', '\ud83d'],
    ['half a surrogate pair in a name', { '\ud83d': 1 }],
    ['33 levels', Array.from({ length: 33 }).reduce<unknown>((inner) => [inner], 1)],
    ['more than 256 KiB', 'x'.repeat(256 * 1024)],
  ])('refuses %s', (_, value) => {
    expect(() => canonical(value)).toThrow(TypeError)
  })
})

describe('the chain', () => {
  it('has the hashes of the format', () => {
    expect(fixtureLog().entries.map((entry) => entry.hash)).toEqual(fixture.events.map((event) => event.hash))
  })

  it('goes on from its head as if it had never stopped', () => {
    const whole = makeLog(9, []).entries
    const makers = whole.map(
      ({ payload }) =>
        () =>
          payload,
    )
    const first = appendEntries(emptyHead, makers.slice(0, 4))
    const second = appendEntries(first.head, makers.slice(4))
    expect([...first.entries, ...second.entries]).toEqual(whole)
    expect([second.head.seq, sizeOf(second.head.edge)]).toEqual([9, 9])
  })

  it('signs checkpoints that are those of the format, to the byte', () => {
    const { entries } = fixtureLog()
    let head: Head = emptyHead
    const made: Checkpoint[] = []
    for (const { payload } of entries) {
      head = appendEntries(head, [() => payload]).head
      const wanted = fixture.checkpoints.find(({ body }) => body.size === head.seq)
      if (wanted) made.push(signCheckpoint({ tenant: fixture.tenant, head, at: new Date(wanted.body.at) }, made.at(-1), signer))
    }
    expect(made).toEqual(fixture.checkpoints)
    expect([made[0]!.body.prev, made[1]!.body.prev]).toEqual([zeroHash, hashBody(made[0]!.body)])
  })

  it('knows its key by the fingerprint of the raw public key', () => {
    expect(keyIdOf(signingKey)).toBe(fixture.keyId)
    expect(rawPublicKeyOf(signingKey).toString('base64')).toBe(fixture.publicKey)
  })

  it('signs no checkpoint over an edge of another size', () => {
    const { head } = appendEntries(
      emptyHead,
      makeLog(3, []).entries.map(
        ({ payload }) =>
          () =>
            payload,
      ),
    )
    expect(() => signCheckpoint({ tenant: 't', head: { ...head, seq: 2 }, at: new Date() }, undefined, signer)).toThrow('edge')
  })
})

describe('the tree', () => {
  const leaves = Array.from({ length: 33 }, (_, n) => createHash('sha256').update(`leaf ${n}`).digest())

  /** RFC 6962 as it is written, to compare the edge with. */
  function rootByDefinition(data: readonly Buffer[]): Buffer {
    if (data.length === 0) return createHash('sha256').digest()
    if (data.length === 1) return hashLeaf(data[0]!)
    const half = 2 ** Math.floor(Math.log2(data.length - 1))
    return hashNode(rootByDefinition(data.slice(0, half)), rootByDefinition(data.slice(half)))
  }

  it('has the root of RFC 6962 at every size', () => {
    let edge: Edge = []
    for (let size = 0; size <= leaves.length; size++) {
      expect([size, rootOf(edge)]).toEqual([size, rootByDefinition(leaves.slice(0, size))])
      expect(sizeOf(edge)).toBe(size)
      edge = addLeaf(edge, leaves[size] ?? leaves[0]!)
    }
  })

  it('proves each leaf at every size, and no other one', () => {
    for (let size = 1; size <= leaves.length; size++) {
      const part = leaves.slice(0, size)
      const root = rootOfLeaves(part)
      for (const [index, leaf] of part.entries()) {
        const path = proveInclusion(index, part)
        expect(followProof(index, size, leaf, path)).toEqual(root)
        expect(followProof(index, size, Buffer.alloc(32), path)).not.toEqual(root)
        expect(followProof(index, size, leaf, [...path, root])).toBeUndefined()
      }
    }
  })
})
