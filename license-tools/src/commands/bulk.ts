// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { armourToken, normaliseToken } from '@iot-pms/core/license'
import { keyOptions } from '../arguments.ts'
import { ToolError, exits } from '../errors.ts'
import type { Text } from '../errors.ts'
import { replaceFile, writeNewFile } from '../files.ts'
import { assertAllowed, buildClaims, checkPolicy, completeToken, issueToken, signToken } from '../issue.ts'
import type { SigningKey } from '../keystore.ts'
import type { Ledger } from '../ledger.ts'
import type { TokenRecord } from '../records.ts'
import { hashRow, parseRow, readRows } from '../rows.ts'
import type { Row } from '../rows.ts'
import { chooseKey, importForeignKey } from '../signer.ts'
import type { ChosenKey } from '../signer.ts'
import type { Result } from '../terminal.ts'
import { openLedger, withLock } from '../tool.ts'
import type { Command, Tool } from '../tool.ts'

/** One line of the report beside the bulk file. */
type Outcome = {
  external_id: string
  line: number
  result: 'issued' | 'unchanged' | 'failed'
  jti?: string
  path?: string
  code?: string
  message?: string
}

export const bulkCommands: Record<string, Command> = {
  bulk: {
    usage: 'bulk FILE.csv|FILE.jsonl -o FOLDER [--resume]',
    about: { zh: '批量签发，每行一张；可中断后用 --resume 继续', en: 'issues one license per row; --resume goes on after an interruption' },
    options: { output: 'text', resume: 'flag', ...keyOptions },
    positionals: { least: 1, most: 1 },
    run: (tool) => bulk(tool),
  },
}

/** What all rows of one run share. */
type Run = {
  tool: Tool
  ledger: Ledger
  path: string
  folder: string
  keys: Map<'license' | 'staging', { chosen: ChosenKey; key: SigningKey }>
}

async function bulk(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const path = tool.args.positionals[0]!
  const folder = tool.args.required('output')
  const rows = readRows(path)
  const report = `${path}.report.jsonl`
  if (existsSync(report) && !tool.args.flag('resume')) {
    throw new ToolError('BULK_REPORT_EXISTS', {
      zh: `${report} 已存在；继续请加 --resume。`,
      en: `${report} is there: go on with --resume.`,
    })
  }
  if (!existsSync(folder)) throw new ToolError('FILE_UNREADABLE', { zh: `没有目录 ${folder}。`, en: `There is no folder ${folder}.` })
  const run: Run = { tool, ledger, path, folder, keys: await openKeys(tool, ledger, rows) }
  const outcomes: Outcome[] = []
  // One lock for the whole run: numbers and nonces of a file are given without gaps by others.
  await withLock(tool, ledger, async () => {
    for (const { key } of run.keys.values()) importForeignKey(tool, ledger, key)
    for (const row of rows) {
      if (tool.isInterrupted()) break
      outcomes.push(await issueRow(run, row))
      tool.terminal.progress(outcomes.length, rows.length)
      // Lets Ctrl-C be heard between two rows.
      await new Promise((resolve) => setImmediate(resolve))
    }
  })
  replaceFile(report, outcomes.map((outcome) => `${JSON.stringify(outcome)}\n`).join(''), 0o644)
  return summarise(outcomes, rows.length, report)
}

function summarise(outcomes: readonly Outcome[], rows: number, report: string): Result {
  const count = (result: Outcome['result']) => outcomes.filter((outcome) => outcome.result === result).length
  const failed = outcomes.filter((outcome) => outcome.result === 'failed')
  const isComplete = outcomes.length === rows
  const code = isComplete ? (failed.length > 0 ? 'BULK_PARTIAL' : undefined) : 'INTERRUPTED'
  return {
    json: {
      rows,
      issued: count('issued'),
      unchanged: count('unchanged'),
      failed: failed.length,
      left: rows - outcomes.length,
      report,
      ...(code && { code }),
    },
    lines: [
      {
        zh: `${rows} 行：签发 ${count('issued')}，先前已签发 ${count('unchanged')}，失败 ${failed.length}，未处理 ${rows - outcomes.length}`,
        en: `${rows} rows: ${count('issued')} issued, ${count('unchanged')} issued before, ${failed.length} failed, ${rows - outcomes.length} left`,
      },
      ...failed.slice(0, 20).map(({ line, external_id: id, code: one, message }) => `${line} ${id} ${one}: ${message}`),
      { zh: `报告 ${report}`, en: `report ${report}` },
    ],
    exit: isComplete ? (failed.length > 0 ? exits.partial : exits.ok) : exits.interrupted,
  }
}

/** A row that was issued is not issued again, whatever stopped the run before: the ledger knows its external id. */
async function issueRow(run: Run, row: Row): Promise<Outcome> {
  const { tool, ledger, path, folder } = run
  const id = row.values.external_id!
  const head = { external_id: id, line: row.line }
  const file = join(folder, `${id}.lic`)
  try {
    const hash = hashRow(row)
    const before = ledger.records.externalIds.get(id)
    if (before && before.rowHash !== hash) {
      throw new ToolError('BULK_INVALID', {
        zh: '此 external_id 先前以不同内容签发。',
        en: 'This external_id was issued before with other values.',
      })
    }
    if (before) {
      if (!isDelivered(file, before)) ensureFile(file, await signAgain(run, before))
      return { ...head, result: 'unchanged', jti: before.jti, path: basename(file) }
    }
    const { options, request } = parseRow(row, path)
    const { key, chosen } = run.keys.get(options.env === 'staging' ? 'staging' : 'license')!
    const claims = buildClaims(options, request, ledger, tool.now)
    assertAllowed(checkPolicy(claims, options, { ledger, request, now: tool.now, key: chosen }))
    if (existsSync(file)) throw new ToolError('FILE_EXISTS', { zh: `${file} 已存在。`, en: `${file} is already there.` })
    const remarks = {
      external_id: id,
      row: hash,
      ...(options.reason !== undefined && { reason: options.reason }),
      ...(options.waivers.size > 0 && { waivers: [...options.waivers] }),
    }
    const token = await issueToken({ ledger, claims, key, request, actor: tool.actor, now: tool.now, remarks })
    ensureFile(file, token)
    return { ...head, result: 'issued', jti: claims.jti, path: basename(file) }
  } catch (error) {
    // What is wrong with the ledger or the disk is wrong with every row.
    if (!(error instanceof ToolError) || error.exit === exits.ledger) throw error
    const violations = error.details.violations as { code: string }[] | undefined
    return { ...head, result: 'failed', code: violations?.[0]?.code ?? error.code, message: tool.terminal.say(error.text satisfies Text) }
  }
}

/** Whether the file holds what the ledger says was issued: signing it again only to compare would take minutes. */
function isDelivered(file: string, { sha256 }: TokenRecord): boolean {
  if (sha256 === undefined || !existsSync(file)) return false
  return (
    createHash('sha256')
      .update(normaliseToken(readFileSync(file, 'utf8')))
      .digest('hex') === sha256
  )
}

/** The same token as before; what a crash left unfinished is finished. */
async function signAgain(run: Run, before: TokenRecord): Promise<string> {
  const { tool, ledger } = run
  const key = keyOf(run, before.claims.env, before.kid)
  if (before.state === 'intent') {
    return completeToken({ ledger, claims: before.claims, key, request: undefined, actor: tool.actor, now: tool.now })
  }
  return signToken(Buffer.from(before.payload!, 'base64url').toString('utf8'), key)
}

/** A file that is there must be the same license; nothing is overwritten. */
function ensureFile(file: string, token: string): void {
  if (!existsSync(file)) writeNewFile(file, armourToken(token))
  else if (normaliseToken(readFileSync(file, 'utf8')) !== token) {
    throw new ToolError('FILE_EXISTS', {
      zh: `${file} 的内容不同，不会被覆盖。`,
      en: `${file} holds something else and is not overwritten.`,
    })
  }
}

/** Only the environments that the rows name need a key, so that one passphrase is asked for one purpose. */
async function openKeys(tool: Tool, ledger: Ledger, rows: readonly Row[]): Promise<Run['keys']> {
  const keys: Run['keys'] = new Map()
  for (const purpose of ['license', 'staging'] as const) {
    const isNeeded = rows.some(({ values }) => (values.env === 'staging' ? 'staging' : 'license') === purpose)
    if (!isNeeded) continue
    const chosen = chooseKey(tool, ledger, purpose)
    keys.set(purpose, { chosen, key: await chosen.open() })
  }
  return keys
}

function keyOf(run: Run, env: 'production' | 'staging', kid: string): SigningKey {
  const key = run.keys.get(env === 'staging' ? 'staging' : 'license')?.key
  if (key?.kid === kid) return key
  throw new ToolError('KEY_MISSING', {
    zh: `先前由密钥 ${kid} 签发；请用 --key 指定它。`,
    en: `Key ${kid} issued it before: name it with --key.`,
  })
}
