// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { spawn } from 'node:child_process'
import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { decodeUnverified, normaliseToken } from '@iot-pms/core/license'
import { openKey } from './keystore.ts'
import { addKey, createInstance, createVendor, passphrase } from './testing.ts'
import type { Outcome, Vendor } from './testing.ts'

let vendor: Vendor
const instance = createInstance()
/** A license of customer acme that all tests may read. */
let license: { jti: string; path: string; requestPath: string }

beforeAll(async () => {
  vendor = await createVendor()
  license = await issueFor('acme')
})
afterAll(() => vendor.close())

let count = 0
async function issueFor(customer: string, ...more: string[]): Promise<typeof license> {
  const name = `${customer}-${++count}`
  const requestPath = vendor.write(`${name}.req.json`, instance.request())
  const out = await vendor.sign(...issueArgs(requestPath, customer, vendor.path(`${name}.lic`)), ...more, '--json')
  expect(out.json).toMatchObject({ ok: true, customer })
  return { jti: String(out.json.jti), path: vendor.path(`${name}.lic`), requestPath }
}

function issueArgs(request: string, customer: string, output: string): string[] {
  return [
    'issue',
    '--request',
    request,
    '--customer',
    customer,
    '--name',
    `Customer ${customer}`,
    '--edition',
    'standard',
    '--feature',
    'vehicle',
    '--days',
    '365',
    '-o',
    output,
  ]
}

/** [T-2] What `--json` gives for a failure. */
function expectFailure(out: Outcome, code: string, exit: number): void {
  expect(out.json).toMatchObject({ ok: false, code, exit })
  expect(out.code).toBe(exit)
  expect(out.stderr).not.toMatch(/^\s+at /m)
}

test('the process has no network, starts nothing and writes nowhere else [T-1]', async () => {
  const { json } = await vendor.start({}, 'selftest', 'offline', '--json')
  const denied = 'ERR_ACCESS_DENIED'
  expect(json).toEqual({
    ok: true,
    denied: { 'net.connect': denied, 'dns.lookup': denied, fetch: denied, child_process: denied, 'write outside': denied },
  })
})

test('the tool refuses to run outside its launcher, and with more rights than it needs [T-1]', async () => {
  const main = fileURLToPath(new URL('main.ts', import.meta.url))
  for (const flags of [
    [],
    ['--permission', '--allow-fs-read=*', '--allow-net'],
    ['--permission', '--allow-fs-read=*', '--allow-child-process'],
    ['--permission', '--allow-fs-read=*', '--allow-fs-write=*'],
  ]) {
    const child = spawn(process.execPath, [...flags, main, 'version', '--json'], { stdio: ['ignore', 'pipe', 'ignore'] })
    let stdout = ''
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    const code = await new Promise((resolve) => child.once('close', resolve))
    expect([code, JSON.parse(stdout)]).toMatchObject([1, { code: 'NO_PERMISSION_MODEL' }])
  }
})

test.each(['--allow-net', '--permission --allow-net', '--max-old-space-size=512'])(
  'NODE_OPTIONS=%s grants the tool nothing [T-1]',
  async (options) => {
    const out = await vendor.start({ env: { NODE_OPTIONS: options } }, 'selftest', 'offline')
    // Node itself refuses to start with some of them.
    if (out.code === 0) expect(out.stdout.match(/ERR_ACCESS_DENIED/g)).toHaveLength(5)
    else expect(out.stdout).toBe('')
  },
)

test.each([
  [['nonsense'], 'there is no command'],
  [['ledger', 'list', '--frobnicate'], 'license-tools ledger list'],
  [['ledger', 'list', '--customer', 'a', '--customer', 'b'], 'twice'],
  [['ledger', 'list', 'stray'], 'license-tools ledger list'],
  [['revoke'], 'an argument is missing'],
  [['ledger', 'list', '--expiring', '1.5'], 'whole number'],
  [['verify', 'x', '--at', '1795248000'], 'RFC 3339'],
  [['verify', 'x', '--at', '2026-02-31'], 'RFC 3339'],
  [['verify', 'x', '--at', '2026-11-21T08:00:00'], 'RFC 3339'],
  [['key', 'create', '--purpose', 'license', '--bits', '2048'], '3072'],
  [['ledger', 'list', '--now', '2030-01-01'], 'test'],
  [['issue', '--customer', 'a'], 'machine any'],
])('%j is a usage error with exit 2 [T-3] [T-6]', async (args, text) => {
  const out = await vendor.run(...args)
  expect(out.code).toBe(2)
  expect(out.stdout).toBe('')
  expect(out.stderr.toLowerCase()).toContain(text.toLowerCase())
})

test('a usage error asked for in JSON is JSON [T-2]', async () => {
  expectFailure(await vendor.run('ledger', 'list', '--frobnicate', '--json'), 'USAGE', 2)
})

test('sentences come in Chinese or English [T-3]', async () => {
  const zh = await vendor.runIn({ LANG: 'zh_CN.UTF-8' }, 'ledger', 'verify')
  expect(zh.stdout).toContain('链完整')
  const usual = await vendor.runIn({ LANG: 'C' }, 'ledger', 'verify')
  expect(usual.stdout).toContain('链完整')
  const en = await vendor.runIn({ LANG: 'zh_CN.UTF-8' }, 'ledger', 'verify', '--lang', 'en')
  expect(en.stdout).toContain('the chain is whole')
})

test('--quiet says nothing beside the result [T-3]', async () => {
  const loud = await vendor.run('key', 'export-public', vendor.kids.license, '-o', vendor.path('loud.pem'))
  const quiet = await vendor.run('key', 'export-public', vendor.kids.license, '-o', vendor.path('quiet.pem'), '--quiet')
  expect([loud.stderr === '', quiet.stderr]).toEqual([false, ''])
})

test('init, key create and key export-public make what a product can use [T-10]', async () => {
  const folder = vendor.path('fresh')
  const given = ['--ledger', folder, '--passphrase-file', vendor.path('passphrase'), '--json']
  expect((await vendor.run('init', '--ledger', folder, '--json')).json).toMatchObject({ ok: true, iss: 'iot-pms-license' })
  const made = (await vendor.run('key', 'create', '--purpose', 'license', ...given)).json
  expect(made).toMatchObject({ ok: true, purpose: 'license', bits: 3072 })
  expect(statSync(String(made.path)).mode & 0o777).toBe(0o600)
  const kid = String(made.kid)
  expect((await vendor.run('key', 'test', kid, ...given)).json).toMatchObject({ ok: true, works: true })
  const pem = vendor.path(`license-${kid}.pem`)
  const exported = await vendor.run('key', 'export-public', kid, '-o', pem, '--ledger', folder, '--json')
  expect(exported.json).toEqual({ ok: true, kid, path: pem })
  expect(readFileSync(pem, 'utf8')).toMatch(/^-----BEGIN PUBLIC KEY-----\n[^-]+-----END PUBLIC KEY-----\n$/)
  expect(await vendor.run('key', 'list', '--ledger', folder, '--json')).toMatchObject({ json: { keys: [{ kid, status: 'active' }] } })
  expectFailure(await vendor.run('init', '--ledger', folder, '--json'), 'LEDGER_EXISTS', 2)
})

test('a passphrase comes from a file, a descriptor or the environment; without any the exit is 8 [T-4]', async () => {
  const test8 = async (...args: string[]) => vendor.run('key', 'test', vendor.kids.crl, '--json', ...args)
  expect((await test8('--passphrase-file', vendor.path('passphrase'))).code).toBe(0)
  expect((await vendor.start({ input: `${passphrase}\n` }, 'key', 'test', vendor.kids.crl, '--passphrase-fd', '0', '--json')).code).toBe(0)
  const env = await vendor.runIn({ VENDOR_PASS: passphrase }, 'key', 'test', vendor.kids.crl, '--passphrase-env', 'VENDOR_PASS', '--json')
  expect(env.json).toMatchObject({ ok: true, notes: [{ code: 'PASSPHRASE_ENV' }] })
  expectFailure(await test8(), 'KEY_PASSPHRASE_MISSING', 8)
  expectFailure(await test8('--passphrase-file', vendor.path('absent')), 'KEY_PASSPHRASE_MISSING', 8)
})

test('a wrong passphrase is exit 8 in one sentence, and nothing is written [T-11]', async () => {
  const before = vendor.open().head
  const wrong = vendor.write('wrong', 'not the right passphrase')
  const out = await vendor.run(
    ...issueArgs(license.requestPath, 'wrong', vendor.path('wrong.lic')),
    '--reissue',
    '--reason',
    'a test of this',
    '--passphrase-file',
    wrong,
    '--json',
  )
  expectFailure(out, 'POLICY', 10)
  const request = vendor.write('wrong.req.json', instance.request())
  const second = await vendor.run(...issueArgs(request, 'wrong', vendor.path('wrong.lic')), '--passphrase-file', wrong, '--json')
  expectFailure(second, 'KEY_PASSPHRASE', 8)
  expect(vendor.open().head).toEqual(before)
  expect(existsSync(vendor.path('wrong.lic'))).toBe(false)
})

test('a weak passphrase makes no key [T-12]', async () => {
  const before = readdirSync(join(vendor.ledgerFolder, 'keys'))
  const out = await vendor.run('key', 'create', '--purpose', 'crl', '--passphrase-file', vendor.write('weak', 'aaaaaaaaaaaaaa'), '--json')
  expectFailure(out, 'KEY_PASSPHRASE_WEAK', 8)
  expect(readdirSync(join(vendor.ledgerFolder, 'keys'))).toEqual(before)
})

test('a key file that others can read, or that was changed, signs nothing [T-11]', async () => {
  const own = await createVendor({ purposes: ['license'] })
  const path = own.open().keyPath(own.kids.license)
  const request = own.write('a.req.json', instance.request())
  const attempt = () => own.sign(...issueArgs(request, 'acme', own.path('a.lic')), '--json')
  chmodSync(path, 0o644)
  expectFailure(await attempt(), 'KEY_FILE', 8)
  chmodSync(path, 0o600)
  const whole = readFileSync(path, 'utf8')
  writeFileSync(path, whole.replace('"purpose":"license"', '"purpose":"crl"'))
  expectFailure(await attempt(), 'KEY_FILE', 8)
  writeFileSync(path, whole.slice(0, 500))
  expectFailure(await attempt(), 'KEY_FILE', 8)
  writeFileSync(path, whole)
  expect((await attempt()).code).toBe(0)
  own.close()
})

test('the passphrase of a key is changed', async () => {
  const own = await createVendor({ purposes: ['crl'] })
  const next = own.write('next', 'a quite different passphrase')
  const out = await own.sign('key', 'change-passphrase', own.kids.crl, '--new-passphrase-file', next, '--json')
  expect(out.json).toMatchObject({ ok: true, kid: own.kids.crl })
  expectFailure(await own.sign('key', 'test', own.kids.crl, '--json'), 'KEY_PASSPHRASE', 8)
  expect((await own.run('key', 'test', own.kids.crl, '--passphrase-file', next)).code).toBe(0)
  expect(own.open().entries.at(-1)).toMatchObject({ act: 'key.passphrase', body: { kid: own.kids.crl } })
  own.close()
})

test('a request is shown with its short code and without raw values', async () => {
  const request = instance.request()
  const path = vendor.write('shown.req.json', request)
  const { json, stdout } = await vendor.run('request', 'inspect', path, '--json')
  expect(json).toMatchObject({ ok: true, mode: 'host', strength: 'strong', shortCode: request.shortCode, answeredBy: null, note: '演示' })
  for (const value of instance.values.values()) expect(stdout).not.toContain(value)
  const fromInput = await vendor.start({ input: JSON.stringify(request) }, 'request', 'inspect', '-', '--json')
  expect(fromInput.json).toEqual(json)
})

test('a request that is no request is exit 3, a changed one 4, one of another product 10', async () => {
  const request = instance.request()
  const inspect = async (value: string | object) => vendor.run('request', 'inspect', vendor.write('bad.req.json', value), '--json')
  expectFailure(await inspect('{"type":'), 'REQUEST_INVALID', 3)
  expectFailure(await inspect({ type: 'iot-pms-usage' }), 'REQUEST_INVALID', 3)
  expectFailure(await inspect({ ...request, factors: 5 }), 'REQUEST_SIGNATURE', 4)
  expectFailure(await inspect({ ...request, note: 'changed' }), 'REQUEST_SIGNATURE', 4)
  expectFailure(await inspect(JSON.stringify(request).slice(0, 300)), 'REQUEST_INVALID', 3)
  expectFailure(await inspect({ ...request, product: 'other' }), 'POLICY', 10)
  expectFailure(await inspect({ ...request, ver: 2 }), 'POLICY', 10)
  expectFailure(await inspect(instance.request({ mode: 'any' as 'host' })), 'REQUEST_INVALID', 3)
  expectFailure(await vendor.run('request', 'inspect', vendor.path('absent'), '--json'), 'FILE_UNREADABLE', 3)
})

test('an old or a future request is shown with a warning and not answered', async () => {
  const path = vendor.write('old.req.json', instance.request({ createdAt: '2026-01-01T00:00:00Z' }))
  expect((await vendor.run('request', 'inspect', path, '--json')).json).toMatchObject({ ok: true, notes: [{ code: 'REQUEST_OLD' }] })
  const out = await vendor.sign(...issueArgs(path, 'old', vendor.path('old.lic')), '--json')
  expectFailure(out, 'POLICY', 10)
  expect(out.json.violations).toEqual([expect.objectContaining({ code: 'POLICY_REQUEST_AGE' })])
})

test('a license file is armoured, complete and never overwritten [T-5]', async () => {
  const text = readFileSync(license.path, 'utf8')
  expect(text).toMatch(/^-----BEGIN IOT-PMS LICENSE-----\n(?:[\w.-]{1,64}\n)+-----END IOT-PMS LICENSE-----\n$/)
  const request = vendor.write('again.req.json', instance.request())
  const before = vendor.open().head.n
  expectFailure(await vendor.sign(...issueArgs(request, 'again', license.path), '--json'), 'FILE_EXISTS', 2)
  expect(readFileSync(license.path, 'utf8')).toBe(text)
  expect(vendor.open().head.n).toBe(before)
  expect(readdirSync(vendor.folder).filter((name) => name.endsWith('.tmp'))).toEqual([])
})

test('an output folder that is not there is told before anything is issued [T-5]', async () => {
  const before = vendor.open().head.n
  const request = vendor.write('folder.req.json', instance.request())
  expectFailure(await vendor.sign(...issueArgs(request, 'folder', vendor.path('nowhere/a.lic')), '--json'), 'OUTPUT_FOLDER', 2)
  expect(vendor.open().head.n).toBe(before)
})

test('-o - writes the license to standard output, but not into JSON [T-5]', async () => {
  const out = await vendor.sign(...issueArgs(vendor.write('dash.req.json', instance.request()), 'dash', '-'))
  expect(out.code).toBe(0)
  expect(decodeUnverified(out.stdout)?.payload.sub).toBe('dash')
  const refused = await vendor.sign(...issueArgs(vendor.write('dash2.req.json', instance.request()), 'dash', '-'), '--json')
  expectFailure(refused, 'USAGE', 2)
})

test('a dry run shows claims and violations, signs and writes nothing', async () => {
  const before = vendor.open().head.n
  const request = vendor.write('dry.req.json', instance.request())
  const out = await vendor.run(
    ...issueArgs(request, 'dry', vendor.path('dry.lic')).filter((arg) => arg !== '-o' && arg !== vendor.path('dry.lic')),
    '--dry-run',
    '--json',
  )
  expect(out.json).toMatchObject({ ok: true, dryRun: true, claims: { sub: 'dry', seq: 1 }, violations: [] })
  const refused = await vendor.run(
    'issue',
    '--machine',
    'any',
    '--customer',
    'dry',
    '--name',
    'D',
    '--edition',
    'standard',
    '--days',
    '900',
    '--dry-run',
    '--json',
  )
  expect(refused.code).toBe(10)
  expect((refused.json.violations as { code: string }[]).map((one) => one.code).sort()).toEqual([
    'POLICY_ANY_MACHINE',
    'POLICY_FEATURE',
    'POLICY_TERM',
  ])
  expect(vendor.open().head.n).toBe(before)
})

test('one of several keys of a purpose has to be named [T-4]', async () => {
  const own = await createVendor({ purposes: ['license'] })
  const ledger = own.open()
  await ledger.lock()
  const second = addKey(ledger, 'license')
  ledger.close()
  const request = own.write('a.req.json', instance.request())
  expectFailure(await own.sign(...issueArgs(request, 'acme', own.path('a.lic')), '--json'), 'KEY_AMBIGUOUS', 2)
  const named = await own.sign(...issueArgs(request, 'acme', own.path('a.lic')), '--key', second, '--json')
  expect(named.json).toMatchObject({ ok: true, kid: second })
  const retired = await own.run('key', 'retire', second, '--reason', 'no longer needed', '--yes', '--json')
  expect(retired.json).toMatchObject({ ok: true, status: 'retired' })
  const third = own.write('b.req.json', instance.request())
  expectFailure(await own.sign(...issueArgs(third, 'acme', own.path('b.lic')), '--key', second, '--json'), 'POLICY', 10)
  expect((await own.sign(...issueArgs(third, 'acme', own.path('b.lic')), '--json')).json).toMatchObject({ kid: own.kids.license })
  // A retired key still vouches for what it signed, and may sign the same once more.
  expect((await own.run('verify', own.path('a.lic'))).code).toBe(0)
  const again = await own.sign('export', String(named.json.jti), '-o', own.path('a2.lic'), '--json')
  expect(again.code).toBe(0)
  expect(readFileSync(own.path('a2.lic'), 'utf8')).toBe(readFileSync(own.path('a.lic'), 'utf8'))
  own.close()
})

test('a ledger without keys says which one is missing', async () => {
  const own = await createVendor({ purposes: [] })
  expectFailure(
    await own.sign(...issueArgs(own.write('a.req.json', instance.request()), 'acme', own.path('a.lic')), '--json'),
    'KEY_MISSING',
    8,
  )
  own.close()
})

test('a PEM key signs when it is named, and the ledger keeps its public part [T-13]', async () => {
  const own = await createVendor({ purposes: ['license'], fresh: true })
  const { privateKey } = openKey(vendor.open().getKey(vendor.kids.license), passphrase)
  const encrypted = own.write('vendor.pem', privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }))
  const plain = own.write('plain.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const ask = (name: string) => own.write(name, instance.request())
  const out = await own.sign(...issueArgs(ask('a'), 'acme', own.path('a.lic')), '--key', encrypted, '--json')
  expect(out.json).toMatchObject({ ok: true, kid: vendor.kids.license })
  expect((await own.run('verify', own.path('a.lic'))).code).toBe(0)
  expectFailure(await own.run(...issueArgs(ask('b'), 'acme', own.path('b.lic')), '--key', plain, '--json'), 'KEY_PLAIN', 8)
  const unconfirmed = await own.run(...issueArgs(ask('c'), 'acme', own.path('c.lic')), '--key', plain, '--allow-plain-key', '--json')
  expectFailure(unconfirmed, 'CONFIRMATION_NEEDED', 2)
  const confirmed = await own.run(...issueArgs(ask('d'), 'acme', own.path('d.lic')), '--key', plain, '--allow-plain-key', '--yes', '--json')
  expect(confirmed.code).toBe(0)
  own.close()
})

test('inspect decodes without trust and says so', async () => {
  const good = await vendor.run('inspect', license.path, '--json')
  expect(good.json).toMatchObject({ ok: true, verified: true, claims: { jti: license.jti } })
  const [head, payload, signature] = normaliseToken(readFileSync(license.path, 'utf8')).split('.')
  const changed = Buffer.from(Buffer.from(payload!, 'base64url').toString().replace('"devices":1000', '"devices":9999')).toString(
    'base64url',
  )
  const edited = vendor.write('edited.lic', [head, changed, signature].join('.'))
  expect((await vendor.run('inspect', edited)).stdout.split('\n')[0]).toBe('UNVERIFIED 未验证')
  expectFailure(await vendor.run('verify', edited, '--json'), 'LIC_SIGNATURE', 4)
  expectFailure(await vendor.run('inspect', vendor.write('torn.lic', 'eyJhbGciOi'), '--json'), 'TOKEN_INVALID', 3)
  const evil = vendor.write('evil.lic', `${head}.${Buffer.from('{"sub":"\\u001b[31m\\u202e"}').toString('base64url')}.${signature}`)
  expect((await vendor.run('inspect', evil)).stdout).not.toMatch(/\p{Cc}(?<!\n)|\p{Bidi_Control}/u)
})

test('verify ends with the code of the first check that fails', async () => {
  const verify = (...args: string[]) => vendor.run('verify', license.path, ...args, '--json')
  expect((await verify('--request', license.requestPath)).json).toMatchObject({ ok: true, state: 'ACTIVE', jti: license.jti })
  expectFailure(
    await vendor.run('verify', vendor.write('half.lic', readFileSync(license.path, 'utf8').slice(0, 400)), '--json'),
    'LIC_MALFORMED',
    3,
  )
  expectFailure(await verify('--env', 'staging'), 'LIC_ENV', 4)
  expectFailure(await verify('--at', '2020-01-01'), 'NOT_YET', 5)
  expectFailure(await verify('--at', '2099-01-01'), 'EXPIRED', 5)
  expect((await verify('--at', '2099-01-01')).json.state).toBe('RESTRICTED')
  const values = Object.fromEntries(instance.values)
  const here = vendor.write('here.json', { factors: values })
  const moved = vendor.write('moved.json', { factors: { ...values, disk: 'x', mac: 'y' } })
  expect((await verify('--factors', here)).code).toBe(0)
  expectFailure(await verify('--factors', moved), 'TOKEN_MACHINE', 6)
  expectFailure(await verify('--request', vendor.write('foreign.req.json', createInstance().request())), 'TOKEN_MACHINE', 6)
  const other = await createVendor({ purposes: ['license'], fresh: true })
  expectFailure(await other.run('verify', license.path, '--json'), 'LIC_KID_UNKNOWN', 4)
  await vendor.run('key', 'export-public', vendor.kids.license, '-o', other.path(`license-${vendor.kids.license}.pem`))
  other.close()
})

test('renewal keeps what the old license says, changes what is given, and asks', async () => {
  const { jti, path } = await issueFor('renewal')
  const unasked = await vendor.sign('renew', jti, '--days', '30', '-o', vendor.path('r1.lic'), '--json')
  expectFailure(unasked, 'CONFIRMATION_NEEDED', 2)
  const out = await vendor.sign('renew', path, '--days', '30', '--limit', 'devices=500', '-o', vendor.path('r1.lic'), '--yes', '--json')
  expect(out.json).toMatchObject({
    ok: true,
    seq: 2,
    changes: [{ change: 'LIMIT_LOWERED', limit: 'devices', from: 1000, to: 500, ack: true }, { change: 'EXPIRES_LATER' }],
  })
  const [before, after] = [path, vendor.path('r1.lic')].map((file) => decodeUnverified(readFileSync(file, 'utf8'))!.payload)
  expect(after).toMatchObject({
    prev: jti,
    exp: (before!.exp as number) + 30 * 86_400,
    machine: before!.machine,
    cnf: before!.cnf,
    limits: { devices: 500, overage_pct: 10 },
  })
  expect((await vendor.run('diff', jti, vendor.path('r1.lic'), '--json')).json.changes).toEqual(out.json.changes)
  expectFailure(await vendor.sign('renew', '01a1fedb-0000-7000-8000-000000000000', '-o', vendor.path('r2.lic'), '--json'), 'JTI_UNKNOWN', 3)
  await vendor.run('revoke', jti, '--reason', 'refund')
  expectFailure(await vendor.sign('renew', jti, '-o', vendor.path('r2.lic'), '--json'), 'TOKEN_REVOKED', 7)
})

test('a transfer needs the receipt of the instance that lets go, and revokes the old license', async () => {
  const { jti } = await issueFor('mover')
  const target = createInstance()
  const request = vendor.write('target.req.json', target.request())
  const transfer = (receipt: object) =>
    vendor.sign(
      'transfer',
      jti,
      '--request',
      request,
      '--receipt',
      vendor.write('receipt.json', receipt),
      '-o',
      vendor.path('moved.lic'),
      '--yes',
      '--json',
    )
  expectFailure(await transfer({ type: 'other' }), 'RECEIPT_INVALID', 3)
  expectFailure(await transfer(instance.release({ jti, seq: 9 })), 'RECEIPT_INVALID', 3)
  expectFailure(await transfer(target.release({ jti, seq: 1 })), 'RECEIPT_SIGNATURE', 4)
  expectFailure(await transfer({ ...instance.release({ jti, seq: 1 }), at: '2026-01-01T00:00:00Z' }), 'RECEIPT_SIGNATURE', 4)
  const out = await transfer(instance.release({ jti, seq: 1 }))
  expect(out.json).toMatchObject({
    ok: true,
    seq: 2,
    replaced: jti,
    notes: expect.arrayContaining([expect.objectContaining({ code: 'BUILD_CRL' })]),
  })
  const [old, moved] = [vendor.open().records.tokens.get(jti)!, decodeUnverified(readFileSync(vendor.path('moved.lic'), 'utf8'))!.payload]
  expect(old.revoked?.reason).toBe('superseded')
  expect(moved.exp).toBe(old.claims.exp)
  expect((await vendor.run('verify', vendor.path('moved.lic'), '--request', request)).code).toBe(0)
})

test('a trial is thirty days of everything', async () => {
  const out = await vendor.sign(
    'trial',
    'create',
    '--request',
    vendor.write('trial.req.json', instance.request()),
    '--customer',
    'trial',
    '--name',
    'Trial',
    '-o',
    vendor.path('trial.lic'),
    '--json',
  )
  expect(out.json).toMatchObject({ ok: true, edition: 'trial' })
  expect((await vendor.run('verify', vendor.path('trial.lic'), '--json')).json.state).toBe('EXPIRING')
})

test('staging licenses are signed by the staging key', async () => {
  const out = await vendor.sign(
    ...issueArgs(vendor.write('staging.req.json', instance.request()), 'staging', vendor.path('staging.lic')),
    '--env',
    'staging',
    '--json',
  )
  expect(out.json).toMatchObject({ ok: true, kid: vendor.kids.staging })
  expect((await vendor.run('verify', vendor.path('staging.lic'), '--env', 'staging')).code).toBe(0)
  expectFailure(await vendor.run('verify', vendor.path('staging.lic'), '--json'), 'LIC_ENV', 4)
})

test('revocation takes effect with the next list, and is taken back only before it', async () => {
  const own = await createVendor({ purposes: ['license', 'crl'] })
  const issue = async (customer: string) =>
    String(
      (await own.sign(...issueArgs(own.write(`${customer}.json`, instance.request()), customer, own.path(`${customer}.lic`)), '--json'))
        .json.jti,
    )
  const [first, second] = [await issue('first'), await issue('second')]
  expect((await own.run('revoke', first, '--reason', 'lost', '--note', 'stolen laptop', '--json')).json).toMatchObject({
    ok: true,
    already: false,
  })
  expect((await own.run('revoke', first, '--reason', 'lost', '--json')).json).toMatchObject({ ok: true, already: true })
  expectFailure(await own.run('revoke', first, '--reason', 'because', '--json'), 'USAGE', 2)
  expectFailure(await own.run('revoke', '01a1fedb-0000-7000-8000-000000000000', '--reason', 'lost', '--json'), 'JTI_UNKNOWN', 3)
  expect((await own.run('unrevoke', first, '--json')).code).toBe(0)
  await own.run('revoke', first, '--reason', 'lost')
  const head = own.open().head.hash
  const built = await own.sign('crl', 'build', '-o', own.path('one.crl'), '--json')
  expect(built.json).toMatchObject({ ok: true, seq: 1, revoked: 1, keys: 0 })
  expect(decodeUnverified(readFileSync(own.path('one.crl'), 'utf8'))!.payload).toMatchObject({
    revoked: [{ jti: first, reason: 'lost' }],
    ledger_head: head,
  })
  expect((await own.run('crl', 'verify', own.path('one.crl'), '--json')).json).toMatchObject({ ok: true, seq: 1, revoked: 1 })
  expect((await own.run('crl', 'inspect', own.path('one.crl'), '--json')).json).toMatchObject({ verified: false })
  expectFailure(await own.run('verify', own.path('first.lic'), '--crl', own.path('one.crl'), '--json'), 'LIC_REVOKED', 7)
  expect((await own.run('verify', own.path('second.lic'), '--crl', own.path('one.crl'))).code).toBe(0)
  expectFailure(await own.run('unrevoke', first, '--json'), 'POLICY', 10)
  // A revoked key: only what the ledger issued and did not take back stays good.
  expect((await own.run('key', 'revoke', own.kids.license, '--reason', 'key_compromise', '--yes', '--json')).code).toBe(0)
  const next = await own.sign('crl', 'build', '-o', own.path('two.crl'), '--next-update', '30', '--json')
  expect(next.json).toMatchObject({ seq: 2, keys: 1 })
  expect(decodeUnverified(readFileSync(own.path('two.crl'), 'utf8'))!.payload.keys).toEqual([
    { kid: own.kids.license, mode: 'revoked', allow: [second] },
  ])
  expect((await own.run('verify', own.path('second.lic'), '--crl', own.path('two.crl'))).code).toBe(0)
  expectFailure(await own.run('crl', 'verify', license.path, '--json'), 'CRL_INVALID', 3)
  expectFailure(await own.sign('crl', 'build', '-o', own.path('three.crl'), '--next-update', '401', '--json'), 'USAGE', 2)
  expect((await own.run('ledger', 'verify')).code).toBe(0)
  own.close()
})

test('a rotated key retires the one before', async () => {
  const own = await createVendor({ purposes: ['license'] })
  const out = await own.sign('key', 'rotate', '--purpose', 'license', '--json')
  expect(out.json).toMatchObject({ ok: true, retired: [own.kids.license] })
  const { keys } = (await own.run('key', 'list', '--json')).json as { keys: { kid: string; status: string }[] }
  expect(new Map(keys.map((key) => [key.kid, key.status]))).toEqual(
    new Map([
      [own.kids.license, 'retired'],
      [String(out.json.kid), 'active'],
    ]),
  )
  own.close()
})

test('a key file that the ledger does not know is never used, and harms nobody', async () => {
  const own = await createVendor({ purposes: ['license'] })
  const foreign = await createVendor({ purposes: ['license'], fresh: true })
  const name = `${foreign.kids.license}.key.json`
  writeFileSync(join(own.ledgerFolder, 'keys', name), readFileSync(join(foreign.ledgerFolder, 'keys', name)), { mode: 0o600 })
  const out = await own.sign(...issueArgs(own.write('a', instance.request()), 'acme', own.path('a.lic')), '--json')
  expect(out.json).toMatchObject({ ok: true, kid: own.kids.license })
  const named = await own.sign(
    ...issueArgs(own.write('b', instance.request()), 'acme', own.path('b.lic')),
    '--key',
    foreign.kids.license,
    '--json',
  )
  expectFailure(named, 'KEY_FILE', 8)
  expect((await own.run('doctor', '--json')).json).toMatchObject({ ok: true, strayKeys: [foreign.kids.license] })
  own.close()
  foreign.close()
})

test('an edited file status brings no revoked key back', async () => {
  const own = await createVendor({ purposes: ['license'] })
  await own.run('key', 'revoke', own.kids.license, '--reason', 'key_compromise', '--yes')
  const path = own.open().keyPath(own.kids.license)
  writeFileSync(path, readFileSync(path, 'utf8').replace('"revoked"', '"active"'))
  expect((await own.run('key', 'show', own.kids.license, '--json')).json).toMatchObject({ status: 'revoked' })
  expectFailure(
    await own.sign(...issueArgs(own.write('a', instance.request()), 'acme', own.path('a.lic')), '--key', own.kids.license, '--json'),
    'POLICY',
    10,
  )
  own.close()
})

test('a crash between intent and file loses nothing [T-15]', async () => {
  const own = await createVendor({ purposes: ['license'] })
  await own.sign(...issueArgs(own.write('a', instance.request()), 'acme', own.path('a.lic')), '--json')
  const path = join(own.ledgerFolder, 'ledger.jsonl')
  const whole = readFileSync(path, 'utf8')
  const { jti } = own.open().records.tokens.values().next().value!
  // As the power went out before the last entry.
  writeFileSync(
    path,
    whole
      .trimEnd()
      .split('\n')
      .slice(0, -1)
      .map((line) => `${line}\n`)
      .join(''),
  )
  expect((await own.run('doctor', '--json')).json).toMatchObject({ unfinished: [jti] })
  expectFailure(await own.sign('export', jti, '-o', own.path('b.lic'), '--json'), 'JTI_UNKNOWN', 3)
  expect((await own.sign('doctor', '--complete', jti, '--json')).json).toMatchObject({ ok: true, completed: true })
  expect((await own.sign('export', jti, '-o', own.path('b.lic'), '--json')).code).toBe(0)
  expect(readFileSync(own.path('b.lic'), 'utf8')).toBe(readFileSync(own.path('a.lic'), 'utf8'))
  expect((await own.run('doctor', '--json')).json).toMatchObject({ ok: true, unfinished: [] })
  own.close()
})

test('a tampered ledger stops every change, a torn one until it is mended [T-16] [T-17]', async () => {
  const own = await createVendor({ purposes: ['license'] })
  const issue = (name: string) =>
    own.sign(...issueArgs(own.write(`${name}.json`, instance.request()), 'acme', own.path(`${name}.lic`)), '--json')
  const { jti } = (await issue('a')).json
  const path = join(own.ledgerFolder, 'ledger.jsonl')
  const whole = readFileSync(path, 'utf8')
  writeFileSync(path, whole.replace('"devices":1000', '"devices":9000'))
  expectFailure(await issue('b'), 'LEDGER_BROKEN', 9)
  expectFailure(await own.run('revoke', String(jti), '--reason', 'lost', '--json'), 'LEDGER_BROKEN', 9)
  expectFailure(await own.run('ledger', 'verify', '--json'), 'LEDGER_BROKEN', 9)
  expect((await own.run('doctor')).code).toBe(9)
  writeFileSync(path, whole)
  appendFileSync(path, '{"n":5,"ts"')
  expectFailure(await issue('b'), 'LEDGER_BROKEN', 9)
  expect((await own.run('doctor', '--repair-tail', '--json')).json).toMatchObject({ repaired: 'cut' })
  expect((await issue('c')).code).toBe(0)
  expect((await own.run('ledger', 'verify', '--json')).json).toMatchObject({ ok: true, entries: 6 })
  own.close()
})

test('an anchor kept elsewhere shows a cut ledger [T-16]', async () => {
  const own = await createVendor({ purposes: ['license'] })
  await own.sign(...issueArgs(own.write('a', instance.request()), 'acme', own.path('a.lic')))
  const anchor = String((await own.run('ledger', 'anchor', '--json')).json.anchor)
  expect((await own.run('ledger', 'verify', '--anchor', anchor)).code).toBe(0)
  const path = join(own.ledgerFolder, 'ledger.jsonl')
  writeFileSync(
    path,
    readFileSync(path, 'utf8')
      .split('\n')
      .slice(0, 2)
      .map((line) => `${line}\n`)
      .join(''),
  )
  expect((await own.run('ledger', 'verify')).code).toBe(0)
  expectFailure(await own.run('ledger', 'verify', '--anchor', anchor, '--json'), 'LEDGER_BROKEN', 9)
  expectFailure(await own.run('ledger', 'verify', '--anchor', 'x', '--json'), 'USAGE', 2)
  own.close()
})

test('two issues at once get two numbers [T-21]', async () => {
  const requests = [1, 2, 3].map((n) => vendor.write(`race-${n}.json`, instance.request()))
  const outs = await Promise.all(
    requests.map((request, n) =>
      vendor.start(
        {},
        ...issueArgs(request, 'race', vendor.path(`race-${n}.lic`)),
        '--passphrase-file',
        vendor.path('passphrase'),
        '--json',
      ),
    ),
  )
  expect(outs.map((out) => out.code)).toEqual([0, 0, 0])
  expect(outs.map((out) => String(out.json.seq)).sort()).toEqual(['1', '2', '3'])
  expect((await vendor.run('ledger', 'verify')).code).toBe(0)
})

test('a license of this ledger that is not recorded is taken in', async () => {
  const own = await createVendor({ purposes: ['license'], fresh: true })
  await own.sign(...issueArgs(own.write('a', instance.request()), 'acme', own.path('a.lic')))
  const path = join(own.ledgerFolder, 'ledger.jsonl')
  writeFileSync(
    path,
    readFileSync(path, 'utf8')
      .split('\n')
      .slice(0, 2)
      .map((line) => `${line}\n`)
      .join(''),
  )
  const out = await own.run('ledger', 'import', own.path('a.lic'), '--json')
  expect(out.json).toMatchObject({ ok: true })
  expectFailure(await own.run('ledger', 'import', own.path('a.lic'), '--json'), 'USAGE', 2)
  expectFailure(await own.run('ledger', 'import', license.path, '--json'), 'TOKEN_SIGNATURE', 4)
  expect((await own.sign('renew', String(out.json.jti), '--days', '10', '-o', own.path('b.lic'), '--yes', '--json')).json).toMatchObject({
    seq: 2,
  })
  own.close()
})

test('a test ledger travels in time, says TEST everywhere and issues nothing for production [T-7]', async () => {
  const own = await createVendor({ test: true, purposes: ['license', 'staging'] })
  const at = '2030-05-01T00:00:00Z'
  const request = own.write('a', instance.request({ createdAt: at }))
  expectFailure(await own.sign(...issueArgs(request, 'acme', own.path('a.lic')), '--now', at, '--json'), 'POLICY', 10)
  const out = await own.sign(...issueArgs(request, 'acme', own.path('a.lic')), '--kind', 'dev', '--now', at, '--json')
  expect(out.json).toMatchObject({ ok: true, test: true, notBefore: at })
  expect((await own.run('ledger', 'list')).stdout).toMatch(/^TEST/)
  own.close()
})

test('reports and lists show who has what and what ends soon', async () => {
  const own = await createVendor({ purposes: ['license'] })
  const args = issueArgs(own.write('a', instance.request()), 'acme', own.path('a.lic')).map((arg) => (arg === '365' ? '20' : arg))
  const { jti } = (await own.sign(...args, '--json')).json
  expect((await own.run('ledger', 'list', '--customer', 'acme', '--json')).json.licenses).toEqual([
    expect.objectContaining({ jti, state: 'valid', customer: 'acme', revoked: null }),
  ])
  expect((await own.run('ledger', 'list', '--customer', 'nobody', '--json')).json.licenses).toEqual([])
  expect((await own.run('ledger', 'list', '--expiring', '10', '--json')).json.licenses).toEqual([])
  expect((await own.run('ledger', 'list', '--expiring', '30', '--json')).json.licenses).toHaveLength(1)
  expect((await own.run('report', 'expiring', '--within', '30d', '--json')).json.licenses).toEqual([
    expect.objectContaining({ jti, days: 19 }),
  ])
  await own.sign('renew', String(jti), '--days', '100', '-o', own.path('b.lic'), '--yes')
  expect((await own.run('report', 'expiring', '--within', '30d', '--json')).json.licenses).toEqual([])
  expect((await own.run('report', 'customers', '--json')).json.customers).toEqual([
    expect.objectContaining({ customer: 'acme', licenses: 2, seq: 2 }),
  ])
  expect((await own.run('ledger', 'show', String(jti), '--json')).json).toMatchObject({ state: 'done', claims: { sub: 'acme' } })
  expect((await own.run('ledger', 'show', '1', '--json')).json).toMatchObject({ entry: { act: 'init' } })
  expect((await own.run('ledger', 'search', 'ACME', '--json')).json.entries).toHaveLength(2)
  expect((await own.run('ledger', 'export', '--format', 'csv', '-o', own.path('list.csv'))).code).toBe(0)
  expect(readFileSync(own.path('list.csv'), 'utf8').split('\r\n')).toHaveLength(4)
  own.close()
})

test('every command answers --json with one object that holds no secret [T-2]', async () => {
  const secrets = [passphrase, normaliseToken(readFileSync(license.path, 'utf8')).split('.')[2]!.slice(0, 40), 'PRIVATE KEY']
  mkdirSync(vendor.path('out'))
  const calls = [
    ['version'],
    ['help'],
    ['help', 'issue'],
    ['completion', 'bash'],
    ['product', 'list'],
    ['product', 'show', 'standard'],
    ['product', 'show', 'vehicle'],
    ['product', 'show', 'nothing'],
    ['key', 'list'],
    ['key', 'show', vendor.kids.license],
    ['key', 'show', 'nothing'],
    ['ledger', 'list'],
    ['ledger', 'show', license.jti],
    ['ledger', 'verify'],
    ['ledger', 'anchor'],
    ['ledger', 'search', 'acme'],
    ['ledger', 'export', '--format', 'json', '-o', vendor.path('list.json')],
    ['inspect', license.path],
    ['verify', license.path],
    ['request', 'inspect', license.requestPath],
    ['report', 'customers'],
    ['report', 'expiring'],
    ['doctor'],
    ['bulk', vendor.write('empty.csv', 'external_id\n'), '-o', vendor.path('out')],
  ]
  for (const call of calls) {
    const out = await vendor.run(...call, '--json')
    expect(out.stdout.trimEnd().split('\n')).toHaveLength(1)
    expect([call, out.json.ok]).toEqual([call, out.code === 0])
    for (const secret of secrets) expect([call, out.stdout.includes(secret)]).toEqual([call, false])
  }
})

test('completion scripts name the commands, and bash takes its one', async () => {
  for (const shell of ['bash', 'zsh', 'fish']) expect((await vendor.run('completion', shell)).stdout).toContain('issue')
  expect((await vendor.run('completion', 'cmd')).code).toBe(2)
})
