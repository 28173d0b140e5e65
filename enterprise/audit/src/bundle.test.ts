// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { writeBundle } from './bundle.ts'
import { canonical } from './canonical.ts'
import { toJsonLine } from './formats.ts'
import fixture from './fixture.json' with { type: 'json' }
import { fixtureLog, keysJson, makeLog, manifestOf, publicKeyHex } from './testing.ts'
import type { TestLog } from './testing.ts'
import { addLeaf } from './tree.ts'
import type { Edge } from './tree.ts'

const folder = mkdtempSync(join(tmpdir(), 'audit-bundle-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const verifier = fileURLToPath(new URL('verify.mjs', import.meta.url))
let count = 0

function pack(log: TestLog): Buffer {
  const left = log.left.map(({ size, hash }) => ({ size, hash: Buffer.from(hash, 'hex') }))
  return writeBundle({ ...log, left, keys: keysJson, productVersion: '0.1.0', createdAt: new Date('2026-11-20T08:00:12Z') })
}

function write(name: string, content: string | Buffer): string {
  const path = join(folder, `${++count}-${name}`)
  writeFileSync(path, content)
  return path
}

/** A folder with the files of a bundle; `change` may damage them. */
function unpack(log: TestLog, change: Record<string, string> = {}): string {
  const path = join(folder, `bundle-${++count}`)
  mkdirSync(path)
  const files = {
    'manifest.json': JSON.stringify(manifestOf(log)),
    'entries.jsonl': log.entries.map(toJsonLine).join(''),
    'checkpoints.jsonl': log.checkpoints.map((one) => `${canonical(one)}\n`).join(''),
    'keys.json': JSON.stringify(keysJson),
    ...change,
  }
  for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content)
  return path
}

async function verify(...args: string[]): Promise<{ code: number | null; json: Record<string, unknown>; text: string }> {
  const child = spawn(process.execPath, [verifier, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (text += chunk.toString()))
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, text, json: args.includes('--json') ? (JSON.parse(text) as Record<string, unknown>) : {} }
}

const key = ['--key', publicKeyHex]
const whole = { ok: true, findings: [], lastSeq: 8, anchoredTo: 8, unanchored: 0 }

test('a bundle verifies with its key, by raw key or fingerprint [AU-71] [AU-72]', async () => {
  const path = write('log.zip', pack(fixtureLog()))
  expect(await verify(path, ...key, '--json')).toMatchObject({ code: 0, json: whole })
  expect(await verify(path, '--key', fixture.keyId, '--json')).toMatchObject({ code: 0, json: whole })
  expect(await verify(path, '--key', fixture.keyId.toUpperCase().replace(/(.{4})/g, '$1 '))).toMatchObject({ code: 0 })
})

test('the keys in the bundle alone are not enough: exit 3 [AU-72]', async () => {
  expect(await verify(write('log.zip', pack(fixtureLog())), '--json')).toMatchObject({ code: 3, json: whole })
})

test('another key than the one of the bundle is a finding', async () => {
  const path = write('log.zip', pack(fixtureLog()))
  const out = await verify(path, '--key', 'ab'.repeat(32), '--json')
  expect(out).toMatchObject({
    code: 1,
    json: {
      findings: [
        { code: 'AUDIT_CHECKPOINT_SIGNATURE', index: 0 },
        { code: 'AUDIT_CHECKPOINT_SIGNATURE', index: 1 },
      ],
      anchoredTo: 0,
    },
  })
  expect(await verify(path, '--key', 'ab'.repeat(8))).toMatchObject({ code: 1 })
})

test('a folder, and entries with a file of checkpoints, verify as the zip does', async () => {
  const log = fixtureLog()
  expect(await verify(unpack(log), ...key, '--json')).toMatchObject({ code: 0, json: whole })
  const entries = write('entries.jsonl', log.entries.map(toJsonLine).join(''))
  const checkpoints = write('checkpoints.jsonl', log.checkpoints.map((one) => `${canonical(one)}\n`).join(''))
  expect(await verify(entries, '--checkpoints', checkpoints, ...key, '--json')).toMatchObject({ code: 0, json: whole })
  expect(await verify(entries, '--json')).toMatchObject({ code: 3, json: { ...whole, anchoredTo: 0, unanchored: 8 } })
})

test('checkpoints from outside find a tail that was cut from the bundle', async () => {
  const log = fixtureLog()
  const cut = { ...log, entries: log.entries.slice(0, 6), checkpoints: log.checkpoints.slice(0, 1) }
  expect(await verify(unpack(cut), ...key)).toMatchObject({ code: 0 })
  const outside = write('sink.jsonl', log.checkpoints.map((one) => `${canonical(one)}\n`).join(''))
  expect(await verify(unpack(cut), '--checkpoints', outside, ...key, '--json')).toMatchObject({
    code: 1,
    json: { findings: [{ code: 'AUDIT_TAIL_TRUNCATED', seq: 7, until: 8 }] },
  })
})

test('--require-anchored asks that everything is covered [AU-71]', async () => {
  const log = fixtureLog()
  const partly = unpack({ ...log, checkpoints: log.checkpoints.slice(0, 1) })
  expect(await verify(partly, ...key, '--require-anchored')).toMatchObject({ code: 3 })
  expect(await verify(unpack(log), ...key, '--require-anchored')).toMatchObject({ code: 0 })
})

test('a damaged log is exit 1 with every finding', async () => {
  const log = fixtureLog()
  log.entries[2]!.payload.data.changes.push({ path: '/x', from: 1, to: 2 })
  log.entries.splice(4, 1)
  const out = await verify(unpack(log), ...key)
  expect(out.code).toBe(1)
  expect(out.text.trim().split('\n')).toEqual([
    'AUDIT_HASH_MISMATCH seq=3',
    'AUDIT_SEQ_GAP seq=5 until=5',
    'AUDIT_PREV_MISMATCH seq=6',
    'AUDIT_CHECKPOINT_ROOT seq=8',
    expect.stringContaining('4 findings'),
  ])
})

test.each<[string, () => string, RegExp]>([
  [
    'a bundle cut in the middle of a line',
    () => unpack(fixtureLog(), { 'entries.jsonl': fixtureLog().entries.map(toJsonLine).join('').slice(0, -300) }),
    /line 8 /,
  ],
  [
    'checkpoints cut in the middle of a line',
    () => unpack(fixtureLog(), { 'checkpoints.jsonl': '{"body":{' }),
    /line 1 of checkpoints\.jsonl/,
  ],
  ['a manifest of something else', () => unpack(fixtureLog(), { 'manifest.json': '{"format":2}' }), /manifest/],
  ['a manifest that is no JSON', () => unpack(fixtureLog(), { 'manifest.json': '{' }), /./],
  ['half a zip', () => write('half.zip', pack(fixtureLog()).subarray(0, 2000)), /zip/],
  ['a file that is not there', () => join(folder, 'nowhere.zip'), /ENOENT/],
])('%s is exit 2', async (_, make, message) => {
  const out = await verify(make(), ...key, '--json')
  expect(out).toMatchObject({ code: 2, json: { ok: false, error: expect.stringMatching(message) } })
})

test('wrong usage is exit 2', async () => {
  expect(await verify()).toMatchObject({ code: 2 })
  expect(await verify('a', 'b')).toMatchObject({ code: 2 })
  expect(await verify('--frobnicate', '--json')).toMatchObject({ code: 2, json: { ok: false } })
  expect(await verify(write('log.zip', pack(fixtureLog())), '--key', 'short')).toMatchObject({ code: 2 })
})

test('a log that begins later carries the roots of what is before', async () => {
  const { entries, ...log } = makeLog(23, [10, 23])
  const edge = entries.slice(0, 13).reduce<Edge>((grown, { hash }) => addLeaf(grown, Buffer.from(hash, 'hex')), [])
  const left = edge.map(({ size, hash }) => ({ size, hash: hash.toString('hex') }))
  expect(left.map((one) => one.size)).toEqual([8, 4, 1])
  const partial = { ...log, fromSeq: 14, prev: entries[12]!.hash, left, entries: entries.slice(13), checkpoints: log.checkpoints.slice(1) }
  const out = await verify(write('partial.zip', pack(partial)), ...key, '--json')
  expect(out).toMatchObject({ code: 0, json: { ok: true, lastSeq: 23, anchoredTo: 23 } })
})

test('the bundle is a zip that others can read, with the verifier inside', () => {
  const path = write('log.zip', pack(fixtureLog()))
  const out = spawnSync('python3', [
    '-c',
    'import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); print(z.testzip(), *z.namelist()); z.extractall(sys.argv[2])',
    path,
    join(folder, 'out'),
  ])
  expect(out.stdout.toString().trim()).toBe('None manifest.json entries.jsonl checkpoints.jsonl keys.json verify.mjs README.txt')
  expect(readFileSync(join(folder, 'out/verify.mjs'))).toEqual(readFileSync(verifier))
  const run = spawnSync(process.execPath, ['verify.mjs', '.', '--key', publicKeyHex], { cwd: join(folder, 'out') })
  expect([run.status, run.stdout.toString()]).toEqual([0, expect.stringContaining('ok')])
})
