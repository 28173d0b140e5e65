// SPDX-License-Identifier: AGPL-3.0-only
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, release, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { listTree } from '../faults/processes.ts'

export const root = join(import.meta.dirname, '../..')

export type Machine = { cpu: string; cores: number; memoryGb: number; fileSystem: string; kernel: string; node: string; commit: string }

export function readMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 1e9),
    fileSystem: tryRun('findmnt', ['-no', 'FSTYPE', '--target', tmpdir()]),
    kernel: release(),
    node: process.version,
    commit: readCommit(),
  }
}

/** With a mark when files differ from it. */
function readCommit(): string {
  const commit = tryRun('git', ['-C', root, 'rev-parse', '--short', 'HEAD'])
  return tryRun('git', ['-C', root, 'status', '--porcelain', '--', 'core/src', 'core/migrations']) === ''
    ? commit
    : `${commit} with changes`
}

function tryRun(command: string, args: string[]): string {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return 'unknown'
  }
}

/** Linux counts CPU time in hundredths of a second. */
const tickMs = 10

/** CPU time of a process and of its children that have ended, in ms. */
export function cpuMsOf(pids: readonly number[]): number {
  let ticks = 0
  for (const pid of pids) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      for (const index of [11, 12, 13, 14]) ticks += Number(fields[index])
    } catch {
      // Ended meanwhile: it was too short-lived to count.
    }
  }
  return ticks * tickMs
}

/** CPU time all processes of the machine have used, in ms. */
export function machineBusyMs(): number {
  const fields = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]!.trim().split(/\s+/).slice(1).map(Number)
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields
  return (user + nice + system + irq + softirq) * tickMs
}

/** Resident memory, in MB of 10^6 bytes. */
export function rssMbOf(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return (Number(line?.[1]) * 1024) / 1e6
}

export type CpuSample = { at: number; server: number; database: number; machine: number }

/** A moment's CPU times of a server and of what it started. */
export function sampleCpu(serverPid: number): CpuSample {
  const [server, ...children] = listTree(serverPid)
  return { at: performance.now(), server: cpuMsOf([server!]), database: cpuMsOf(children), machine: machineBusyMs() }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
