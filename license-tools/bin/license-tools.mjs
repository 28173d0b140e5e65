#!/usr/bin/env node
// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
//
// [T-1] Plain JavaScript for Node 18 or newer: finds Node 26 and starts the tool in a process that has no network,
// starts no programs and writes only to the ledger and to the folders of its output files.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const folder = dirname(fileURLToPath(import.meta.url))
/** @param {string} version */
const isNewEnough = (version) => Number(version.split('.')[0]) >= 26

/** The npm package `node` of the workspace, unless this Node is new enough itself. */
function findNode() {
  if (isNewEnough(process.versions.node)) return process.execPath
  const name = process.platform === 'win32' ? 'node.exe' : 'node'
  return ['../node_modules', '../../node_modules'].map((path) => join(folder, path, '.bin', name)).find((path) => existsSync(path))
}

/**
 * Only what decides about folders and descriptors; the tool itself reads the options strictly.
 * @param {string[]} args
 */
function readOptions(args) {
  const text = /** @type {const} */ ({ type: 'string', multiple: true })
  const options = { ledger: text, output: { ...text, short: 'o' }, 'passphrase-fd': text, 'new-passphrase-fd': text }
  return parseArgs({ args, options, strict: false, allowPositionals: true })
}

const args = process.argv.slice(2)
const { values, positionals } = readOptions(args)
/** @param {'ledger' | 'output' | 'passphrase-fd' | 'new-passphrase-fd'} name */
const texts = (name) => [values[name] ?? []].flat().filter((value) => typeof value === 'string')
const ledgers = texts('ledger').length > 0 ? texts('ledger') : [process.env.IOT_PMS_LEDGER ?? 'ledger']

const writable = ledgers.map((path) => resolve(path))
for (const path of texts('output')) if (path !== '-') writable.push(positionals[0] === 'bulk' ? resolve(path) : dirname(resolve(path)))
// The report of a bulk run lies beside its file.
if (positionals[0] === 'bulk' && positionals[1] !== undefined) writable.push(dirname(resolve(positionals[1])))
// A folder that is not there yet counts as a file for the permission model; only `init` makes one.
if (positionals[0] === 'init') for (const path of ledgers) mkdirSync(resolve(path), { recursive: true, mode: 0o700 })

const node = findNode()
if (node === undefined) {
  process.stderr.write('Node 26 不存在，请在仓库中运行 npx pnpm install。Node 26 is missing: run npx pnpm install in the repository.\n')
  process.exit(1)
}
/** @type {('inherit' | 'ignore' | number)[]} */
const stdio = ['inherit', 'inherit', 'inherit']
for (const fd of [...texts('passphrase-fd'), ...texts('new-passphrase-fd')].map(Number)) {
  if (Number.isInteger(fd) && fd > 2 && fd < 256) stdio[fd] = fd
}
const { NODE_OPTIONS: _options, ...env } = process.env
const child = spawn(
  node,
  [
    '--permission',
    '--allow-fs-read=*',
    ...writable.flatMap((path) => [`--allow-fs-write=${path}`, `--allow-fs-write=${join(path, '*')}`]),
    join(folder, '../src/main.ts'),
    ...args,
  ],
  { env, stdio: Array.from(stdio, (one) => one ?? 'ignore') },
)
// Ctrl-C reaches both; the tool decides when it ends.
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) process.on(signal, () => signal === 'SIGTERM' && child.kill(signal))
child.once('error', (error) => {
  process.stderr.write(`${node}: ${error.message}\n`)
  process.exit(1)
})
child.once('close', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 1)))
