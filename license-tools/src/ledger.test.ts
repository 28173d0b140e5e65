// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { spawn, spawnSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Ledger, hashEntry } from './ledger.ts'
import type { Entry } from './ledger.ts'

let folder: string
beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), 'ledger-')), 'book')
})
afterEach(() => rmSync(join(folder, '..'), { recursive: true, force: true }))

const settings = { iss: 'iot-pms-license', aud: 'iot-pms', test: false, actor: 'ops', now: new Date('2026-11-21T08:00:00Z') }
const file = () => join(folder, 'ledger.jsonl')
const lines = () => readFileSync(file(), 'utf8').trimEnd().split('\n')
const writeLines = (all: readonly string[]) => writeFileSync(file(), all.map((line) => `${line}\n`).join(''))

/** A ledger with `count` entries after the first. */
async function createLedger(count: number): Promise<Ledger> {
  const ledger = Ledger.create(folder, settings)
  await ledger.lock()
  for (let n = 1; n <= count; n++) ledger.append('anchor', { n }, 'ops', new Date(settings.now.getTime() + n * 1000))
  ledger.close()
  return ledger
}

function codesOf(run: () => Ledger): string[] {
  try {
    return run()
      .verify()
      .map((finding) => `${finding.line} ${finding.code}`)
  } catch (error) {
    const { findings } = (error as { details: { findings: { line: number; code: string }[] } }).details
    return findings.map((finding) => `${finding.line} ${finding.code}`)
  }
}

test('the chain has the hashes that the format says [T-14]', () => {
  const first = {
    n: 1,
    ts: '2026-11-21T08:00:00.000Z',
    actor: 'ops',
    act: 'init',
    body: { aud: 'iot-pms', iss: 'iot-pms-license', test: false, ver: 1 },
    prev: '0'.repeat(64),
  } as const
  const hash = 'd00bdbb8d58008070d58b12d90798b17c97435bfadbad6afc4934deafc52c3d2'
  expect(hashEntry(first)).toBe(hash)
  Ledger.create(folder, settings)
  expect(JSON.parse(lines()[0]!)).toEqual({ ...first, hash })
  const second = {
    n: 2,
    ts: '2026-11-21T08:01:00.000Z',
    actor: 'ops',
    act: 'key.create',
    body: { bits: 3072, kid: 'xovs8laqe21uE43k', purpose: 'license' },
    prev: hash,
  } as const
  expect(hashEntry(second)).toBe('fd30b02b0efce9e6d0b10ee0bd21cf30596586454c53df54e7dacab3a290f66a')
})

test('a ledger is for its owner only', async () => {
  await createLedger(1)
  expect(statSync(folder).mode & 0o777).toBe(0o700)
  expect(statSync(file()).mode & 0o777).toBe(0o600)
})

test('a folder with something in it becomes no ledger', async () => {
  await createLedger(0)
  expect(() => Ledger.create(folder, settings)).toThrow(expect.objectContaining({ code: 'LEDGER_EXISTS', exit: 2 }))
})

test('a whole chain has no findings', async () => {
  await createLedger(150)
  expect(Ledger.open(folder).verify()).toEqual([])
})

/** Line 5 with another body, and a hash that fits it. */
function forge(line: string): string {
  const entry = JSON.parse(line) as Entry
  const { hash: _hash, ...rest } = { ...entry, body: { n: 999 } }
  return JSON.stringify({ ...rest, hash: hashEntry(rest) })
}

test.each<[string, (all: string[]) => string[], string]>([
  ['an edited line', (all) => all.with(4, all[4]!.replace('"n":4', '"n":7')), '5 HASH'],
  ['an edited line with a new hash', (all) => all.with(4, forge(all[4]!)), '6 PREV'],
  ['an edited time', (all) => all.with(4, all[4]!.replace('08:00:04', '08:00:05')), '5 HASH'],
  ['an edited actor', (all) => all.with(4, all[4]!.replace('"ops"', '"bob"')), '5 HASH'],
  ['a removed line', (all) => all.toSpliced(4, 1), '5 PREV'],
  ['the first line removed', (all) => all.slice(1), '1 INIT'],
  ['an inserted line', (all) => all.toSpliced(4, 0, forge(all[4]!)), '6 PREV'],
  ['a doubled line', (all) => all.toSpliced(4, 0, all[4]!), '6 PREV'],
  ['two swapped lines', (all) => all.with(4, all[5]!).with(5, all[4]!), '5 PREV'],
  ['a line that is no entry', (all) => all.with(4, '{}'), '5 LINE_INVALID'],
  ['an empty line', (all) => all.toSpliced(4, 0, ''), '5 LINE_INVALID'],
  ['a member beside the others', (all) => all.with(4, all[4]!.replace('{', '{"x":1,')), '5 LINE_INVALID'],
  ['an act that is none', (all) => all.with(4, all[4]!.replace('"anchor"', '"bribe"')), '5 LINE_INVALID'],
])('%s is found, and nothing can be written any more [T-16] [T-17]', async (_, change, expected) => {
  await createLedger(10)
  writeLines(change(lines()))
  expect(codesOf(() => Ledger.open(folder))).toContain(expected)
  const write = async () => {
    const ledger = Ledger.open(folder)
    await ledger.lock()
  }
  await expect(write()).rejects.toMatchObject({ code: 'LEDGER_BROKEN', exit: 9 })
  expect(existsSync(join(folder, 'ledger.lock'))).toBe(false)
})

test('a production flag turned into a test flag is found: the first entry says what it is [T-7]', async () => {
  await createLedger(1)
  const path = join(folder, 'config.json')
  writeFileSync(path, readFileSync(path, 'utf8').replace('"test": false', '"test": true'))
  expect(() => Ledger.open(folder)).toThrow(expect.objectContaining({ code: 'LEDGER_BROKEN' }))
})

test('cut lines are found with an anchor from outside only [T-16]', async () => {
  const { head } = await createLedger(10)
  writeLines(lines().slice(0, -2))
  const cut = Ledger.open(folder)
  expect(cut.verify()).toEqual([])
  expect(cut.verify(head)).toEqual([{ line: 11, code: 'ANCHOR' }])
})

test('cut lines are found by a revocation list that names an entry after the cut [T-16]', async () => {
  const ledger = await createLedger(10)
  const payload = { ledger_head: ledger.head.hash }
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  writeFileSync(join(folder, 'crl', 'crl-1.jwt'), `${part({ alg: 'RS256' })}.${part(payload)}.`)
  expect(Ledger.open(folder).verify()).toEqual([])
  writeLines(lines().slice(0, -2))
  expect(Ledger.open(folder).verify()).toEqual([{ line: 9, code: 'CRL_HEAD' }])
})

test('time that goes back more than a day is a warning [T-16]', async () => {
  const ledger = await createLedger(1)
  await ledger.lock()
  ledger.append('anchor', {}, 'ops', new Date('2026-11-19T08:00:00Z'))
  ledger.close()
  expect(Ledger.open(folder).verify()).toEqual([{ line: 3, code: 'TIME_BACK', warning: true }])
})

test.each([1, 40, 200])('a last line torn after %i bytes stops writing until it is cut [T-16]', async (bytes) => {
  await createLedger(5)
  const whole = readFileSync(file(), 'utf8')
  appendFileSync(file(), lines()[5]!.slice(0, bytes))
  const torn = Ledger.open(folder)
  expect(torn.verify()).toEqual([{ line: 7, code: 'LINE_INCOMPLETE' }])
  await expect(torn.lock()).rejects.toMatchObject({ code: 'LEDGER_BROKEN' })
  await torn.lockForRepair()
  expect(torn.repairTail()).toBe('cut')
  torn.close()
  expect(readFileSync(file(), 'utf8')).toBe(whole)
  expect(Ledger.open(folder).verify()).toEqual([])
})

test('a last line that only lacks its end is kept', async () => {
  await createLedger(5)
  const whole = readFileSync(file(), 'utf8')
  truncateSync(file(), whole.length - 1)
  const torn = Ledger.open(folder)
  await expect(torn.lock()).rejects.toMatchObject({ code: 'LEDGER_BROKEN' })
  await torn.lockForRepair()
  expect(torn.repairTail()).toBe('ended')
  torn.close()
  expect(readFileSync(file(), 'utf8')).toBe(whole)
})

test('a repair leaves whole lines alone', async () => {
  const ledger = await createLedger(5)
  await ledger.lockForRepair()
  expect(ledger.repairTail()).toBe('nothing')
  ledger.close()
  expect(Ledger.open(folder).head.n).toBe(6)
})

test('whoever gets the lock sees what was written before [T-21]', async () => {
  const [first, second] = [await createLedger(1), Ledger.open(folder)]
  await first.lock()
  const waiting = second.lock()
  first.append('anchor', {}, 'ops', settings.now)
  first.close()
  await waiting
  expect(second.append('anchor', {}, 'ops', settings.now).n).toBe(4)
  second.close()
  expect(Ledger.open(folder).verify()).toEqual([])
})

test('many writers at once make one chain [T-21]', async () => {
  await createLedger(0)
  const write = async () => {
    for (let count = 0; count < 5; count++) {
      const ledger = Ledger.open(folder)
      await ledger.lock()
      ledger.append('anchor', {}, 'ops', new Date())
      ledger.close()
    }
  }
  await Promise.all(Array.from({ length: 6 }, write))
  const ledger = Ledger.open(folder)
  expect(ledger.head.n).toBe(31)
  expect(ledger.verify()).toEqual([])
})

test('a lock of a dead process is taken over and said [T-17]', async () => {
  await createLedger(1)
  const { pid } = spawnSync(process.execPath, ['--version'])
  writeFileSync(join(folder, 'ledger.lock'), JSON.stringify({ pid, host: hostname(), since: '' }))
  const ledger = Ledger.open(folder)
  expect(await ledger.lock()).toBe(pid)
  ledger.append('anchor', {}, 'ops', new Date())
  ledger.close()
  expect(existsSync(join(folder, 'ledger.lock'))).toBe(false)
})

test('two that find the same dead lock do not both take it', async () => {
  await createLedger(1)
  const { pid } = spawnSync(process.execPath, ['--version'])
  writeFileSync(join(folder, 'ledger.lock'), JSON.stringify({ pid, host: hostname(), since: '' }))
  const write = async () => {
    const ledger = Ledger.open(folder)
    await ledger.lock()
    ledger.append('anchor', {}, 'ops', new Date())
    ledger.close()
  }
  await Promise.all(Array.from({ length: 8 }, write))
  expect(Ledger.open(folder).head.n).toBe(10)
  expect(Ledger.open(folder).verify()).toEqual([])
})

test('a lock of a living process is waited for, then refused with its pid [T-17] [T-21]', async () => {
  await createLedger(1)
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' })
  try {
    writeFileSync(join(folder, 'ledger.lock'), JSON.stringify({ pid: child.pid, host: hostname(), since: '' }))
    await expect(Ledger.open(folder).lock()).rejects.toMatchObject({ code: 'LEDGER_LOCKED', exit: 9, details: { pid: child.pid } })
  } finally {
    child.kill('SIGKILL')
  }
})

test.each(['', '{', JSON.stringify({ pid: 1, host: 'another-machine', since: '' })])(
  'a lock nobody here can judge (%j) is refused at once',
  async (content) => {
    await createLedger(1)
    writeFileSync(join(folder, 'ledger.lock'), content)
    await expect(Ledger.open(folder).lock()).rejects.toMatchObject({ code: 'LEDGER_LOCKED' })
    expect(readFileSync(join(folder, 'ledger.lock'), 'utf8')).toBe(content)
  },
)

test('a folder without a ledger says how to make one', () => {
  expect(() => Ledger.open(folder)).toThrow(expect.objectContaining({ code: 'LEDGER_MISSING', exit: 9 }))
})
