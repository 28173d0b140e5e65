// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createPrivateKey, sign } from 'node:crypto'
import type { EvidenceSigner } from '@iot-pms/core'
import { appendEntries, emptyHead, rawPublicKeyOf, signCheckpoint } from './chain.ts'
import type { Checkpoint, Entry, Head } from './chain.ts'
import { buildEvent, streamOf, tenantOf } from './event.ts'
import type { EventPayload } from './event.ts'
import fixture from './fixture.json' with { type: 'json' }
import type { Line, Log } from './verify.mjs'
import { trustKeys, verifyLog } from './verify.mjs'

/** RFC 8410: an Ed25519 key in PKCS#8 is this and its 32 bytes. */
const prefix = Buffer.from('302e020100300506032b657004220420', 'hex')
export const signingKey = createPrivateKey({
  key: Buffer.concat([prefix, Buffer.from(fixture.seedHex, 'hex')]),
  format: 'der',
  type: 'pkcs8',
})
export const signer: EvidenceSigner = { id: fixture.keyId, sign: (bytes) => sign(null, bytes, signingKey) }
export const publicKeyHex = rawPublicKeyOf(signingKey).toString('hex')
export const keysJson = [{ id: fixture.keyId, publicKey: fixture.publicKey }]

/** A chain with its checkpoints; `left` is what a log that begins later has to say of what is before. */
export type TestLog = {
  stream: string
  fromSeq: number
  prev: string
  left: { size: number; hash: string }[]
  entries: Entry[]
  checkpoints: Checkpoint[]
}

/** The log of the fixture: 8 events, checkpoints after 4 and 8. */
export function fixtureLog(): TestLog {
  const makers = structuredClone(fixture.events).map(
    ({ type, ts, actor, subject, data }) =>
      (seq: number) =>
        ({ v: 1, stream: fixture.stream, seq, ts, type, actor, subject, data }) as EventPayload,
  )
  const { entries } = appendEntries(emptyHead, makers)
  return {
    stream: fixture.stream,
    fromSeq: 1,
    prev: emptyHead.hash,
    left: [],
    entries,
    checkpoints: structuredClone(fixture.checkpoints) as Checkpoint[],
  }
}

/** A chain of `count` events with checkpoints at these sizes. */
export function makeLog(count: number, sizes: readonly number[]): TestLog {
  const stream = streamOf('01931c00-0000-7000-8000-000000000011')
  const entries: Entry[] = []
  const checkpoints: Checkpoint[] = []
  let head: Head = emptyHead
  for (let n = 1; n <= count; n++) {
    const at = new Date(Date.UTC(2026, 10, 20) + n * 1000)
    const next = appendEntries(head, [(seq) => buildEvent(exampleDraft(seq), { id: `event-${seq}`, stream, seq, ts: at })])
    entries.push(...next.entries)
    head = next.head
    if (sizes.includes(n)) checkpoints.push(signCheckpoint({ tenant: tenantOf(stream), head, at }, checkpoints.at(-1), signer))
  }
  return { stream, fromSeq: 1, prev: emptyHead.hash, left: [], entries, checkpoints }
}

function exampleDraft(seq: number) {
  return {
    type: seq % 3 === 0 ? 'device.update' : 'command.send',
    outcome: 'success',
    subject: `device:${seq}`,
    targetName: `泵 ${seq} "\\\n😀`,
    actor: 'user:01931c00-0000-7000-8000-000000000102',
    changes: [{ path: '/limit', from: seq / 7, to: 1e-7 * seq }],
    context: { ip: '203.0.113.7', route: 'PATCH /api/v1/devices/{id}' },
  } as const
}

export function manifestOf(log: TestLog) {
  const { stream, fromSeq, prev, left, entries } = log
  return {
    format: 1,
    log: 'audit',
    tenant: tenantOf(stream),
    stream,
    fromSeq,
    toSeq: entries.at(-1)?.payload.seq ?? fromSeq - 1,
    prev,
    left,
  }
}

/** Verifies what a log says, with the key of the tests. @param lines instead of the entries' own */
export async function verifyTestLog(
  log: TestLog,
  lines: readonly string[] = log.entries.map((entry) => JSON.stringify(entry)),
  toSeq?: number,
) {
  const manifest: Log['manifest'] = { ...manifestOf(log), ...(toSeq !== undefined && { toSeq }) }
  const numbered: Line[] = lines.map((text, index) => ({ text, line: index + 1, isEnded: true }))
  return verifyLog({ manifest, lines: numbered, checkpoints: log.checkpoints, keys: trustKeys([], [publicKeyHex]) })
}
