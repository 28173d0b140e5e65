#!/usr/bin/env node
// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
//
// Verifies an exported audit log offline: node verify.mjs <bundle.zip | folder | entries.jsonl>
//   [--checkpoints FILE]… [--key <64 hex or fingerprint>]… [--json] [--require-anchored]
// One file, no dependency, Node 18 or newer. It shares no code with the product: only the published formulas.
//   hash(n) = SHA-256(hash(n-1) as 32 bytes || RFC 8785 of payload n), hash(0) = 32 zero bytes
//   tree: RFC 6962, leaf = SHA-256(0x00 || hash), node = SHA-256(0x01 || left || right)
//   checkpoint: Ed25519 over RFC 8785 of its body
// Exit: 0 all right and a key was given, 3 all right but no key (or not anchored), 1 findings, 2 unreadable.
import { Buffer, isUtf8 } from 'node:buffer'
import { createHash, createPublicKey, verify } from 'node:crypto'
import { createReadStream, existsSync, realpathSync, statSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable, pipeline } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createInflateRaw, inflateRawSync } from 'node:zlib'

/**
 * @typedef {{ code: string, seq?: number, until?: number, index?: number, line?: number }} Finding
 * @typedef {{ v: number, stream: string, seq: number, [member: string]: unknown }} Payload
 * @typedef {{ prev: string, hash: string, payload: Payload }} Entry
 * @typedef {{ log: string, tenant: string, size: number, root: string, head: string, prev: string, key: string }} Body
 * @typedef {{ body: Body, signature: string }} Checkpoint
 * @typedef {{ size: number, hash: Buffer }} Subtree
 * @typedef {{ stream?: string, tenant?: string, fromSeq?: number, toSeq?: number, prev?: string, left?: { size: number, hash: string }[] }} Manifest
 * @typedef {{ text: string | undefined, line: number, isEnded: boolean }} Line
 * @typedef {{ manifest?: Manifest | undefined, lines: AsyncIterable<Line> | Iterable<Line>, checkpoints: readonly unknown[], keys: ReadonlyMap<string, import('node:crypto').KeyObject> }} Log
 * @typedef {{ ok: boolean, findings: Finding[], lastSeq: number, anchoredTo: number, unanchored: number }} Result
 */

const maxFindings = 1000
const zeros = '0'.repeat(64)
const hex64 = /^[0-9a-f]{64}$/

/** Something that cannot be read at all; everything else is a finding. */
export class Unreadable extends Error {}

/**
 * Checks a whole log in one pass; all findings are listed, the run goes on after a fault.
 *
 * @param {Log} log
 * @returns {Promise<Result>}
 */
export async function verifyLog(log) {
  /** @type {Finding[]} */
  const findings = []
  /** @param {Finding} finding */
  const find = (finding) => findings.length < maxFindings && findings.push(finding)
  const manifest = log.manifest
  let stream = manifest?.stream
  let lastSeq = (manifest?.fromSeq ?? 1) - 1
  let lastHash = manifest?.prev ?? zeros
  /** Undefined when the roots before the first entry are not known: then only heads can be compared. */
  let edge = readLeft(manifest, find)
  /** @type {ReturnType<typeof readCheckpoints> | undefined} */
  let checkpoints
  let next = 0
  let isFirst = true

  /** Checkpoints up to this size are compared with what has been read. @param {number} size */
  const compareUpTo = (size) => {
    for (let body = checkpoints?.[next]; body && body.size <= size; body = checkpoints?.[++next]) {
      const { size: at, root, head } = body
      const isComplete = edge === undefined || edge.reduce((sum, one) => sum + one.size, 0) === at
      if (!isComplete || (edge && rootOf(edge) !== root)) find({ code: 'AUDIT_CHECKPOINT_ROOT', seq: at })
      if (lastSeq !== at || lastHash !== head) find({ code: 'AUDIT_CHECKPOINT_HEAD', seq: at })
    }
  }
  /** The log's own stream says which tenant its checkpoints are of. */
  const begin = () => {
    checkpoints = readCheckpoints(log, { stream, from: lastSeq }, find)
    compareUpTo(lastSeq)
  }
  if (manifest) begin()

  for await (const { text, line, isEnded } of log.lines) {
    const entry = text === undefined ? undefined : parseEntry(text)
    if (!entry) {
      if (!isEnded) throw new Unreadable(`line ${line} is cut off`)
      find({ code: 'AUDIT_FORMAT', seq: lastSeq + 1, line })
      continue
    }
    const { payload, prev, hash } = entry
    const { seq } = payload
    if (isFirst && !manifest) {
      stream = payload.stream
      if (seq > 1) {
        lastSeq = seq - 1
        lastHash = prev
        edge = undefined
      }
      begin()
    }
    isFirst = false
    if (payload.stream !== stream) find({ code: 'AUDIT_STREAM', seq })
    if (seq <= lastSeq) {
      find({ code: 'AUDIT_SEQ_DUPLICATE', seq })
      continue
    }
    if (seq > lastSeq + 1) find({ code: 'AUDIT_SEQ_GAP', seq: lastSeq + 1, until: seq - 1 })
    compareUpTo(seq - 1)
    if (prev !== lastHash) find({ code: 'AUDIT_PREV_MISMATCH', seq })
    if (sha256(Buffer.from(prev, 'hex'), canonical(payload)) !== hash) find({ code: 'AUDIT_HASH_MISMATCH', seq })
    lastSeq = seq
    lastHash = hash
    if (edge) edge = addLeaf(edge, Buffer.from(hash, 'hex'))
    compareUpTo(seq)
  }
  if (!checkpoints) begin()
  const anchor = checkpoints?.at(-1)?.size ?? 0
  const until = Math.max(anchor, manifest?.toSeq ?? 0)
  if (until > lastSeq) find({ code: 'AUDIT_TAIL_TRUNCATED', seq: lastSeq + 1, until })
  const anchoredTo = Math.min(anchor, lastSeq)
  return { ok: findings.length === 0, findings, lastSeq, anchoredTo, unanchored: lastSeq - anchoredTo }
}

/**
 * Signed checkpoints of this log by size.
 *
 * @param {Log} log
 * @param {{ stream: string | undefined, from: number }} place
 * @param {(finding: Finding) => void} find
 * @returns {Body[]}
 */
function readCheckpoints({ checkpoints, keys, manifest }, { stream, from }, find) {
  const tenant = manifest?.tenant ?? stream?.slice(stream.lastIndexOf(':') + 1)
  /** @type {Map<string, { body: Body, index: number }>} */
  const good = new Map()
  for (const [index, one] of checkpoints.entries()) {
    if (!isCheckpoint(one)) find({ code: 'AUDIT_FORMAT', index })
    else if (!isSigned(one, keys)) find({ code: 'AUDIT_CHECKPOINT_SIGNATURE', index })
    else if (one.body.log !== 'audit' || one.body.tenant !== tenant) find({ code: 'AUDIT_CHECKPOINT_LOG', index })
    else good.set(sha256(canonical(one.body)), { body: one.body, index })
  }
  const sorted = [...good.values()].sort((a, b) => a.body.size - b.body.size || a.index - b.index)
  /** @type {Map<string, string>} */
  const claimed = new Map()
  for (const [position, { body, index }] of sorted.entries()) {
    // What a partial log begins with may follow from checkpoints that are not part of it.
    const isBeginning = position === 0 && from > 0
    if (body.prev !== zeros && !good.has(body.prev) && !isBeginning) find({ code: 'AUDIT_CHECKPOINT_MISSING', index })
    const claims = { [`size ${body.size}`]: `${body.root} ${body.head}`, [`prev ${body.prev}`]: sha256(canonical(body)) }
    for (const [key, value] of Object.entries(claims)) {
      const before = claimed.get(key)
      if (before !== undefined && before !== value) find({ code: 'AUDIT_FORK', seq: body.size, index })
      claimed.set(key, value)
    }
  }
  return sorted.map(({ body }) => body).filter(({ size }) => size >= Math.max(from, 1))
}

/**
 * @param {unknown} value
 * @returns {value is Checkpoint}
 */
function isCheckpoint(value) {
  const { body, signature } = /** @type {Partial<Checkpoint>} */ (value ?? {})
  if (typeof body !== 'object' || body === null || typeof signature !== 'string') return false
  const { size, root, head, prev, key, tenant } = body
  return (
    Number.isSafeInteger(size) &&
    size >= 1 &&
    [root, head, prev].every((one) => hex64.test(one)) &&
    typeof key === 'string' &&
    typeof tenant === 'string'
  )
}

/**
 * @param {Checkpoint} checkpoint
 * @param {Log['keys']} keys
 */
function isSigned({ body, signature }, keys) {
  const key = keys.get(body.key)
  try {
    return key !== undefined && verify(null, Buffer.from(canonical(body)), key, Buffer.from(signature, 'base64'))
  } catch {
    return false
  }
}

/**
 * The roots of what lies before the log, whose sizes are the binary digits of the number of entries left out.
 *
 * @param {Manifest | undefined} manifest
 * @param {(finding: Finding) => void} find
 * @returns {Subtree[] | undefined}
 */
function readLeft(manifest, find) {
  const before = (manifest?.fromSeq ?? 1) - 1
  const left = manifest?.left ?? []
  const sizes = [...before.toString(2)].flatMap((digit, index, all) => (digit === '1' ? [2 ** (all.length - 1 - index)] : []))
  if (left.length === sizes.length && left.every((one, index) => one.size === sizes[index] && hex64.test(one.hash))) {
    return left.map(({ size, hash }) => ({ size, hash: Buffer.from(hash, 'hex') }))
  }
  find({ code: 'AUDIT_FORMAT', seq: before })
  return undefined
}

/**
 * @param {Subtree[]} edge
 * @param {Buffer} data
 */
function addLeaf(edge, data) {
  let last = { size: 1, hash: createHash('sha256').update('\0').update(data).digest() }
  while (edge.at(-1)?.size === last.size) {
    const left = /** @type {Subtree} */ (edge.pop())
    last = { size: left.size * 2, hash: hashNode(left.hash, last.hash) }
  }
  edge.push(last)
  return edge
}

/** @param {Subtree[]} edge */
function rootOf(edge) {
  if (edge.length === 0) return sha256()
  return edge
    .map(({ hash }) => hash)
    .reduceRight((right, left) => hashNode(left, right))
    .toString('hex')
}

/**
 * @param {Buffer} left
 * @param {Buffer} right
 */
function hashNode(left, right) {
  return createHash('sha256').update('\u0001').update(left).update(right).digest()
}

/** @param {(Buffer | string)[]} parts */
function sha256(...parts) {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest('hex')
}

const payloadMembers = ['v', 'stream', 'seq', 'ts', 'type', 'actor', 'subject', 'data']
const dataMembers = ['id', 'outcome', 'reason', 'actor', 'target', 'changes', 'context']

/**
 * One line as an entry; undefined when it is not strict JSON of the right form.
 *
 * @param {string} text
 * @returns {Entry | undefined}
 */
function parseEntry(text) {
  try {
    const entry = /** @type {Entry} */ (JSON.parse(text))
    const { prev, hash, payload } = entry
    if (!hex64.test(prev) || !hex64.test(hash) || Object.keys(entry).length !== 3) return undefined
    const data = /** @type {object} */ (payload.data)
    const isWhole = payloadMembers.every((name) => Object.hasOwn(payload, name)) && dataMembers.every((name) => Object.hasOwn(data, name))
    if (!isWhole || !Number.isSafeInteger(payload.seq) || payload.seq < 1 || typeof payload.stream !== 'string') return undefined
    // Text in canonical form has nothing twice; any other is looked through.
    if (canonical(entry) !== text && hasTwins(text)) return undefined
    return entry
  } catch {
    return undefined
  }
}

/**
 * RFC 8785.
 *
 * @param {unknown} value
 * @returns {string}
 */
export function canonical(value) {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError('not finite')
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  const object = /** @type {Record<string, unknown>} */ (value)
  let text = ''
  for (const name of Object.keys(object).sort()) text += `${text === '' ? '' : ','}${JSON.stringify(name)}:${canonical(object[name])}`
  return `{${text}}`
}

/**
 * Whether an object in this JSON has a member twice, or a `__proto__`, which JSON.parse keeps but few readers do.
 *
 * @param {string} text that JSON.parse has accepted
 */
function hasTwins(text) {
  /** @type {(Set<string> | undefined)[]} */
  const levels = []
  const tokens = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g
  let isName = false
  for (const [token] of text.matchAll(tokens)) {
    if (token === '{' || token === '[') {
      levels.push(token === '{' ? new Set() : undefined)
      isName = token === '{'
    } else if (token === '}' || token === ']') {
      levels.pop()
      isName = false
    } else if (token === ',') {
      isName = levels.at(-1) !== undefined
    } else if (token === ':') {
      isName = false
    } else if (isName) {
      const names = levels.at(-1)
      const name = String(JSON.parse(token))
      if (name === '__proto__' || names?.has(name)) return true
      names?.add(name)
    }
  }
  return false
}

/**
 * Lines of a byte stream; the last may lack its end.
 *
 * @param {AsyncIterable<Buffer>} stream
 * @returns {AsyncGenerator<Line>}
 */
export async function* readLines(stream) {
  /** @type {Buffer[]} */
  let begun = []
  let line = 0
  /** @param {Buffer} bytes @param {boolean} isEnded */
  const toLine = (bytes, isEnded) => ({ text: isUtf8(bytes) ? bytes.toString('utf8') : undefined, line: ++line, isEnded })
  for await (const chunk of stream) {
    let from = 0
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, from)) {
      const part = chunk.subarray(from, at)
      yield toLine(begun.length === 0 ? part : Buffer.concat([...begun, part]), true)
      begun = []
      from = at + 1
    }
    if (from < chunk.length) begun.push(chunk.subarray(from))
  }
  if (begun.length > 0) yield toLine(Buffer.concat(begun), false)
}

/**
 * Files of a bundle, from a folder or a zip.
 *
 * @typedef {{ has(name: string): boolean, read(name: string): Promise<Buffer>, stream(name: string): AsyncIterable<Buffer> }} Files
 * @param {string} folder
 * @returns {Files}
 */
function openFolder(folder) {
  return {
    has: (name) => existsSync(join(folder, name)),
    read: (name) => readFile(join(folder, name)),
    stream: (name) => createReadStream(join(folder, name)),
  }
}

/**
 * Reads the directory of a zip; entries may be stored or deflated. No zip64: bundles are split long before.
 *
 * @param {string} path
 * @returns {Promise<Files>}
 */
async function openZip(path) {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    const tail = Buffer.alloc(Math.min(size, 65_557))
    await file.read(tail, 0, tail.length, size - tail.length)
    const end = tail.lastIndexOf(Buffer.from('PK\u0005\u0006', 'latin1'))
    if (end === -1) throw new Unreadable('this is not a whole zip file')
    const directory = Buffer.alloc(tail.readUInt32LE(end + 12))
    await file.read(directory, 0, directory.length, tail.readUInt32LE(end + 16))
    /** @type {Map<string, { method: number, start: number, length: number }>} */
    const members = new Map()
    for (let at = 0; at + 46 <= directory.length;) {
      const nameLength = directory.readUInt16LE(at + 28)
      const name = directory.toString('utf8', at + 46, at + 46 + nameLength)
      const header = directory.readUInt32LE(at + 42)
      const local = Buffer.alloc(30)
      await file.read(local, 0, 30, header)
      const start = header + 30 + local.readUInt16LE(26) + local.readUInt16LE(28)
      members.set(name, { method: directory.readUInt16LE(at + 10), start, length: directory.readUInt32LE(at + 20) })
      at += 46 + nameLength + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32)
    }
    /** @param {string} name */
    const get = (name) => {
      const member = members.get(name)
      if (!member || (member.method !== 0 && member.method !== 8)) throw new Unreadable(`the zip has no readable ${name}`)
      return member
    }
    return {
      has: (name) => members.has(name),
      async read(name) {
        const { method, start, length } = get(name)
        const bytes = Buffer.alloc(length)
        const source = await open(path, 'r')
        try {
          await source.read(bytes, 0, length, start)
        } finally {
          await source.close()
        }
        return method === 8 ? inflateRawSync(bytes) : bytes
      },
      stream(name) {
        const { method, start, length } = get(name)
        if (length === 0) return Readable.from([])
        const source = createReadStream(path, { start, end: start + length - 1 })
        return method === 8 ? compose(source, createInflateRaw()) : source
      },
    }
  } finally {
    await file.close()
  }
}

/**
 * A source that fails makes its inflater fail.
 *
 * @param {Readable} source
 * @param {import('node:zlib').InflateRaw} inflater
 */
function compose(source, inflater) {
  pipeline(source, inflater, () => {})
  return inflater
}

/**
 * @param {AsyncIterable<Buffer>} stream
 * @param {string} name
 * @returns {Promise<unknown[]>}
 */
async function readJsonLines(stream, name) {
  /** @type {unknown[]} */
  const values = []
  for await (const { text, line } of readLines(stream)) {
    if (text === '') continue
    try {
      values.push(JSON.parse(text ?? ''))
    } catch {
      throw new Unreadable(`line ${line} of ${name} is cut off or no JSON`)
    }
  }
  return values
}

/**
 * Keys that count: those of the options, as such or as fingerprints of keys in the bundle; without any, all of the bundle.
 *
 * @param {unknown} list of keys.json
 * @param {readonly string[]} wanted
 */
export function trustKeys(list, wanted) {
  /** @type {Map<string, import('node:crypto').KeyObject>} */
  const bundled = new Map()
  for (const one of /** @type {unknown[]} */ (Array.isArray(list) ? list : [])) {
    const raw = Buffer.from(String(/** @type {{ publicKey?: unknown }} */ (one ?? {}).publicKey), 'base64')
    if (raw.length === 32) bundled.set(idOf(raw), toKey(raw))
  }
  if (wanted.length === 0) return bundled
  /** @type {typeof bundled} */
  const trusted = new Map()
  for (const one of wanted.map((text) => text.replace(/[\s:-]/g, '').toLowerCase())) {
    const key = bundled.get(one)
    if (hex64.test(one)) trusted.set(idOf(Buffer.from(one, 'hex')), toKey(Buffer.from(one, 'hex')))
    else if (!/^[0-9a-f]{16}$/.test(one)) throw new Unreadable('--key is 64 hex digits of a public key or the 16 of its fingerprint')
    else if (key) trusted.set(one, key)
  }
  return trusted
}

/** @param {Buffer} raw */
function idOf(raw) {
  return sha256(raw).slice(0, 16)
}

/** @param {Buffer} raw */
function toKey(raw) {
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') }, format: 'jwk' })
}

/**
 * @param {string} path
 * @param {{ checkpoints: readonly string[], keys: readonly string[] }} options
 * @returns {Promise<Log>}
 */
async function openLog(path, options) {
  const isFolder = statSync(path).isDirectory()
  const more = (await Promise.all(options.checkpoints.map((file) => readJsonLines(createReadStream(file), file)))).flat()
  if (!isFolder && !path.endsWith('.zip')) {
    return { lines: readLines(createReadStream(path)), checkpoints: more, keys: trustKeys([], options.keys) }
  }
  const files = isFolder ? openFolder(path) : await openZip(path)
  /** @param {string} name @returns {Promise<unknown>} */
  const readJson = async (name) => JSON.parse((await files.read(name)).toString('utf8'))
  const manifest = /** @type {(Manifest & { format: number, log: string }) | null} */ (await readJson('manifest.json'))
  if (manifest?.format !== 1 || manifest.log !== 'audit') throw new Unreadable('manifest.json is not of format 1 of an audit log')
  const own = files.has('checkpoints.jsonl') ? await readJsonLines(files.stream('checkpoints.jsonl'), 'checkpoints.jsonl') : []
  const keys = trustKeys(files.has('keys.json') ? await readJson('keys.json') : [], options.keys)
  return { manifest, lines: readLines(files.stream('entries.jsonl')), checkpoints: [...own, ...more], keys }
}

const usage =
  'verify.mjs <bundle.zip | folder | entries.jsonl> [--checkpoints FILE]… [--key <64 hex or fingerprint>]… [--json] [--require-anchored]'

/**
 * @param {string[]} args
 * @param {(line: string) => void} print
 * @returns {Promise<number>} the exit code
 */
export async function main(args, print) {
  let isJson = args.includes('--json')
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        checkpoints: { type: 'string', multiple: true, default: [] },
        key: { type: 'string', multiple: true, default: [] },
        json: { type: 'boolean', default: false },
        'require-anchored': { type: 'boolean', default: false },
      },
    })
    isJson = values.json
    const [path] = positionals
    if (path === undefined || positionals.length > 1) throw new Unreadable(usage)
    const result = await verifyLog(await openLog(path, { checkpoints: values.checkpoints, keys: values.key }))
    for (const line of isJson ? [JSON.stringify(result)] : describe(result)) print(line)
    if (!result.ok) return 1
    return values.key.length === 0 || (values['require-anchored'] && result.unanchored > 0) ? 3 : 0
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    print(isJson ? JSON.stringify({ ok: false, error: message }) : `unreadable 无法读取: ${message}`)
    return 2
  }
}

/** @param {Result} result @returns {string[]} a line each, the verdict last */
export function describe({ ok, findings, lastSeq, anchoredTo, unanchored }) {
  const lines = findings.map(({ code, ...where }) => [code, ...Object.entries(where).map(([name, value]) => `${name}=${value}`)].join(' '))
  const summary = `last ${lastSeq}, anchored to ${anchoredTo}, not anchored ${unanchored}`
  return [...lines, `${ok ? 'ok 完好' : `${findings.length} findings 处问题`}: ${summary}`]
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = await main(process.argv.slice(2), (line) => process.stdout.write(`${line}\n`))
}
