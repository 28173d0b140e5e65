// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { generateKeyPairSync, randomBytes, randomUUID, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { canonicalJson, hashFactors, signRequest, strengthOf } from '@iot-pms/core/license'
import type { LicenseRequest, MachineMode, UnsignedRequest } from '@iot-pms/core/license'
import { createKey } from './keystore.ts'
import type { KeyFile, Purpose } from './keystore.ts'
import { Ledger } from './ledger.ts'
import { runTool } from './run.ts'

export const passphrase = 'correct horse battery staple'

/** The cheapest derivation that a key file may ask for: a usual one takes over a second. */
export const cheap = { memory: 65_536, passes: 1, parallelism: 1 }

const launcher = fileURLToPath(new URL('../bin/license-tools.mjs', import.meta.url))

export type Outcome = { code: number | null; stdout: string; stderr: string; json: Record<string, unknown> }

/** A vendor's folder: a ledger with keys, a passphrase file, and the tool itself. */
export type Vendor = {
  folder: string
  ledgerFolder: string
  kids: Record<Purpose, string>
  /** One call of the tool in this process; `--json` output is parsed. */
  run(...args: string[]): Promise<Outcome>
  runIn(env: NodeJS.ProcessEnv, ...args: string[]): Promise<Outcome>
  /** The same by the launcher, as the vendor does it, in the vendor's folder. */
  start(options: StartOptions, ...args: string[]): Promise<Outcome>
  /** `run` with the passphrase given. */
  sign(...args: string[]): Promise<Outcome>
  write(name: string, content: string | object): string
  path(name: string): string
  open(): Ledger
  close(): void
}

export type StartOptions = { input?: string; env?: NodeJS.ProcessEnv; onStart?: (child: ChildProcess) => void }

export async function createVendor(options: { test?: boolean; purposes?: Purpose[]; fresh?: boolean } = {}): Promise<Vendor> {
  const folder = mkdtempSync(join(tmpdir(), 'license-tools-'))
  const ledgerFolder = join(folder, 'ledger')
  const ledger = Ledger.create(ledgerFolder, {
    iss: 'iot-pms-license',
    aud: 'iot-pms',
    test: options.test ?? false,
    actor: 'ops',
    now: new Date(),
  })
  const kids = {} as Record<Purpose, string>
  await ledger.lock()
  for (const purpose of options.purposes ?? ['license', 'staging', 'crl']) {
    kids[purpose] = addKey(ledger, purpose, options.fresh ? createTestKey(purpose) : sharedKey(purpose))
  }
  ledger.close()
  const path = (name: string) => join(folder, name)
  const write = (name: string, content: string | object) => {
    writeFileSync(path(name), typeof content === 'string' ? content : JSON.stringify(content))
    return path(name)
  }
  write('passphrase', `${passphrase}\n`)
  const runIn: Vendor['runIn'] = (env, ...args) => callTool({ LANG: 'en_US.UTF-8', IOT_PMS_LEDGER: ledgerFolder, ...env }, args)
  return {
    folder,
    ledgerFolder,
    kids,
    runIn,
    run: (...args) => runIn({}, ...args),
    start: (given, ...args) => startTool(folder, given, args),
    sign: (...args) => runIn({}, ...args, '--passphrase-file', path('passphrase')),
    write,
    path,
    open: () => Ledger.open(ledgerFolder),
    close: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** Keys take long to make: vendors of one test file have the same ones, unless they ask for fresh ones. */
const shared = new Map<Purpose, KeyFile>()

function sharedKey(purpose: Purpose): KeyFile {
  const file = shared.get(purpose) ?? createTestKey(purpose)
  shared.set(purpose, file)
  return file
}

function createTestKey(purpose: Purpose): KeyFile {
  return createKey(purpose, 3072, passphrase, new Date().toISOString(), cheap)
}

/** Needs the lock. @returns the kid */
export function addKey(ledger: Ledger, purpose: Purpose, file = createTestKey(purpose)): string {
  writeFileSync(ledger.keyPath(file.kid), JSON.stringify(file), { mode: 0o600 })
  ledger.append('key.create', { bits: 3072, kid: file.kid, purpose }, 'ops', new Date())
  return file.kid
}

async function callTool(env: NodeJS.ProcessEnv, args: string[]): Promise<Outcome> {
  const written = { stdout: '', stderr: '' }
  const code = await runTool(args, {
    env,
    stdout: (text) => (written.stdout += text),
    stderr: (text) => (written.stderr += text),
    isInterrupted: () => false,
  })
  return { code, ...written, json: parseOutput(args, written.stdout) }
}

function parseOutput(args: string[], stdout: string): Outcome['json'] {
  return args.includes('--json') && stdout !== '' ? (JSON.parse(stdout) as Outcome['json']) : {}
}

function startTool(folder: string, given: StartOptions, args: string[]): Promise<Outcome> {
  const child = spawn(process.execPath, [launcher, ...args], {
    cwd: folder,
    env: { PATH: process.env.PATH, LANG: 'en_US.UTF-8', ...given.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  given.onStart?.(child)
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  child.stdin.on('error', () => {})
  child.stdin.end(given.input ?? '')
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, stdout, stderr, json: parseOutput(args, stdout) }))
  })
}

/** An installation that asks for a license. */
export type Instance = {
  values: Map<string, string>
  key: KeyObject
  request(change?: Partial<UnsignedRequest>): LicenseRequest
  release(token: { jti: string; seq: number }): object
}

const hostFactors = ['install', 'machine-id', 'disk', 'mac']

export function createInstance(mode: MachineMode = 'host', kinds: readonly string[] = hostFactors): Instance {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const values = new Map(kinds.map((kind) => [kind, randomUUID()]))
  const { x } = publicKey.export({ format: 'jwk' }) as { x: string }
  const instanceKey = { crv: 'Ed25519', kty: 'OKP', x } as const
  return {
    values,
    key: privateKey,
    request(change = {}) {
      const salt = randomBytes(16).toString('base64url')
      return signRequest(
        {
          type: 'iot-pms-license-request',
          ver: 1,
          product: 'iot-pms',
          productVersion: '0.1.0',
          nonce: randomBytes(16).toString('base64url'),
          salt,
          createdAt: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
          mode,
          factors: hashFactors(salt, values),
          strength: strengthOf(kinds),
          counts: { devices: 12, users: 3, tenants: 1, replicas: 1 },
          present: ['vehicle'],
          prev: null,
          note: '演示',
          instanceKey,
          ...change,
        },
        privateKey,
      )
    },
    release({ jti, seq }) {
      const receipt = { type: 'iot-pms-release', jti, seq, at: new Date().toISOString(), installIdHash: 'a hash' }
      const sig = sign(null, Buffer.from(`iot-pms-release-v1\n${canonicalJson(receipt)}`), privateKey).toString('base64url')
      return { ...receipt, sig }
    },
  }
}
