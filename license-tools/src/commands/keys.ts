// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash, createPublicKey, randomBytes, sign, verify } from 'node:crypto'
import { basename } from 'node:path'
import { usageError } from '../arguments.ts'
import { ToolError } from '../errors.ts'
import { assertIsNew, replaceFile, writeNewFile } from '../files.ts'
import { createKey, openKey, purposes, resealKey } from '../keystore.ts'
import type { KeyFile, KeyStatus, Purpose } from '../keystore.ts'
import type { Ledger } from '../ledger.ts'
import { readPassphrase } from '../terminal.ts'
import type { Result } from '../terminal.ts'
import { formatTable, openLedger, record, withLock } from '../tool.ts'
import type { Command, Tool } from '../tool.ts'

const passphraseOptions = { 'passphrase-file': 'text', 'passphrase-fd': 'text', 'passphrase-env': 'text' } as const
const newPassphraseOptions = { 'new-passphrase-file': 'text', 'new-passphrase-fd': 'text', 'new-passphrase-env': 'text' } as const

export const keyCommands: Record<string, Command> = {
  'key create': {
    usage: 'key create --purpose license|staging|crl [--bits 3072|4096]',
    about: { zh: '生成签名密钥，私钥以口令加密存放', en: 'makes a signing key, sealed under a passphrase' },
    options: { purpose: 'text', bits: 'text', ...passphraseOptions },
    run: (tool) => create(tool),
  },
  'key list': {
    usage: 'key list',
    about: { zh: '列出密钥', en: 'lists the keys' },
    run: (tool) => list(openLedger(tool).listKeys()),
  },
  'key show': {
    usage: 'key show KID',
    about: { zh: '显示一个密钥的公开部分', en: 'shows the public part of a key' },
    positionals: { least: 1, most: 1 },
    run: (tool) => show(openLedger(tool).getKey(tool.args.positionals[0]!)),
  },
  'key test': {
    usage: 'key test KID',
    about: { zh: '打开密钥，签名并校验一段随机数据', en: 'opens a key, signs and verifies a random message' },
    options: passphraseOptions,
    positionals: { least: 1, most: 1 },
    run: (tool) => test(tool),
  },
  'key change-passphrase': {
    usage: 'key change-passphrase KID [--new-passphrase-file F|--new-passphrase-fd N]',
    about: { zh: '更换口令', en: 'seals a key under another passphrase' },
    options: { ...passphraseOptions, ...newPassphraseOptions },
    positionals: { least: 1, most: 1 },
    run: (tool) => changePassphrase(tool),
  },
  'key export-public': {
    usage: 'key export-public KID -o FILE',
    about: { zh: '导出公钥（PEM），放入产品的 core/license-keys', en: 'writes the public key (PEM) for core/license-keys of the product' },
    options: { output: 'text' },
    positionals: { least: 1, most: 1 },
    run: (tool) => exportPublic(tool),
  },
  'key rotate': {
    usage: 'key rotate --purpose license|staging|crl [--bits 3072|4096]',
    about: { zh: '生成新密钥，旧密钥停用（仍可校验）', en: 'makes a new key and retires the old one, which still verifies' },
    options: { purpose: 'text', bits: 'text', ...passphraseOptions },
    run: (tool) => rotate(tool),
  },
  'key retire': {
    usage: 'key retire KID --reason TEXT',
    about: { zh: '停用密钥：不再签发，已签发的仍有效', en: 'retires a key: it signs no more, what it signed stays good' },
    options: { reason: 'text' },
    positionals: { least: 1, most: 1 },
    run: (tool) => changeStatus(tool, 'retired'),
  },
  'key revoke': {
    usage: 'key revoke KID --reason TEXT',
    about: {
      zh: '吊销密钥：下一份吊销列表只认台账中由它签发的许可证',
      en: 'revokes a key: the next list allows only the licenses the ledger knows of',
    },
    options: { reason: 'text' },
    positionals: { least: 1, most: 1 },
    run: (tool) => changeStatus(tool, 'revoked'),
  },
}

async function create(tool: Tool): Promise<Result> {
  const purpose = readPurpose(tool)
  const ledger = openLedger(tool)
  const file = await makeKey(tool, purpose)
  await withLock(tool, ledger, () => storeKey(tool, ledger, file))
  return keyResult(ledger, file)
}

async function rotate(tool: Tool): Promise<Result> {
  const purpose = readPurpose(tool)
  const ledger = openLedger(tool)
  const file = await makeKey(tool, purpose)
  const retired = await withLock(tool, ledger, () => {
    const old = ledger.listKeys().filter((key) => key.purpose === purpose && key.status === 'active')
    storeKey(tool, ledger, file)
    for (const { kid } of old) setStatus(tool, ledger, kid, 'retired', 'rotate')
    return old.map((key) => key.kid)
  })
  const result = keyResult(ledger, file)
  return {
    json: { ...result.json, retired },
    lines: [...result.lines, { zh: `已停用：${retired.join(' ') || '无'}`, en: `retired: ${retired.join(' ') || 'none'}` }],
  }
}

function readPurpose(tool: Tool): Purpose {
  tool.args.required('purpose')
  return tool.args.choice('purpose', purposes)!
}

async function makeKey(tool: Tool, purpose: Purpose): Promise<KeyFile> {
  const bits = tool.args.integer('bits') ?? 3072
  if (bits !== 3072 && bits !== 4096) throw usageError('--bits 只能是 3072 或 4096', '--bits is 3072 or 4096')
  const prompt = { zh: '新密钥的口令：', en: 'Passphrase of the new key: ' }
  const passphrase = await readPassphrase(tool.args, tool.terminal, tool.env, { isNew: true, prompt })
  return createKey(purpose, bits, passphrase, tool.now.toISOString())
}

/** The file comes first: a key that the chain does not know is never used, one that it names must be there. */
function storeKey(tool: Tool, ledger: Ledger, file: KeyFile): void {
  writeNewFile(ledger.keyPath(file.kid), `${JSON.stringify(file, null, 1)}\n`, 0o600)
  record(tool, ledger, 'key.create', { bits: file.bits, kid: file.kid, purpose: file.purpose })
}

function keyResult(ledger: Ledger, file: KeyFile): Result {
  const { kid, purpose, bits } = file
  const path = ledger.keyPath(kid)
  const sha256 = fingerprint(file)
  const name = `${purpose}-${kid}.pem`
  return {
    json: { kid, purpose, bits, spkiSha256: sha256, path },
    lines: [
      `kid         ${kid}`,
      `purpose     ${purpose}`,
      `SPKI SHA256 ${sha256}`,
      `file        ${path}`,
      {
        zh: `下一步 1：license-tools key export-public ${kid} -o ${name}，放入产品的 core/license-keys/`,
        en: `next 1: license-tools key export-public ${kid} -o ${name}, for core/license-keys/ of the product`,
      },
      { zh: '下一步 2：备份整个台账目录，口令另外保存', en: 'next 2: back up the whole ledger folder, and keep the passphrase elsewhere' },
    ],
  }
}

function list(keys: KeyFile[]): Result {
  const rows = keys.map(({ kid, purpose, bits, status, createdAt }) => ({ kid, purpose, bits, status, createdAt }))
  return { json: { keys: rows }, lines: formatTable(rows.map((row) => Object.values(row).map(String))) }
}

function show(file: KeyFile): Result {
  const { kid, purpose, bits, status, createdAt, public: pem } = file
  const json = { kid, purpose, bits, status, createdAt, spkiSha256: fingerprint(file), public: pem }
  return { json, lines: Object.entries(json).map(([name, value]) => (name === 'public' ? pem.trimEnd() : `${name.padEnd(11)} ${value}`)) }
}

async function test(tool: Tool): Promise<Result> {
  const file = openLedger(tool).getKey(tool.args.positionals[0]!)
  const prompt = { zh: `密钥 ${file.kid} 的口令：`, en: `Passphrase of key ${file.kid}: ` }
  const key = openKey(file, await readPassphrase(tool.args, tool.terminal, tool.env, { prompt }))
  const message = randomBytes(64)
  if (!verify('sha256', message, createPublicKey(file.public), sign('sha256', message, key.privateKey))) {
    throw new ToolError('KEY_FILE', { zh: '签名校验失败。', en: 'The signature of the key does not verify.' })
  }
  return { json: { kid: key.kid, works: true }, lines: [{ zh: `密钥 ${key.kid} 可用。`, en: `Key ${key.kid} works.` }] }
}

async function changePassphrase(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const kid = tool.args.positionals[0]!
  const file = ledger.getKey(kid)
  const before = await readPassphrase(tool.args, tool.terminal, tool.env, { prompt: { zh: '现在的口令：', en: 'Present passphrase: ' } })
  openKey(file, before)
  const after = await readPassphrase(tool.args, tool.terminal, tool.env, {
    prefix: 'new-',
    isNew: true,
    prompt: { zh: '新的口令：', en: 'New passphrase: ' },
  })
  const sealed = resealKey(file, before, after)
  await withLock(tool, ledger, () => {
    replaceFile(ledger.keyPath(kid), `${JSON.stringify(sealed, null, 1)}\n`)
    record(tool, ledger, 'key.passphrase', { kid })
  })
  return {
    json: { kid },
    lines: [
      { zh: `密钥 ${kid} 的口令已更换；旧备份仍用旧口令。`, en: `Key ${kid} has its new passphrase; old back-ups keep the old one.` },
    ],
  }
}

async function exportPublic(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const file = ledger.getKey(tool.args.positionals[0]!)
  const path = tool.args.required('output')
  if (path === '-') return { json: {}, lines: [], raw: file.public }
  const usual = `${file.purpose}-${file.kid}.pem`
  if (basename(path) !== usual) {
    tool.terminal.note('KEY_NAME', { zh: `产品只读取名为 ${usual} 的文件。`, en: `The product reads it only under the name ${usual}.` })
  }
  assertIsNew(path)
  await withLock(tool, ledger, () => {
    record(tool, ledger, 'key.export_public', { kid: file.kid })
    writeNewFile(path, file.public)
  })
  return { json: { kid: file.kid, path }, lines: [{ zh: `公钥已写入 ${path}。`, en: `The public key is in ${path}.` }] }
}

async function changeStatus(tool: Tool, status: KeyStatus): Promise<Result> {
  const kid = tool.args.positionals[0]!
  const reason = tool.args.required('reason')
  const ledger = openLedger(tool)
  ledger.getKey(kid)
  await tool.terminal.confirm(
    status === 'revoked'
      ? { zh: `吊销密钥 ${kid}，不可恢复。确定？`, en: `Revoke key ${kid} for good?` }
      : { zh: `停用密钥 ${kid}？`, en: `Retire key ${kid}?` },
  )
  await withLock(tool, ledger, () => {
    const now = ledger.getKey(kid).status
    if (now === 'revoked' && status === 'retired') throw usageError('密钥已吊销', 'the key is revoked')
    if (now !== status) setStatus(tool, ledger, kid, status, reason)
  })
  const next = { zh: '在下一份吊销列表（crl build）后生效。', en: 'It takes effect with the next revocation list (crl build).' }
  return {
    json: { kid, status },
    lines: [{ zh: `密钥 ${kid} 的状态：${status}。`, en: `Key ${kid} is ${status}.` }, ...(status === 'revoked' ? [next] : [])],
  }
}

/** The chain is what counts; the file's own status is for people who look into it. */
function setStatus(tool: Tool, ledger: Ledger, kid: string, status: KeyStatus, reason: string): void {
  record(tool, ledger, 'key.status', { kid, reason, status })
  replaceFile(ledger.keyPath(kid), `${JSON.stringify(ledger.getKey(kid), null, 1)}\n`)
}

function fingerprint(file: KeyFile): string {
  return createHash('sha256')
    .update(createPublicKey(file.public).export({ type: 'spki', format: 'der' }))
    .digest('hex')
}
