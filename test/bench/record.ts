// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatJson, formatNumber, formatRow, tableHead } from './figures.ts'
import type { Figure } from './figures.ts'
import { limits } from './limits.ts'
import { root } from './machine.ts'
import type { Machine } from './machine.ts'

/** docs/benchmarks.json: per machine the newest figures of each bench, and one line per release and machine. */
type Recorded = { machines: Record<string, MachineBlock> }

type MachineBlock = {
  machine: Omit<Machine, 'commit'>
  benches: Record<string, { figure: Figure; date: string; commit: string; command: string; notes: string }>
  history: Record<string, { date: string; figures: Record<string, string> }>
}

const jsonFile = join(root, 'docs/benchmarks.json')
const markdownFile = join(root, 'docs/benchmarks.md')

export function machineName({ cpu, cores, memoryGb }: Omit<Machine, 'commit'>): string {
  return `${cpu}, ${cores} cores, ${memoryGb} GB`
}

/** The recorded ratio of a bench: of this machine, else of the first recorded one, since ratios hold on any. */
export function findRecordedRatio(bench: string, machine: Machine): { ratio: number; from: string } | undefined {
  const { machines } = readRecorded()
  for (const name of [machineName(machine), ...Object.keys(machines)]) {
    const ratio = machines[name]?.benches[bench]?.figure.ratio
    if (typeof ratio === 'number') return { ratio, from: name }
  }
  return undefined
}

/** Writes figures over this machine's older ones of the same benches, and renders the page anew. */
export function record(figures: readonly Figure[], notes: string[], machine: Machine, command: string, version: string): void {
  const recorded = readRecorded()
  const name = machineName(machine)
  const { commit, ...rest } = machine
  const block = recorded.machines[name] ?? { machine: rest, benches: {}, history: {} }
  const date = new Date().toISOString().slice(0, 10)
  block.machine = rest
  for (const figure of figures) {
    block.benches[figure.bench] = {
      figure,
      date,
      commit,
      command,
      notes: notes.filter((note) => note.startsWith(`${figure.id} `)).join('\n'),
    }
  }
  const shown = Object.values(block.benches).map(({ figure }) => [
    figure.bench,
    figure.ratio === null ? `${formatNumber(figure.value)} ${figure.unit}` : figure.ratio.toFixed(2),
  ])
  block.history[version] = { date, figures: Object.fromEntries(shown) as Record<string, string> }
  recorded.machines[name] = block
  writeFileSync(jsonFile, `${JSON.stringify(recorded, roundNumber, 2)}\n`)
  writeFileSync(markdownFile, render(recorded))
}

/** Three decimals are more than a measurement holds. */
function roundNumber(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Math.round(value * 1000) / 1000 : value
}

function readRecorded(): Recorded {
  return existsSync(jsonFile) ? (JSON.parse(readFileSync(jsonFile, 'utf8')) as Recorded) : { machines: {} }
}

function render({ machines }: Recorded): string {
  const blocks = Object.entries(machines).map(([name, block]) => renderMachine(name, block))
  return `<!-- SPDX-License-Identifier: AGPL-3.0-only -->
# 性能测试结果 Benchmarks

本页由 \`pnpm bench --record\` 生成，不手工修改。 This page is written by \`pnpm bench --record\`; nobody edits figures by hand.

Everything runs on one machine: load generator, server and its PostgreSQL with \`fsync\` and \`synchronous_commit\` on. A message counts when its acknowledgement arrived after its commit, and each run checks that as many points are stored as were acknowledged. Absolute figures move with the machine; the **ratio** stands against an anchor measured by the same generator in the same minutes: Mosquitto alone without a subscriber, which acknowledges from memory. \`ratioCopy\` in the JSON lines is points per second over R, binary COPY in batches of 5,000 rows into a heap without an index. Figures are medians of three runs. *disturbed*: other processes took more than 8 % of the machine.

${blocks.join('\n')}
## What holds each bar

${Object.entries(limits)
  .map(([id, text]) => `- **${id}** ${text}`)
  .join('\n')}
`
}

function renderMachine(name: string, { machine, benches, history }: MachineBlock): string {
  const entries = Object.values(benches)
  const runs = [...new Set(entries.map((entry) => `${entry.date}, commit ${entry.commit}: \`${entry.command}\``))]
  const names = [...new Set(Object.values(history).flatMap((line) => Object.keys(line.figures)))]
  return `## ${name}

Kernel ${machine.kernel}, ${machine.fileSystem}, Node.js ${machine.node}.

${runs.map((run) => `- ${run}`).join('\n')}

${renderTable([tableHead, ...entries.map((entry) => formatRow(entry.figure))])}

\`\`\`text
${[...new Set(entries.map((entry) => entry.notes))].join('\n')}
${entries.map((entry) => formatJson(entry.figure)).join('\n')}
\`\`\`

${renderTable([['release', 'date', ...names], ...Object.entries(history).map(([version, line]) => [version, line.date, ...names.map((one) => line.figures[one] ?? '–')])])}
`
}

function renderTable([head, ...rows]: string[][]): string {
  return [head!, head!.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')
}
