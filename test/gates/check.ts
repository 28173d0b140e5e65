// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import fullList from 'spdx-license-list/full.js'
import { checkBoundaries } from './boundaries.ts'
import { checkClaims } from './claims.ts'
import { checkConventions } from './conventions.ts'
import { checkDependencies, checkLinks, checkPaths } from './documents.ts'
import { checkImports } from './imports.ts'
import { formatFinding, readTrackedFiles, root } from './files.ts'
import type { Finding, TrackedFile } from './files.ts'
import { checkAgplText, checkLicences, checkPackageLicences, parseReuse } from './licences.ts'
import { checkPlaces } from './places.ts'
import { checkSecrets } from './secrets.ts'

/** A gate is a program that must end with 0, or a search that must find nothing. */
type Gate = { name: string } & (
  | { run: readonly [program: string, ...args: string[]]; folder?: string }
  | { search: (files: readonly TrackedFile[]) => Finding[] }
)

const node = process.execPath
const program = (name: string) => join(root, 'node_modules/.bin', name)

/** A commercial folder may have been deleted. */
const isThere = (folder: string) => existsSync(join(root, folder, 'tsconfig.json'))

/** What `pnpm check` runs, in this order. */
const gates: readonly Gate[] = [
  { name: 'format', run: [program('oxfmt'), '--check'] },
  { name: 'lint', run: [program('oxlint'), '--type-aware', '--deny-warnings'] },
  { name: 'types-core', run: [program('tsc'), '-p', 'core'] },
  { name: 'types-test', run: [program('tsc'), '-p', 'test'] },
  { name: 'types-client', run: [program('tsc'), '-p', 'packages/client'] },
  ...['license-tools', 'enterprise/audit']
    .filter(isThere)
    .map((folder): Gate => ({ name: `types-${folder.replace('/', '-')}`, run: [program('tsc'), '-p', folder] })),
  { name: 'types-dashboard', run: [join(root, 'core/dashboard/node_modules/.bin/vue-tsc'), '--noEmit'], folder: 'core/dashboard' },
  ...['enterprise/audit/dashboard'].filter(isThere).map((folder): Gate => ({
    name: `types-${folder.replaceAll('/', '-')}`,
    run: [join(root, 'core/dashboard/node_modules/.bin/vue-tsc'), '--noEmit', '-p', folder],
  })),
  { name: 'unused', run: [program('knip'), '--no-progress'] },
  { name: 'licences', search: searchLicences },
  { name: 'generated', run: [node, 'core/tools/generate.ts', '--check'] },
  { name: 'secrets', search: checkSecrets },
  { name: 'places', search: checkPlaces },
  { name: 'conventions', search: checkConventions },
  { name: 'boundaries', search: checkBoundaries },
  { name: 'imports', search: checkImports },
  { name: 'claims', search: checkClaims },
  { name: 'links', search: (files) => [...checkLinks(files), ...checkPaths(files)] },
  { name: 'dependencies', search: checkDependencies },
]

/** Most lines of a failing gate that are shown. */
const maxShown = 60

process.exitCode = await main()

/** `check.ts [gate…]` runs the named gates, or all. */
async function main(): Promise<number> {
  const wanted = parseArgs({ allowPositionals: true }).positionals
  const unknown = wanted.filter((name) => !gates.some((gate) => gate.name === name))
  if (unknown.length > 0) {
    console.error(`There is no gate ${unknown.join(', ')}. Gates: ${gates.map((gate) => gate.name).join(', ')}`)
    return 64
  }
  const files = readTrackedFiles()
  let failed = 0
  const selected = gates.filter((gate) => wanted.length === 0 || wanted.includes(gate.name))
  for (const gate of selected) {
    const started = performance.now()
    const problems = 'run' in gate ? await runProgram(gate.run, gate.folder) : gate.search(files).map(formatFinding)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} ${gate.name.padEnd(16)} ${seconds.padStart(6)} s`)
    if (problems.length === 0) continue
    failed++
    for (const line of problems.slice(0, maxShown)) console.log(`     ${line}`)
    if (problems.length > maxShown) console.log(`     … and ${problems.length - maxShown} more lines`)
  }
  console.log(`${selected.length - failed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

/** @returns nothing when the program ends with 0, else its output as lines */
async function runProgram([file, ...args]: readonly [string, ...string[]], folder = '.'): Promise<string[]> {
  const child = spawn(file, args, { cwd: join(root, folder), env: { ...process.env, NO_COLOR: '1' }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const end = await new Promise<number | string>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(code ?? String(signal)))
  })
  if (end === 0) return []
  return [...output.split('\n').filter((line) => line.trim() !== ''), `ended with ${end}`]
}

function searchLicences(files: readonly TrackedFile[]): Finding[] {
  const table = parseReuse(readFileSync(join(root, 'REUSE.toml'), 'utf8'))
  const original = fullList['AGPL-3.0-only']?.licenseText ?? ''
  return [...checkLicences(files, table), ...checkPackageLicences(files), ...checkAgplText(files, original)]
}
