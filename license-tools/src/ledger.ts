// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, truncateSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { EDITIONS, FEATURES, canonicalJson, decodeUnverified } from '@iot-pms/core/license'
import { ToolError, systemCode } from './errors.ts'
import type { Text } from './errors.ts'
import { appendDurably, replaceFile } from './files.ts'
import { readKeyFile } from './keystore.ts'
import type { KeyFile } from './keystore.ts'
import { takeLock } from './lock.ts'
import { applyEntry, createRecords } from './records.ts'
import type { Records } from './records.ts'

/** [T-14] */
export const acts = [
  'init',
  'key.create',
  'key.import',
  'key.export_public',
  'key.passphrase',
  'key.status',
  'issue.intent',
  'issue.done',
  'issue.refused',
  'revoke',
  'unrevoke',
  'crl',
  'anchor',
  'import',
] as const
export type Act = (typeof acts)[number]

export type Entry = { n: number; ts: string; actor: string; act: Act; body: Record<string, unknown>; prev: string; hash: string }

export type Config = { ver: 1; iss: string; aud: string; test: boolean; features: unknown; editions: unknown }

/** What `ledger verify` found; `warning` ones do not break the chain. */
export type Finding = { line: number; code: FindingCode; warning?: boolean }
type FindingCode = 'LINE_INCOMPLETE' | 'LINE_INVALID' | 'HASH' | 'PREV' | 'NUMBER' | 'TIME_BACK' | 'ANCHOR' | 'CRL_HEAD' | 'INIT'

const zeros = '0'.repeat(64)

/** [T-17] Entries that every writing command verifies first. */
const recentEntries = 100

/** [T-16] A clock that went back this far is worth a warning. */
const timeBackMs = 24 * 3_600_000

/** The vendor's book: an append-only chain of entries and the keys beside it. Writing needs `lock()` first. */
export class Ledger {
  readonly folder: string
  readonly config: Config
  entries: Entry[] = []
  records: Records = createRecords()
  #head = zeros
  #lastLine: 'whole' | 'unended' | 'broken' = 'whole'
  #release: (() => void) | undefined

  /** Reads the ledger. @throws LEDGER_MISSING, LEDGER_BROKEN */
  static open(folder: string): Ledger {
    const config = readConfig(folder)
    const ledger = new Ledger(folder, config)
    ledger.#read()
    const first = ledger.entries[0]
    if (first?.act !== 'init' || first.body.test !== config.test || first.body.iss !== config.iss || first.body.aud !== config.aud) {
      throw brokenError([{ line: 1, code: 'INIT' }])
    }
    return ledger
  }

  static isThere(folder: string): boolean {
    return existsSync(join(folder, 'config.json'))
  }

  /** Makes a ledger in an empty folder. @throws LEDGER_EXISTS */
  static create(folder: string, options: { iss: string; aud: string; test: boolean; actor: string; now: Date }): Ledger {
    if (existsSync(folder) && readdirSync(folder).length > 0) {
      throw new ToolError('LEDGER_EXISTS', { zh: `${folder} 不是空目录。`, en: `${folder} is not empty.` })
    }
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    chmodSync(folder, 0o700)
    for (const name of ['keys', 'crl']) mkdirSync(join(folder, name), { mode: 0o700 })
    const { iss, aud, test } = options
    const config: Config = { ver: 1, iss, aud, test, features: FEATURES, editions: EDITIONS }
    const ledger = new Ledger(folder, config)
    replaceFile(join(folder, 'config.json'), `${JSON.stringify(config, null, 1)}\n`)
    ledger.#append('init', { aud, iss, test, ver: 1 }, options.actor, options.now)
    return ledger
  }

  private constructor(folder: string, config: Config) {
    this.folder = resolve(folder)
    this.config = config
  }

  /** @returns number and hash of the last entry */
  get head(): { n: number; hash: string } {
    return { n: this.entries.length, hash: this.#head }
  }

  /** Whether the product's tables of features and editions are other ones than when the ledger was made. */
  get isTableChanged(): boolean {
    return canonicalJson([this.config.features, this.config.editions]) !== canonicalJson([FEATURES, EDITIONS])
  }

  /** [T-17] [T-21] Waits for the lock, reads what others wrote meanwhile, verifies the newest entries. @returns the dead process whose lock was taken over */
  async lock(): Promise<number | undefined> {
    const { release, takenFrom } = await takeLock(this.folder)
    this.#release = release
    try {
      this.#read()
      const findings = this.#check(Math.max(0, this.entries.length - recentEntries)).filter((finding) => !finding.warning)
      if (findings.length > 0) throw brokenError(findings)
    } catch (error) {
      this.close()
      throw error
    }
    return takenFrom
  }

  append(act: Act, body: Record<string, unknown>, actor: string, now: Date): Entry {
    if (!this.#release) throw new Error('append without the lock')
    return this.#append(act, body, actor, now)
  }

  /** [T-16] Everything a reader can find out with the files alone, and with an anchor from outside. */
  verify(anchor?: { n: number; hash: string }): Finding[] {
    const findings = this.#check(0)
    if (anchor && this.entries[anchor.n - 1]?.hash !== anchor.hash) findings.push({ line: anchor.n, code: 'ANCHOR' })
    const hashes = new Set(this.entries.map((entry) => entry.hash))
    for (const name of readdirSync(join(this.folder, 'crl')).filter((one) => one.endsWith('.jwt'))) {
      const head = decodeUnverified(readFileSync(join(this.folder, 'crl', name), 'utf8'))?.payload.ledger_head
      if (typeof head !== 'string' || !hashes.has(head)) findings.push({ line: this.entries.length, code: 'CRL_HEAD' })
    }
    return findings
  }

  /** Cuts an incomplete last line, or ends it when only its line feed is missing. @returns what was done */
  repairTail(): 'nothing' | 'cut' | 'ended' {
    const path = join(this.folder, 'ledger.jsonl')
    if (this.#lastLine === 'whole') return 'nothing'
    if (this.#lastLine === 'unended') {
      appendDurably(path, '\n')
      this.#read()
      return 'ended'
    }
    const bytes = readFileSync(path)
    truncateSync(path, bytes.lastIndexOf(0x0a) + 1)
    this.#read()
    return 'cut'
  }

  /** Locks for a repair: without verifying what the repair is for. */
  async lockForRepair(): Promise<void> {
    this.#release = (await takeLock(this.folder)).release
    this.#read()
  }

  close(): void {
    this.#release?.()
    this.#release = undefined
  }

  /**
   * Key files that the chain knows; one that cannot be used is an error, not a gap.
   * @throws KEY_FILE
   */
  listKeys(): KeyFile[] {
    return this.#kidsOfFiles()
      .filter((kid) => this.records.keys.has(kid))
      .map((kid) => this.#checkKey(readKeyFile(this.keyPath(kid))))
  }

  /** Key files that the chain does not know: left by a crash, or put there by somebody. They are never used. */
  listStrayKeys(): string[] {
    return this.#kidsOfFiles().filter((kid) => !this.records.keys.has(kid))
  }

  #kidsOfFiles(): string[] {
    const ending = '.key.json'
    const names = readdirSync(join(this.folder, 'keys')).filter((name) => name.endsWith(ending))
    return names.sort().map((name) => name.slice(0, -ending.length))
  }

  /** @throws KEY_MISSING, KEY_FILE */
  getKey(kid: string): KeyFile {
    const path = this.keyPath(kid)
    if (!/^[\w-]{16}$/.test(kid) || !existsSync(path)) {
      throw new ToolError('KEY_MISSING', { zh: `台账中没有密钥 ${kid}。`, en: `The ledger has no key ${kid}.` })
    }
    return this.#checkKey(readKeyFile(path))
  }

  keyPath(kid: string): string {
    return join(this.folder, 'keys', `${kid}.key.json`)
  }

  /** A key file is worth what the chain says about it: its purpose and status are read from there. */
  #checkKey(file: KeyFile): KeyFile {
    const known = this.records.keys.get(file.kid)
    if (known?.purpose !== file.purpose) {
      throw new ToolError('KEY_FILE', {
        zh: `密钥文件 ${file.kid} 与台账记录不符。`,
        en: `Key file ${file.kid} does not fit what the ledger says of it.`,
      })
    }
    return { ...file, status: known.status }
  }

  #append(act: Act, body: Record<string, unknown>, actor: string, now: Date): Entry {
    const rest = { n: this.entries.length + 1, ts: now.toISOString(), actor, act, body, prev: this.#head }
    const entry: Entry = { ...rest, hash: hashEntry(rest) }
    try {
      appendDurably(join(this.folder, 'ledger.jsonl'), `${JSON.stringify(entry)}\n`)
    } catch (error) {
      if (systemCode(error) === 'ERR_ACCESS_DENIED') throw error
      throw new ToolError('LEDGER_WRITE', {
        zh: `无法写入台账（${systemCode(error)}）。请运行 doctor 检查。`,
        en: `The ledger cannot be written (${systemCode(error)}). Run doctor.`,
      })
    }
    this.#take(entry)
    return entry
  }

  /** A line that was edited may lack what its act needs. */
  #isTaken(entry: Entry): boolean {
    try {
      this.#take(entry)
      return true
    } catch {
      return false
    }
  }

  #take(entry: Entry): void {
    this.entries.push(entry)
    this.#head = entry.hash
    applyEntry(this.records, entry)
  }

  /** Reads up to the first line that is not an entry; `verify` says what is wrong with it. */
  #read(): void {
    this.entries = []
    this.records = createRecords()
    this.#head = zeros
    const text = existsSync(join(this.folder, 'ledger.jsonl')) ? readFileSync(join(this.folder, 'ledger.jsonl'), 'utf8') : ''
    const lines = text.split('\n')
    const tail = lines.pop()!
    this.#lastLine = tail === '' ? 'whole' : 'broken'
    for (const [index, line] of lines.entries()) {
      const entry = parseEntry(line)
      if (!entry || !this.#isTaken(entry)) throw brokenError([{ line: index + 1, code: 'LINE_INVALID' }])
    }
    const last = tail === '' ? undefined : parseEntry(tail)
    if (last && last.hash === hashEntry(last) && last.prev === this.#head) {
      this.#lastLine = 'unended'
      this.#take(last)
    }
  }

  #check(from: number): Finding[] {
    const findings: Finding[] = []
    const add = (line: number, code: FindingCode, warning = false) => findings.push({ line, code, ...(warning && { warning }) })
    for (let index = from; index < this.entries.length; index++) {
      const entry = this.entries[index]!
      const before = this.entries[index - 1]
      const line = index + 1
      if (entry.hash !== hashEntry(entry)) add(line, 'HASH')
      if (entry.prev !== (before?.hash ?? zeros)) add(line, 'PREV')
      if (entry.n !== line) add(line, 'NUMBER')
      if (before && Date.parse(before.ts) - Date.parse(entry.ts) > timeBackMs) add(line, 'TIME_BACK', true)
    }
    if (this.#lastLine !== 'whole') add(this.entries.length + (this.#lastLine === 'broken' ? 1 : 0), 'LINE_INCOMPLETE')
    return findings
  }
}

/** SHA-256 of the canonical JSON of an entry without its hash, lower-case hex. */
export function hashEntry(entry: Omit<Entry, 'hash'>): string {
  const { n, ts, actor, act, body, prev } = entry
  return createHash('sha256').update(canonicalJson({ n, ts, actor, act, body, prev })).digest('hex')
}

const findingTexts: Record<FindingCode, Text> = {
  LINE_INCOMPLETE: { zh: '不完整（可用 doctor --repair-tail 修复）', en: 'is incomplete (doctor --repair-tail mends it)' },
  LINE_INVALID: { zh: '不是台账条目', en: 'is not an entry' },
  HASH: { zh: '内容与其哈希不符', en: 'does not fit its hash' },
  PREV: { zh: '与前一条不衔接', en: 'does not follow from the line before' },
  NUMBER: { zh: '编号不连续', en: 'has not the next number' },
  TIME_BACK: { zh: '时间比前一条早 24 小时以上', en: 'is more than 24 h older than the line before' },
  ANCHOR: { zh: '与给定的锚点不符，台账可能被截断', en: 'does not fit the anchor; the ledger may have been cut' },
  CRL_HEAD: {
    zh: '之后应有吊销列表所引用的条目，台账可能被截断',
    en: 'is not followed by the entry that a revocation list names; the ledger may have been cut',
  },
  INIT: { zh: '与 config.json 不符', en: 'does not fit config.json' },
}

export function formatFinding(finding: Finding): Text {
  const { zh, en } = findingTexts[finding.code]
  return { zh: `第 ${finding.line} 行${zh}`, en: `line ${finding.line} ${en}` }
}

export function brokenError(findings: readonly Finding[]): ToolError {
  const first = formatFinding(findings[0]!)
  return new ToolError('LEDGER_BROKEN', { zh: `台账已损坏：${first.zh}。`, en: `The ledger is broken: ${first.en}.` }, { findings })
}

function readConfig(folder: string): Config {
  try {
    const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Config
    if (config.ver === 1 && typeof config.test === 'boolean') return config
  } catch (error) {
    if (systemCode(error) === 'ENOENT') {
      throw new ToolError('LEDGER_MISSING', {
        zh: `${folder} 中没有台账，请先运行 init，或用 --ledger 指定。`,
        en: `There is no ledger in ${folder}: run init, or name it with --ledger.`,
      })
    }
  }
  throw new ToolError('LEDGER_BROKEN', { zh: `${folder} 中的 config.json 无法读取。`, en: `config.json in ${folder} cannot be read.` })
}

function parseEntry(line: string): Entry | undefined {
  try {
    const entry = JSON.parse(line) as Entry
    const isEntry =
      Number.isSafeInteger(entry.n) &&
      [entry.ts, entry.actor, entry.prev, entry.hash].every((value) => typeof value === 'string') &&
      acts.includes(entry.act) &&
      typeof entry.body === 'object' &&
      entry.body !== null
    // A member beside these would not be covered by the hash.
    return isEntry && Object.keys(entry).length === 7 ? entry : undefined
  } catch {
    return undefined
  }
}
