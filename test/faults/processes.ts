// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'

/** Milliseconds of the system's monotonic clock: the same in all processes of this machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000
}

/** `pid` and everything below it, as it is now. */
export function listTree(pid: number): number[] {
  const children = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const parent = Number(readStat(Number(name))?.[1] ?? 0)
    children.set(parent, [...(children.get(parent) ?? []), Number(name)])
  }
  const found = [pid]
  for (let index = 0; index < found.length; index++) found.push(...(children.get(found[index]!) ?? []))
  return found
}

/** Whether the process exists and is more than a zombie. */
export function isAlive(pid: number): boolean {
  const state = readStat(pid)?.[0]
  return state !== undefined && state !== 'Z'
}

/** Fields of /proc/pid/stat from the state on; the command before it may hold blanks and brackets. */
function readStat(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}

/**
 * Signals processes whose ids are known by now, from a process of its own and after a while, so that
 * nothing of ours stops or slows down before it happens [RE-15].
 *
 * @returns when the signal was sent, in {@link monotonicMs}
 */
export async function signalLater(pids: readonly number[], signal: string, delayMs: number): Promise<number> {
  const script = 'sleep "$1"; shift; kill -s "$@" 2>/dev/null; exit 0'
  const child = spawn('/bin/sh', ['-c', script, 'sh', (delayMs / 1000).toFixed(3), signal, ...pids.map(String)], { stdio: 'ignore' })
  await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
  return monotonicMs()
}

/** A generator of numbers in [0, 1) that gives the same ones for the same seed (mulberry32). */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
