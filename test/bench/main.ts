// SPDX-License-Identifier: AGPL-3.0-only
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { formatJson, formatRow, printTable, tableHead } from './figures.ts'
import type { BenchOptions, Figure, Mode } from './figures.ts'
import { benchAttributes } from './attributes.ts'
import { benchDensity } from './density.ts'
import { benchFull } from './full.ts'
import { benchGate } from './gate.ts'
import { benchHttp } from './http.ts'
import { benchIdle } from './idle.ts'
import { benchIngest } from './ingest.ts'
import { benchLatency } from './latency.ts'
import { readMachine, root } from './machine.ts'
import { findRecordedRatio, machineName, record } from './record.ts'
import { benchQuery } from './query.ts'
import { benchRules } from './rules.ts'
import { benchSoak } from './soak.ts'
import { benchStart } from './start.ts'
import { benchStore } from './store.ts'

const usage = `pnpm bench [ingest|ingest:http|latency|attributes|full|soak|store|density|query|idle|start|gate|rules …] [--short|--full|--smoke] [--record]

--short, --full  shorter or longer runs
--smoke          one minute: only ratios, compared with docs/benchmarks.json; absolute figures never fail
--record         rewrites this machine's block in docs/benchmarks.md and docs/benchmarks.json
`

const benches: Record<string, (options: BenchOptions) => Promise<Figure[]>> = {
  ingest: benchIngest,
  'ingest:http': benchHttp,
  latency: benchLatency,
  attributes: benchAttributes,
  full: benchFull,
  soak: benchSoak,
  store: benchStore,
  density: benchDensity,
  query: benchQuery,
  idle: benchIdle,
  start: benchStart,
  gate: benchGate,
  rules: benchRules,
}

/** Benches that measure a ratio. */
const smokeBenches = ['ingest']
/** [RE-111] */
const smokeShare = 0.6
/** Connections, files and some more. */
const openFiles = 65_536

process.exitCode = await main()

async function main(): Promise<number> {
  const flags = {
    smoke: { type: 'boolean' },
    short: { type: 'boolean' },
    full: { type: 'boolean' },
    record: { type: 'boolean' },
    help: { type: 'boolean' },
  } as const
  const { values, positionals } = parseArgs({ options: flags, allowPositionals: true })
  const mode: Mode = values.smoke ? 'smoke' : values.short ? 'short' : values.full ? 'full' : 'normal'
  const names = positionals.length > 0 ? positionals : mode === 'smoke' ? smokeBenches : Object.keys(benches)
  if (values.help || names.some((name) => !benches[name])) {
    console.error(usage)
    return values.help ? 0 : 64
  }
  raiseFileLimit()
  const machine = readMachine()
  console.log(
    `${machineName(machine)}; ${machine.fileSystem}, kernel ${machine.kernel}, Node.js ${machine.node}; commit ${machine.commit}\n`,
  )
  const figures: Figure[] = []
  const notes: string[] = []
  const broken: string[] = []
  const note = (line: string) => {
    notes.push(line)
    console.log(line)
  }
  for (const name of names) {
    try {
      const made = await benches[name]!({ mode, machine, note })
      figures.push(...made)
      for (const figure of made) console.log(formatJson(figure))
    } catch (error) {
      broken.push(name)
      console.error(error)
    }
  }
  console.log('')
  printTable([tableHead, ...figures.map(formatRow)])
  save(figures, notes)
  if (broken.length > 0) console.log(`without figures, see above: ${broken.join(', ')}`)
  if (mode === 'smoke') return compareWithRecorded(figures, broken.length)
  if (values.record) record(figures, notes, machine, ['pnpm', 'bench', ...process.argv.slice(2)].join(' '), readVersion())
  return broken.length > 0 || figures.some((figure) => figure.status === 'FAIL') ? 1 : 0
}

/** [RE-111] Ratios of this run against the recorded ones. */
function compareWithRecorded(figures: readonly Figure[], broken: number): number {
  const counts = { passed: 0, failed: broken, skipped: 0 }
  console.log('')
  for (const { bench, ratio } of figures) {
    const recorded = findRecordedRatio(bench, readMachine())
    if (ratio === null || !recorded) {
      counts.skipped++
      console.log(`NOT RUN  ${bench}: ${ratio === null ? 'its anchor could not run' : 'no ratio is recorded'}`)
      continue
    }
    const share = ratio / recorded.ratio
    const isKept = share >= smokeShare
    counts[isKept ? 'passed' : 'failed']++
    console.log(
      `${isKept ? 'PASS' : 'FAIL'}     ${bench}: ratio ${ratio.toFixed(2)}, recorded ${recorded.ratio.toFixed(2)} (${recorded.from}): ${(100 * share).toFixed(0)} % of it, at least ${100 * smokeShare} % is asked`,
    )
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  return counts.failed > 0 ? 1 : 0
}

/** Ten thousand connections need as many files in generator and server; both inherit our limit. */
function raiseFileLimit(): void {
  const limit = /^Max open files\s+\d+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))
  if (Number(limit?.[1]) < openFiles) {
    spawnSync('/usr/bin/prlimit', ['--pid', String(process.pid), `--nofile=${openFiles}:${openFiles}`], { stdio: 'ignore' })
  }
}

function save(figures: readonly Figure[], notes: readonly string[]): void {
  const folder = join(root, 'bench-results')
  mkdirSync(folder, { recursive: true })
  writeFileSync(
    join(folder, `${new Date().toISOString().replaceAll(':', '-')}.json`),
    `${JSON.stringify({ machine: readMachine(), figures, notes }, undefined, 2)}\n`,
  )
}

function readVersion(): string {
  return (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
}
