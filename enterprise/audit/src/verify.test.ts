// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { canonical } from './canonical.ts'
import { hashEntry, signCheckpoint } from './chain.ts'
import type { Entry } from './chain.ts'
import fixture from './fixture.json' with { type: 'json' }
import { fixtureLog, makeLog, signer, verifyTestLog } from './testing.ts'
import type { TestLog } from './testing.ts'
import { canonical as verifierCanonical, trustKeys, verifyLog } from './verify.mjs'
import { rootOf, addLeaf } from './tree.ts'
import type { Edge } from './tree.ts'

/** The chain from `first` on as a forger would hash it again. */
function relink(entries: readonly Entry[]): Entry[] {
  let prev = '0'.repeat(64)
  return entries.map(({ payload }) => {
    const entry = { prev, hash: hashEntry(prev, payload), payload }
    prev = entry.hash
    return entry
  })
}

function edit(log: TestLog, seq: number, change: (entry: Entry) => Entry): TestLog {
  return { ...log, entries: log.entries.map((entry) => (entry.payload.seq === seq ? change(structuredClone(entry)) : entry)) }
}

const whole = { ok: true, findings: [], lastSeq: 8, anchoredTo: 8, unanchored: 0 }

describe('the verifier', () => {
  it('finds nothing in a log that is whole', async () => {
    expect(await verifyTestLog(fixtureLog())).toEqual(whole)
  })

  it('finds a change', async () => {
    const log = edit(fixtureLog(), 3, (entry) => {
      entry.payload.data.changes.push({ path: '/x', from: null, to: 1 })
      return entry
    })
    expect(await verifyTestLog(log)).toEqual({ ...whole, ok: false, findings: [{ code: 'AUDIT_HASH_MISMATCH', seq: 3 }] })
  })

  it('finds an event removed from the middle', async () => {
    const log = fixtureLog()
    const result = await verifyTestLog({ ...log, entries: log.entries.filter(({ payload }) => payload.seq !== 5) })
    expect(result).toMatchObject({ ok: false, lastSeq: 8, anchoredTo: 8, unanchored: 0 })
    expect(result.findings).toEqual([
      { code: 'AUDIT_SEQ_GAP', seq: 5, until: 5 },
      { code: 'AUDIT_PREV_MISMATCH', seq: 6 },
      { code: 'AUDIT_CHECKPOINT_ROOT', seq: 8 },
    ])
  })

  it('finds the newest events removed, up to the newest checkpoint', async () => {
    const log = fixtureLog()
    const result = await verifyTestLog({ ...log, entries: log.entries.slice(0, 2) })
    expect(result).toEqual({
      ok: false,
      findings: [{ code: 'AUDIT_TAIL_TRUNCATED', seq: 3, until: 8 }],
      lastSeq: 2,
      anchoredTo: 2,
      unanchored: 0,
    })
  })

  it('finds a chain that was hashed again after a change', async () => {
    const log = fixtureLog()
    log.entries[0]!.payload.data.actor.name = 'someone.else@example.com'
    const result = await verifyTestLog({ ...log, entries: relink(log.entries) })
    expect(result).toMatchObject({ ok: false, lastSeq: 8, anchoredTo: 8 })
    expect(result.findings).toEqual(
      [4, 8].flatMap((seq) => [
        { code: 'AUDIT_CHECKPOINT_ROOT', seq },
        { code: 'AUDIT_CHECKPOINT_HEAD', seq },
      ]),
    )
  })

  it('cannot see that the newest checkpoint is gone, and says how much is not anchored', async () => {
    const log = fixtureLog()
    expect(await verifyTestLog({ ...log, checkpoints: log.checkpoints.slice(0, 1) })).toEqual({ ...whole, anchoredTo: 4, unanchored: 4 })
    expect(await verifyTestLog({ ...log, checkpoints: [] })).toEqual({ ...whole, anchoredTo: 0, unanchored: 8 })
  })

  it('verifies a log that begins later by the roots of what is before', async () => {
    const log = fixtureLog()
    const partial = { ...log, fromSeq: 5, prev: log.entries[3]!.hash, left: fixture.left, entries: log.entries.slice(4) }
    expect(await verifyTestLog(partial)).toEqual(whole)
    const forged = { ...partial, left: [{ size: 4, hash: 'ab'.repeat(32) }] }
    expect((await verifyTestLog(forged)).findings.map((one) => one.code)).toEqual(['AUDIT_CHECKPOINT_ROOT', 'AUDIT_CHECKPOINT_ROOT'])
    const odd = { ...partial, left: [{ size: 2, hash: 'ab'.repeat(32) }] }
    expect((await verifyTestLog(odd)).findings[0]).toEqual({ code: 'AUDIT_FORMAT', seq: 4 })
  })

  it('finds two events swapped, doubled, or of another stream', async () => {
    const log = fixtureLog()
    const [five, six] = [log.entries[4]!, log.entries[5]!]
    const swapped = await verifyTestLog({ ...log, entries: log.entries.with(4, six).with(5, five) })
    expect(swapped.findings).toContainEqual({ code: 'AUDIT_SEQ_DUPLICATE', seq: 5 })
    expect(swapped.findings).toContainEqual({ code: 'AUDIT_SEQ_GAP', seq: 5, until: 5 })
    const doubled = await verifyTestLog({ ...log, entries: log.entries.toSpliced(4, 0, five) })
    expect(doubled.findings).toEqual([{ code: 'AUDIT_SEQ_DUPLICATE', seq: 5 }])
    const foreign = await verifyTestLog(
      edit(log, 5, (entry) => ({ ...entry, payload: { ...entry.payload, stream: 'audit:log:platform' } })),
    )
    expect(foreign.findings).toContainEqual({ code: 'AUDIT_STREAM', seq: 5 })
  })

  it.each<[string, (line: string) => string]>([
    ['half a line', (line) => line.slice(0, 200)],
    ['a member twice', (line) => line.replace('"seq":3', '"seq":9,"seq":3')],
    ['a member twice, once escaped', (line) => line.replace('"seq":3', '"s\\u0065q":9,"seq":3')],
    ['a member beside the three', (line) => line.replace('{"prev"', '{"note":1,"prev"')],
    ['a member missing', (line) => line.replace('"reason":null,', '')],
    ['hashes in capitals', (line) => line.replace(/"hash":"[^"]+"/, (hash) => hash.toUpperCase().replace('HASH', 'hash'))],
    ['no object', () => '[]'],
    ['nothing', () => ''],
  ])('finds %s', async (_, damage) => {
    const log = fixtureLog()
    const result = await verifyTestLog(
      log,
      log.entries.map((entry, index) => (index === 2 ? damage(JSON.stringify(entry)) : JSON.stringify(entry))),
    )
    expect(result.findings[0]).toEqual({ code: 'AUDIT_FORMAT', seq: 3, line: 3 })
  })

  it('takes any order of members and any blanks: what is hashed is the canonical form', async () => {
    const log = fixtureLog()
    expect(
      await verifyTestLog(
        log,
        log.entries.map((entry) => JSON.stringify(entry, null, 1).replaceAll('\n', ' ')),
      ),
    ).toEqual(whole)
    expect(
      await verifyTestLog(
        log,
        log.entries.map((entry) => canonical(entry)),
      ),
    ).toEqual(whole)
  })

  it('finds checkpoints that are changed, foreign, missing or contradict each other', async () => {
    const log = fixtureLog()
    const [first, second] = [log.checkpoints[0]!, log.checkpoints[1]!]
    const findings = async (checkpoints: TestLog['checkpoints']) => (await verifyTestLog({ ...log, checkpoints })).findings
    expect(await findings([first, { ...second, body: { ...second.body, size: 7 } }])).toEqual([
      { code: 'AUDIT_CHECKPOINT_SIGNATURE', index: 1 },
    ])
    expect(await findings([first, { ...second, signature: first.signature }])).toEqual([{ code: 'AUDIT_CHECKPOINT_SIGNATURE', index: 1 }])
    expect(await findings([second])).toEqual([{ code: 'AUDIT_CHECKPOINT_MISSING', index: 0 }])
    const head = {
      seq: 4,
      hash: log.entries[3]!.hash,
      edge: log.entries.slice(0, 4).reduce<Edge>((edge, { hash }) => addLeaf(edge, Buffer.from(hash, 'hex')), []),
    }
    expect(rootOf(head.edge).toString('hex')).toBe(first.body.root)
    const foreign = signCheckpoint({ tenant: 'another', head, at: new Date() }, undefined, signer)
    expect(await findings([...log.checkpoints, foreign])).toEqual([{ code: 'AUDIT_CHECKPOINT_LOG', index: 2 }])
    const forked = signCheckpoint({ tenant: fixture.tenant, head: { ...head, hash: 'ab'.repeat(32) }, at: new Date() }, undefined, signer)
    const contradictions = await findings([...log.checkpoints, forked])
    expect(contradictions).toContainEqual({ code: 'AUDIT_FORK', seq: 4, index: 2 })
    expect(contradictions).toContainEqual({ code: 'AUDIT_CHECKPOINT_HEAD', seq: 4 })
    expect(await findings([...log.checkpoints, {} as never])).toEqual([{ code: 'AUDIT_FORMAT', index: 2 }])
    expect(await findings([...log.checkpoints, ...log.checkpoints])).toEqual([])
  })

  it('trusts no key but the one it was given', async () => {
    const { entries, checkpoints } = fixtureLog()
    const lines = entries.map((entry, index) => ({ text: JSON.stringify(entry), line: index + 1, isEnded: true }))
    const keys = trustKeys([{ id: fixture.keyId, publicKey: Buffer.alloc(32, 1).toString('base64') }], [])
    const { findings, anchoredTo } = await verifyLog({ lines, checkpoints, keys })
    expect([findings, anchoredTo]).toEqual([[0, 1].map((index) => ({ code: 'AUDIT_CHECKPOINT_SIGNATURE', index })), 0])
  })

  it('lists at most a thousand findings', async () => {
    const log = makeLog(1200, [])
    expect(
      (
        await verifyTestLog(
          log,
          log.entries.map(() => 'x'),
        )
      ).findings,
    ).toHaveLength(1000)
  })

  it('writes the same canonical form as the writer, by code of its own', () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => verifierCanonical(value) === canonical(value)))
  })
})

describe('a random chain with a random damage [§11.2]', () => {
  const sizes = fc.integer({ min: 1, max: 200 })

  it('is found damaged wherever a checkpoint covers it, and never otherwise', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(
        sizes,
        fc.nat(),
        fc.nat(),
        fc.integer({ min: 0, max: 7 }),
        fc.constantFrom(...damages),
        async (count, a, b, bit, damage) => {
          const log = makeLog(count, [Math.ceil(count / 2), count])
          const lines = log.entries.map((entry) => JSON.stringify(entry))
          expect(await verifyTestLog(log, lines)).toMatchObject({ ok: true, anchoredTo: count })
          const damaged = damage(lines, a % count, b, bit)
          // Some bits change how a value is written, not what it is: `\u001b` and `\u001B`, 1e-7 and 1E-7.
          if (sameContent(lines, damaged)) return
          const { ok } = await verifyTestLog(log, damaged, 0)
          expect(ok).toBe(false)
        },
      ),
      { numRuns: 150 },
    )
  })
})

type Damage = (lines: string[], at: number, place: number, bit: number) => string[]

const damages: readonly Damage[] = [
  function flipBit(lines, at, place, bit) {
    const bytes = Buffer.from(lines[at]!)
    bytes[place % bytes.length]! ^= 1 << bit
    return lines.with(at, bytes.toString('utf8'))
  },
  function remove(lines, at) {
    return lines.toSpliced(at, 1)
  },
  function double(lines, at) {
    return lines.toSpliced(at, 0, lines[at]!)
  },
  function swap(lines, at) {
    const other = (at + 1) % lines.length
    return lines.with(at, lines[other]!).with(other, lines[at]!)
  },
  function insertHashedAgain(lines, at) {
    const entries = lines.map((line) => JSON.parse(line) as Entry)
    const extra = structuredClone(entries[at]!)
    extra.payload.data.target.name = 'never happened'
    const numbered = entries
      .toSpliced(at, 0, extra)
      .map(({ payload, ...rest }, index) => ({ ...rest, payload: { ...payload, seq: index + 1 } }))
    return relink(numbered).map((entry) => JSON.stringify(entry))
  },
  function cutTail(lines, at) {
    return lines.slice(0, at)
  },
]

function sameContent(lines: readonly string[], others: readonly string[]): boolean {
  try {
    return (
      lines.length === others.length && lines.every((line, index) => canonical(JSON.parse(line)) === canonical(JSON.parse(others[index]!)))
    )
  } catch {
    return false
  }
}
