// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { normaliseToken, verifyLicense } from '@iot-pms/core/license'
import { keyOptions, parseInteger, usageError } from '../arguments.ts'
import { ToolError, exits } from '../errors.ts'
import { readInput, writeNewFile } from '../files.ts'
import { Ledger, brokenError, formatFinding } from '../ledger.ts'
import type { TokenRecord } from '../records.ts'
import { listPublicKeys } from '../signer.ts'
import type { Result } from '../terminal.ts'
import { findRecord } from '../token-file.ts'
import { formatDay, formatTable, openLedger, record, withLock } from '../tool.ts'
import type { Command, Tool } from '../tool.ts'
import { completeIntent } from './issue.ts'

const daySeconds = 86_400

export const ledgerCommands: Record<string, Command> = {
  init: {
    usage: 'init [--iss S] [--aud S] [--test]',
    about: { zh: '建立台账', en: 'makes the ledger' },
    options: { iss: 'text', aud: 'text', test: 'flag' },
    run: (tool) => init(tool),
  },
  'ledger list': {
    usage: 'ledger list [--customer C] [--expiring DAYS]',
    about: { zh: '列出许可证', en: 'lists the licenses' },
    options: { customer: 'text', expiring: 'text' },
    run: (tool) => list(tool),
  },
  'ledger show': {
    usage: 'ledger show JTI|N',
    about: { zh: '显示一张许可证或一条记录', en: 'shows a license or an entry' },
    positionals: { least: 1, most: 1 },
    run: (tool) => show(tool),
  },
  'ledger search': {
    usage: 'ledger search TEXT',
    about: { zh: '在客户、编号、备注中查找', en: 'looks in customers, ids and remarks' },
    positionals: { least: 1, most: 1 },
    run: (tool) => search(tool),
  },
  'ledger export': {
    usage: 'ledger export --format csv|json -o FILE',
    about: { zh: '导出许可证清单', en: 'writes the list of licenses' },
    options: { format: 'text', output: 'text' },
    run: (tool) => exportList(tool),
  },
  'ledger import': {
    usage: 'ledger import FILE',
    about: {
      zh: '收录一张由本台账密钥签发、但未记录的许可证',
      en: 'takes in a license that a key of this ledger signed but that is not recorded',
    },
    positionals: { least: 1, most: 1 },
    run: (tool) => importToken(tool),
  },
  'ledger verify': {
    usage: 'ledger verify [--anchor N:HASH]',
    about: { zh: '校验整条哈希链', en: 'verifies the whole chain' },
    options: { anchor: 'text' },
    run: (tool) => verify(tool),
  },
  'ledger anchor': {
    usage: 'ledger anchor',
    about: { zh: '打印链头，抄在台账之外，以便发现截断', en: 'prints the head of the chain, to be kept elsewhere' },
    run: (tool) => anchor(tool),
  },
  doctor: {
    usage: 'doctor [--repair-tail | --complete JTI]',
    about: { zh: '检查台账，修复断电留下的残行或补完签发', en: 'examines the ledger, mends what a power cut left' },
    options: { 'repair-tail': 'flag', complete: 'text', ...keyOptions },
    run: (tool) => examine(tool),
  },
}

function init(tool: Tool): Result {
  const { args } = tool
  const isTest = args.flag('test')
  if (args.text('now') !== undefined && !isTest) throw usageError('--now 只能用于测试台账', '--now works only in a test ledger')
  const iss = args.text('iss') ?? 'iot-pms-license'
  const aud = args.text('aud') ?? 'iot-pms'
  if (iss !== 'iot-pms-license' || aud !== 'iot-pms') {
    tool.terminal.note('FOREIGN_NAMES', { zh: '本产品只接受默认的 iss 与 aud。', en: 'This product takes only the usual iss and aud.' })
  }
  const ledger = Ledger.create(tool.folder, { iss, aud, test: isTest, actor: tool.actor, now: tool.now })
  tool.isTest = isTest
  return {
    json: { ledger: ledger.folder, iss, aud },
    lines: [
      { zh: `台账已建立：${ledger.folder}`, en: `The ledger is in ${ledger.folder}` },
      {
        zh: '下一步：key create --purpose license，再 key create --purpose crl',
        en: 'next: key create --purpose license, then key create --purpose crl',
      },
    ],
  }
}

function list(tool: Tool): Result {
  const ledger = openLedger(tool)
  const customer = tool.args.text('customer')
  const days = tool.args.integer('expiring')
  const seconds = tool.now.getTime() / 1000
  const rows = [...ledger.records.tokens.values()]
    .filter((token) => customer === undefined || token.claims.sub === customer)
    .filter((token) => days === undefined || isExpiring(token, seconds, days))
    .map((token) => toRow(token, seconds))
  const titles = ['jti', 'customer', 'edition', 'seq', 'from', 'until', 'state', 'revoked', 'key']
  return {
    json: { licenses: rows },
    lines: formatTable([titles, ...rows.map((row) => Object.values(row).map((value) => String(value ?? '')))]),
  }
}

export function isExpiring({ claims, revoked, payload }: TokenRecord, seconds: number, days: number): boolean {
  return !revoked && payload !== undefined && claims.exp > seconds && claims.exp <= seconds + days * daySeconds
}

export function toRow({ jti, claims, kid, state, revoked }: TokenRecord, seconds: number) {
  const { sub, edition, seq, nbf, exp } = claims
  const shown = state === 'intent' || state === 'refused' ? state : seconds < nbf ? 'scheduled' : seconds < exp ? 'valid' : 'expired'
  return {
    jti,
    customer: sub,
    edition,
    seq,
    from: formatDay(nbf),
    until: formatDay(exp),
    state: shown,
    revoked: revoked?.reason ?? null,
    key: kid,
  }
}

function show(tool: Tool): Result {
  const ledger = openLedger(tool)
  const wanted = tool.args.positionals[0]!
  if (/^\d{1,9}$/.test(wanted)) {
    const entry = ledger.entries[parseInteger(wanted, 'N') - 1]
    if (!entry) throw new ToolError('JTI_UNKNOWN', { zh: `台账没有第 ${wanted} 条。`, en: `The ledger has no entry ${wanted}.` })
    return { json: { entry }, lines: [JSON.stringify(entry, null, 2)] }
  }
  const { claims, kid, at, state, sha256, revoked } = findRecord(ledger, wanted)
  const json = { claims, kid, at, state, sha256: sha256 ?? null, revoked: revoked ?? null }
  return { json, lines: [JSON.stringify(json, null, 2)] }
}

function search(tool: Tool): Result {
  const ledger = openLedger(tool)
  const wanted = tool.args.positionals[0]!.toLowerCase()
  const found = ledger.entries.filter((entry) => JSON.stringify(entry.body).toLowerCase().includes(wanted))
  const rows = found.map(({ n, ts, actor, act, body }) => ({
    n,
    ts,
    actor,
    act,
    jti: body.jti ?? (body.claims as { jti?: string } | undefined)?.jti ?? null,
  }))
  return { json: { entries: rows }, lines: formatTable(rows.map((row) => Object.values(row).map((value) => String(value ?? '')))) }
}

function exportList(tool: Tool): Result {
  const ledger = openLedger(tool)
  tool.args.required('format')
  const format = tool.args.choice('format', ['csv', 'json'] as const)!
  const output = tool.args.required('output')
  const seconds = tool.now.getTime() / 1000
  const rows = [...ledger.records.tokens.values()].map((token) => ({ ...toRow(token, seconds), name: token.claims.cust?.name ?? '' }))
  const text = format === 'json' ? `${JSON.stringify(rows, null, 1)}\n` : toCsv(rows)
  if (output !== '-') writeNewFile(output, text)
  return {
    json: { licenses: rows.length, path: output },
    lines: [{ zh: `${rows.length} 行已写入 ${output}。`, en: `${rows.length} rows are in ${output}.` }],
    ...(output === '-' && { raw: text }),
  }
}

/** RFC 4180; what a spreadsheet would take for a formula gets an apostrophe. */
function toCsv(rows: readonly Record<string, unknown>[]): string {
  const cell = (value: unknown) => {
    const text = String(value ?? '').replace(/^(?=[=+\-@\t\r])/, "'")
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
  }
  const titles = Object.keys(rows[0] ?? { jti: '' })
  return [titles, ...rows.map((row) => Object.values(row))].map((row) => `${row.map(cell).join(',')}\r\n`).join('')
}

async function importToken(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const token = normaliseToken(readInput(tool.args.positionals[0]!))
  const keys = listPublicKeys(ledger)
  const results = [await verifyLicense(token, { keys, env: 'production' }), await verifyLicense(token, { keys, env: 'staging' })]
  const verified = results.find((one) => one.ok)
  if (!verified?.ok) {
    const { code } = results[0] as { code: string }
    throw new ToolError(
      'TOKEN_SIGNATURE',
      { zh: `许可证不被接受（${code}）。`, en: `The license is not accepted (${code}).` },
      { reason: code },
    )
  }
  const { claims, kid } = verified
  await withLock(tool, ledger, () => {
    if (ledger.records.tokens.has(claims.jti)) throw usageError(`${claims.jti} 已在台账中`, `${claims.jti} is in the ledger already`)
    const payload = token.split('.')[1]!
    record(tool, ledger, 'import', { claims, kid, payload, sha256: createHash('sha256').update(token).digest('hex') })
  })
  return { json: { jti: claims.jti }, lines: [{ zh: `已收录 ${claims.jti}。`, en: `${claims.jti} is recorded.` }] }
}

function verify(tool: Tool): Result {
  const ledger = openLedger(tool)
  const text = tool.args.text('anchor')
  const [, n, hash] = /^(\d{1,9}):([0-9a-f]{64})$/.exec(text ?? '') ?? []
  if (text !== undefined && hash === undefined) throw usageError('--anchor 的形式为 N:HASH', '--anchor has the form N:HASH')
  const findings = ledger.verify(hash === undefined ? undefined : { n: Number(n), hash })
  for (const finding of findings.filter((one) => one.warning)) tool.terminal.note(finding.code, formatFinding(finding))
  const faults = findings.filter((finding) => !finding.warning)
  if (faults.length > 0) {
    const error = brokenError(faults)
    return {
      json: { code: error.code, message: tool.terminal.say(error.text), findings },
      lines: faults.map(formatFinding),
      exit: exits.ledger,
    }
  }
  const { n: count, hash: head } = ledger.head
  return {
    json: { entries: count, head, findings },
    lines: [{ zh: `${count} 条记录，链完整。`, en: `${count} entries, the chain is whole.` }],
  }
}

async function anchor(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  return withLock(tool, ledger, () => {
    const { n, hash } = ledger.head
    record(tool, ledger, 'anchor', { hash, n })
    return { json: { n, hash, anchor: `${n}:${hash}` }, lines: [`${n}:${hash}`] }
  })
}

async function examine(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  if (tool.args.flag('repair-tail')) return repairTail(ledger)
  const jti = tool.args.text('complete')
  if (jti !== undefined) return completeIntent(tool, ledger, jti)
  const findings = ledger.verify()
  const unfinished = [...ledger.records.tokens.values()].filter((token) => token.state === 'intent').map((token) => token.jti)
  const keys = ledger.listKeys()
  const lost = [...ledger.records.keys.values()]
    .filter((key) => key.public === undefined && !keys.some((file) => file.kid === key.kid))
    .map((key) => key.kid)
  const stray = ledger.listStrayKeys()
  const left = [ledger.folder, join(ledger.folder, 'keys'), join(ledger.folder, 'crl')].flatMap((folder) =>
    readdirSync(folder).filter((name) => name.endsWith('.tmp')),
  )
  const faults = findings.filter((finding) => !finding.warning)
  return {
    json: { findings, unfinished, lostKeys: lost, strayKeys: stray, leftFiles: left, tableChanged: ledger.isTableChanged },
    lines: [
      ...findings.map(formatFinding),
      ...unfinished.map((one) => ({
        zh: `签发未完成：${one}（doctor --complete ${one}）`,
        en: `not finished: ${one} (doctor --complete ${one})`,
      })),
      ...lost.map((kid) => ({ zh: `密钥文件缺失：${kid}`, en: `key file missing: ${kid}` })),
      ...stray.map((kid) => ({ zh: `台账不认识的密钥文件：${kid}`, en: `key file that the ledger does not know: ${kid}` })),
      ...left.map((name) => ({ zh: `残留的临时文件：${name}`, en: `left temporary file: ${name}` })),
      ...(ledger.isTableChanged
        ? [{ zh: '产品的功能表在建立台账后有变化。', en: "The product's table of features has changed since init." }]
        : []),
      ...(faults.length + unfinished.length + lost.length === 0 ? [{ zh: '台账正常。', en: 'The ledger is in order.' }] : []),
    ],
    exit: faults.length > 0 || lost.length > 0 ? exits.ledger : exits.ok,
  }
}

async function repairTail(ledger: Ledger): Promise<Result> {
  await ledger.lockForRepair()
  try {
    const done = ledger.repairTail()
    const texts = {
      nothing: { zh: '末行完整，无需修复。', en: 'The last line is whole: nothing to do.' },
      cut: { zh: '已截去不完整的末行。', en: 'The incomplete last line was cut.' },
      ended: { zh: '末行只缺换行，已补上。', en: 'The last line only lacked its end, which was added.' },
    }
    return { json: { repaired: done }, lines: [texts[done]] }
  } finally {
    ledger.close()
  }
}
