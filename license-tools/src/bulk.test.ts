// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { decodeUnverified } from '@iot-pms/core/license'
import { openKey } from './keystore.ts'
import { readRows } from './rows.ts'
import { createInstance, createVendor, passphrase } from './testing.ts'
import type { Outcome, Vendor } from './testing.ts'
import { listPublicKeys } from './signer.ts'
import { verifyToken } from './verify.ts'

let vendor: Vendor
const instance = createInstance()

beforeAll(async () => {
  vendor = await createVendor({ purposes: ['license', 'staging'] })
})
afterAll(() => vendor.close())

const columns = ['external_id', 'request', 'machine', 'customer', 'name', 'edition', 'feature', 'days', 'reason'] as const
type Values = Partial<Record<(typeof columns)[number], string>>

/** A row that is in order, but for what is given. */
function row(id: string, change: Values = {}): Values {
  return {
    external_id: id,
    machine: 'any',
    customer: `c-${id}`,
    name: `客户, "${id}"`,
    edition: 'standard',
    feature: 'vehicle',
    days: '365',
    reason: 'a pilot without machines',
    ...change,
  }
}

function writeCsv(name: string, rows: readonly Values[]): string {
  const cell = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  return vendor.write(
    name,
    [columns.join(','), ...rows.map((one) => columns.map((column) => cell(one[column] ?? '')).join(','))].join('\r\n'),
  )
}

function makeFolder(name: string): string {
  mkdirSync(vendor.path(name))
  return vendor.path(name)
}

function readReport(path: string): Record<string, unknown>[] {
  return readFileSync(`${path}.report.jsonl`, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}

test('each row becomes a license, bad rows are told apart, and the exit is 11', async () => {
  const request = vendor.write('one.req.json', instance.request())
  const changed = vendor.write('changed.req.json', { ...instance.request(), note: 'x' })
  const path = writeCsv('mixed.csv', [
    row('good'),
    row('bound', { machine: '', request: 'one.req.json', reason: '' }),
    row('twice', { machine: '', request, reason: '' }),
    row('forged', { machine: '', request: changed, reason: '' }),
    row('absent', { machine: '', request: 'nowhere.json', reason: '' }),
    row('long', { days: '900' }),
    row('feature', { feature: 'robotics' }),
    row('edition', { edition: 'gold' }),
    row('number', { days: '1e3' }),
    row('customer', { customer: 'no blanks' }),
    row('neither', { machine: '' }),
  ])
  const out = await vendor.sign('bulk', path, '-o', makeFolder('mixed'), '--json')
  expect(out.code).toBe(11)
  expect(out.json).toMatchObject({ ok: false, code: 'BULK_PARTIAL', rows: 11, issued: 2, failed: 9, left: 0 })
  expect(readReport(path).map((one) => [one.external_id, one.result, one.code])).toEqual([
    ['good', 'issued', undefined],
    ['bound', 'issued', undefined],
    ['twice', 'failed', 'POLICY_NONCE'],
    ['forged', 'failed', 'REQUEST_SIGNATURE'],
    ['absent', 'failed', 'FILE_UNREADABLE'],
    ['long', 'failed', 'POLICY_TERM'],
    ['feature', 'failed', 'POLICY_FEATURE'],
    ['edition', 'failed', 'BULK_INVALID'],
    ['number', 'failed', 'USAGE'],
    ['customer', 'failed', 'USAGE'],
    ['neither', 'failed', 'BULK_INVALID'],
  ])
  expect(readdirSync(vendor.path('mixed')).sort()).toEqual(['bound.lic', 'good.lic'])
  expect(decodeUnverified(readFileSync(`${vendor.path('mixed')}/good.lic`, 'utf8'))!.payload).toMatchObject({
    sub: 'c-good',
    cust: { name: '客户, "good"' },
  })
})

test('JSON Lines does the same as CSV', async () => {
  const path = vendor.write(
    'lines.jsonl',
    [
      { ...row('l1'), limit: { devices: 50 } },
      { ...row('l2'), edition: 'enterprise', feature: ['sso', 'audit'] },
    ]
      .map((one) => JSON.stringify(one))
      .join('\n'),
  )
  expect((await vendor.sign('bulk', path, '-o', makeFolder('lines'), '--json')).json).toMatchObject({ ok: true, issued: 2 })
  const payload = (id: string) => decodeUnverified(readFileSync(`${vendor.path('lines')}/${id}.lic`, 'utf8'))!.payload
  expect(payload('l1').limits).toMatchObject({ devices: 50, overage_pct: 10 })
  expect(payload('l2').features).toEqual(['sso', 'audit'])
})

test.each<[string, string, RegExp]>([
  ['a column that is none', 'external_id,colour\na,red', /colour/],
  ['an id twice, also in other letters', 'external_id,customer\nAbc,x\nabc,y', /line 2/],
  ['no id', 'external_id,customer\n,x', /external_id/],
  ['an id that would be a path', 'external_id,customer\n../a,x', /external_id/],
  ['a row of another width', 'external_id,customer\na', /1 columns/],
  ['a quotation mark out of place', 'external_id,customer\na"b,c', /quotation/],
  ['nothing but titles', 'external_id,customer\n', /no rows/],
])('a file with %s is refused as a whole', (_, text, message) => {
  expect(() => readRows(vendor.write('refused.csv', text))).toThrow(
    expect.objectContaining({ code: 'BULK_INVALID', exit: 3, message: expect.stringMatching(message) }),
  )
})

test('line numbers count lines inside quotation marks', () => {
  const rows = readRows(vendor.write('breaks.csv', '\ufeffexternal_id,name\r\na,"two\nlines"\r\n\r\nb,"say ""hi"""\r\n'))
  expect(rows).toEqual([
    { line: 2, values: { external_id: 'a', name: 'two\nlines' } },
    { line: 5, values: { external_id: 'b', name: 'say "hi"' } },
  ])
})

test('a second run needs --resume, issues nothing twice and restores a lost file', async () => {
  const path = writeCsv('again.csv', [row('a1'), row('a2')])
  const folder = makeFolder('again')
  await vendor.sign('bulk', path, '-o', folder)
  const before = [vendor.open().head, readFileSync(`${folder}/a1.lic`, 'utf8')]
  expect((await vendor.sign('bulk', path, '-o', folder, '--json')).json).toMatchObject({ code: 'BULK_REPORT_EXISTS', exit: 2 })
  rmSync(`${folder}/a1.lic`)
  const out = await vendor.sign('bulk', path, '-o', folder, '--resume', '--json')
  expect(out.json).toMatchObject({ ok: true, issued: 0, unchanged: 2 })
  expect([vendor.open().head, readFileSync(`${folder}/a1.lic`, 'utf8')]).toEqual(before)
})

test('a row that says something else under the same id is refused', async () => {
  const path = writeCsv('other.csv', [row('o1')])
  const folder = makeFolder('other')
  await vendor.sign('bulk', path, '-o', folder)
  writeCsv('other.csv', [row('o1', { days: '30' }), row('o2')])
  const out = await vendor.sign('bulk', path, '-o', folder, '--resume', '--json')
  expect(out.json).toMatchObject({ issued: 1, failed: 1 })
  expect(readReport(path)[0]).toMatchObject({ external_id: 'o1', code: 'BULK_INVALID' })
})

test('a file that holds something else is not overwritten', async () => {
  const folder = makeFolder('taken')
  writeFileSync(`${folder}/t1.lic`, 'mine')
  const out = await vendor.sign('bulk', writeCsv('taken.csv', [row('t1')]), '-o', folder, '--json')
  expect(out.json).toMatchObject({ failed: 1 })
  expect(readFileSync(`${folder}/t1.lic`, 'utf8')).toBe('mine')
  expect(vendor.open().records.externalIds.has('t1')).toBe(false)
})

test('rows for production and staging are signed by their own keys', async () => {
  const path = vendor.write('envs.jsonl', [row('e1'), { ...row('e2'), env: 'staging' }].map((one) => JSON.stringify(one)).join('\n'))
  const out = await vendor.sign('bulk', path, '-o', makeFolder('envs'), '--json')
  expect(out.json).toMatchObject({ ok: true, issued: 2 })
  const { externalIds } = vendor.open().records
  expect([externalIds.get('e1')?.kid, externalIds.get('e2')?.kid]).toEqual([vendor.kids.license, vendor.kids.staging])
})

test('a thousand rows survive Ctrl-C, then kill -9, and end as a thousand licenses', { timeout: 300_000 }, async () => {
  const total = 1000
  const own = await createVendor({ purposes: ['license'] })
  const folder = own.path('out')
  mkdirSync(folder)
  const lines = Array.from({ length: total }, (_, n) =>
    JSON.stringify(row(`r${n}`, { customer: `c${n % 50}`, name: `Customer ${n % 50}` })),
  )
  const path = own.write('thousand.jsonl', lines.join('\n'))
  const start = (signal: NodeJS.Signals | undefined, after: number, ...more: string[]): Promise<Outcome> =>
    own.start(
      {
        onStart: (launcher) => {
          if (!signal) return
          launcher.stderr!.on('data', (chunk: Buffer) => {
            const done = Number(/(\d+)\/1000/.exec(chunk.toString())?.[1] ?? 0)
            // The tool itself, not its launcher: that is what a terminal's Ctrl-C and a power cut reach.
            if (done >= after) for (const pid of childrenOf(launcher.pid!)) process.kill(pid, signal)
          })
        },
      },
      'bulk',
      path,
      '-o',
      folder,
      '--passphrase-file',
      own.path('passphrase'),
      ...more,
    )
  const interrupted = await start('SIGINT', 200)
  expect(interrupted.code).toBe(130)
  expect(interrupted.stderr).toContain('100/1000')
  const first = own.open().records.externalIds.size
  expect(first).toBeGreaterThanOrEqual(200)
  expect(first).toBeLessThan(total)
  const killed = await start('SIGKILL', first + 200, '--resume')
  expect(killed.code).not.toBe(0)
  expect(own.open().records.externalIds.size).toBeLessThan(total)
  // A kill may leave a line torn, which a person has to look at.
  await own.run('doctor', '--repair-tail')
  const resumed = await start(undefined, 0, '--resume', '--json')
  expect(resumed.json).toMatchObject({ ok: true, rows: total, failed: 0, left: 0 })
  await expectThousand(own, folder, total)
  own.close()
})

async function expectThousand(own: Vendor, folder: string, total: number): Promise<void> {
  const ledger = own.open()
  expect(ledger.verify()).toEqual([])
  const tokens = [...ledger.records.tokens.values()]
  expect(tokens).toHaveLength(total)
  expect(tokens.every((token) => token.state === 'done')).toBe(true)
  // No number was given twice, none was left out.
  for (let customer = 0; customer < 50; customer++) {
    const numbers = tokens.filter((token) => token.claims.sub === `c${customer}`).map((token) => token.claims.seq)
    expect(numbers.sort((a, b) => a - b)).toEqual(Array.from({ length: total / 50 }, (_, n) => n + 1))
  }
  const files = readdirSync(folder)
  expect(files.filter((name) => name.endsWith('.lic'))).toHaveLength(total)
  const keys = listPublicKeys(ledger)
  for (const { externalId } of tokens) {
    const verdict = await verifyToken(readFileSync(`${folder}/${externalId}.lic`, 'utf8'), { keys, env: 'production', at: new Date() })
    expect(verdict.exit).toBe(0)
  }
  expect(openKey(ledger.getKey(own.kids.license), passphrase).kid).toBe(own.kids.license)
}

/** Processes that a process has started. */
function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .filter((one) => one !== '')
      .map(Number)
  } catch {
    return []
  }
}
