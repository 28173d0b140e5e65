// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { linkSync, readFileSync, rmSync, statSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { ToolError, systemCode } from './errors.ts'
import { replaceFile, writeNewFile } from './files.ts'

type Holder = { pid: number; host: string; since: string }

/** [T-21] How long a second process waits for the first. */
const waitMs = 10_000
const retryMs = 50

/** Locks that this process holds. */
const held = new Set<string>()

/** Nobody takes longer to take over: an older mark was left by a crash. */
const takeOverMs = 60_000

/**
 * [T-17] Takes the ledger's lock, waiting for a living holder of this host.
 * @returns what releases it, and the process whose lock was taken over
 * @throws LEDGER_LOCKED
 */
export async function takeLock(folder: string): Promise<{ release: () => void; takenFrom: number | undefined }> {
  const path = join(folder, 'ledger.lock')
  const own = `${JSON.stringify({ pid: process.pid, host: hostname(), since: new Date().toISOString() })}\n`
  const release = () => {
    held.delete(path)
    if (readText(path) === own) rmSync(path, { force: true })
  }
  const hold = (takenFrom: number | undefined) => {
    held.add(path)
    return { release, takenFrom }
  }
  const deadline = performance.now() + waitMs
  for (;;) {
    if (isCreated(path, own)) return hold(undefined)
    const text = readText(path)
    const holder = parseHolder(text)
    if (holder && holder.host === hostname() && !isAlive(holder.pid, path)) {
      if (isTakenOver(path, text!, own)) return hold(holder.pid)
    }
    // A lock of another machine, or one nobody can read, does not end by waiting here.
    const isHopeless = text !== undefined && (holder === undefined || holder.host !== hostname())
    if (isHopeless || performance.now() > deadline) throw lockedError(path, holder)
    await new Promise((resolve) => setTimeout(resolve, retryMs))
  }
}

function isCreated(path: string, content: string): boolean {
  try {
    writeNewFile(path, content, 0o600)
    return true
  } catch (error) {
    if (error instanceof ToolError && error.code === 'FILE_EXISTS') return false
    throw error
  }
}

/** Two processes may find the same dead holder: only the one that makes the mark beside the lock goes on. */
function isTakenOver(path: string, dead: string, own: string): boolean {
  const mark = `${path}.takeover`
  try {
    linkSync(path, mark)
  } catch (error) {
    const code = systemCode(error)
    if (code === 'EEXIST' && Date.now() - (statSync(mark, { throwIfNoEntry: false })?.ctimeMs ?? Date.now()) > takeOverMs) {
      rmSync(mark, { force: true })
    }
    return false
  }
  try {
    if (readText(path) !== dead) return false
    replaceFile(path, own)
    return true
  } finally {
    rmSync(mark, { force: true })
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}

function parseHolder(text: string | undefined): Holder | undefined {
  try {
    const holder = JSON.parse(text ?? '') as Holder
    return Number.isInteger(holder.pid) && typeof holder.host === 'string' ? holder : undefined
  } catch {
    return undefined
  }
}

function isAlive(pid: number, path: string): boolean {
  // A container gives the same numbers again: a lock with our own may have been left by one before us.
  if (pid === process.pid) return held.has(path)
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return systemCode(error) === 'EPERM'
  }
}

function lockedError(path: string, holder: Holder | undefined): ToolError {
  const who = holder
    ? { zh: `进程 ${holder.pid}（${holder.host}）`, en: `process ${holder.pid} on ${holder.host}` }
    : { zh: '未知进程', en: 'an unknown process' }
  return new ToolError(
    'LEDGER_LOCKED',
    {
      zh: `台账正被${who.zh}使用。若确认它已结束，请删除 ${path}。`,
      en: `The ledger is in use by ${who.en}. If you are sure that it has ended, delete ${path}.`,
    },
    holder ? { pid: holder.pid, host: holder.host } : {},
  )
}
