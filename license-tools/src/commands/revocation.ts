// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CompactSign } from 'jose'
import { armourToken, decodeUnverified, verifyCrl } from '@iot-pms/core/license'
import { keyOptions, usageError } from '../arguments.ts'
import { ToolError } from '../errors.ts'
import { assertIsNew, readInput, replaceFile, writeNewFile } from '../files.ts'
import type { SigningKey } from '../keystore.ts'
import { Ledger } from '../ledger.ts'
import { chooseKey, importForeignKey, listPublicKeys } from '../signer.ts'
import type { Result } from '../terminal.ts'
import { findRecord } from '../token-file.ts'
import { formatInstant, openLedger, record, withLock } from '../tool.ts'
import type { Command, Tool } from '../tool.ts'
import { assertAllowed, violation } from '../issue.ts'
import { readCrl } from '../verify.ts'

/** [L-80] */
const reasons = ['key_compromise', 'lost', 'superseded', 'refund', 'misuse', 'other'] as const

const daySeconds = 86_400
const usualNextDays = 90
const mostNextDays = 400
/** A token that ended this long ago needs no entry any more. */
const keptDays = 400

export const revocationCommands: Record<string, Command> = {
  revoke: {
    usage: `revoke JTI|FILE --reason ${reasons.join('|')} [--note TEXT]`,
    about: { zh: '吊销许可证，随下一份吊销列表生效', en: 'revokes a license; the next revocation list carries it' },
    options: { reason: 'text', note: 'text' },
    positionals: { least: 1, most: 1 },
    run: (tool) => revoke(tool),
  },
  unrevoke: {
    usage: 'unrevoke JTI|FILE [--note TEXT]',
    about: { zh: '撤回吊销，仅在下一份吊销列表生成之前', en: 'takes a revocation back, only before the next list is built' },
    options: { note: 'text' },
    positionals: { least: 1, most: 1 },
    run: (tool) => unrevoke(tool),
  },
  'crl build': {
    usage: 'crl build [--next-update DAYS] -o FILE',
    about: { zh: '生成并签署吊销列表', en: 'builds and signs the revocation list' },
    options: { 'next-update': 'text', output: 'text', ...keyOptions },
    run: (tool) => build(tool),
  },
  'crl inspect': {
    usage: 'crl inspect FILE',
    about: { zh: '显示吊销列表，不作信任判断', en: 'shows a revocation list, without trusting it' },
    positionals: { least: 1, most: 1 },
    run: (tool) => inspect(tool),
  },
  'crl verify': {
    usage: 'crl verify FILE [--key FILE …]',
    about: { zh: '校验吊销列表', en: 'verifies a revocation list' },
    options: { key: 'list' },
    positionals: { least: 1, most: 1 },
    run: (tool) => verify(tool),
  },
}

async function revoke(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const { jti } = findRecord(ledger, tool.args.positionals[0]!)
  tool.args.required('reason')
  const reason = tool.args.choice('reason', reasons)!
  const note = tool.args.text('note')
  const isNew = await withLock(tool, ledger, () => {
    if (ledger.records.tokens.get(jti)?.revoked) return false
    record(tool, ledger, 'revoke', { jti, reason, ...(note !== undefined && { note }) })
    return true
  })
  return {
    json: { jti, reason, already: !isNew },
    lines: [
      isNew ? { zh: `已吊销 ${jti}。`, en: `revoked ${jti}` } : { zh: `${jti} 先前已吊销。`, en: `${jti} is already revoked` },
      {
        zh: '在客户装入下一份吊销列表（crl build）后生效。',
        en: 'It takes effect when the customer installs the next revocation list (crl build).',
      },
    ],
  }
}

async function unrevoke(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const { jti } = findRecord(ledger, tool.args.positionals[0]!)
  const note = tool.args.text('note')
  await withLock(tool, ledger, () => {
    const { revoked } = ledger.records.tokens.get(jti)!
    if (!revoked) throw usageError(`${jti} 没有被吊销`, `${jti} is not revoked`)
    if (ledger.records.crl.n > revoked.n) {
      assertAllowed([
        violation(
          'POLICY_UNREVOKE',
          `${jti} 已在吊销列表中发布，请重新签发`,
          `${jti} was published in a revocation list; issue a new license`,
        ),
      ])
    }
    record(tool, ledger, 'unrevoke', { jti, ...(note !== undefined && { note }) })
  })
  return { json: { jti }, lines: [{ zh: `${jti} 的吊销已撤回。`, en: `${jti} is no longer revoked` }] }
}

async function build(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const output = tool.args.required('output')
  if (output === '-' && tool.terminal.isJson) throw usageError('-o - 不能与 --json 同用', '-o - and --json exclude each other')
  const days = tool.args.integer('next-update') ?? usualNextDays
  if (days < 1 || days > mostNextDays) throw usageError('--next-update 为 1 至 400 天', '--next-update is 1 to 400 days')
  if (output !== '-') assertIsNew(output)
  const chosen = chooseKey(tool, ledger, 'crl')
  if (chosen.purpose !== 'crl' || chosen.status !== 'active') {
    assertAllowed([violation('POLICY_KEY', '吊销列表须由可用的 crl 密钥签署', 'a revocation list is signed by an active crl key')])
  }
  const key = await chosen.open()
  return withLock(tool, ledger, async () => {
    importForeignKey(tool, ledger, key)
    const claims = listRevocations(ledger, tool.now, days)
    const payload = JSON.stringify(claims)
    const token = await signCrl(payload, key, ledger)
    const path = join(ledger.folder, 'crl', `crl-${claims.seq}.jwt`)
    // A file of this number can only be left from a cut ledger, which `ledger verify` finds.
    if (existsSync(path)) {
      throw new ToolError('LEDGER_BROKEN', {
        zh: `${path} 已存在，台账可能被截断。`,
        en: `${path} is there already: the ledger may have been cut.`,
      })
    }
    // The entry comes first: a number that was given is never given again.
    record(tool, ledger, 'crl', {
      keys: claims.keys.length,
      kid: key.kid,
      ledger_head: claims.ledger_head,
      revoked: claims.revoked.length,
      seq: claims.seq,
      sha256: createHash('sha256').update(token).digest('hex'),
    })
    replaceFile(path, `${token}\n`)
    const text = armourToken(token, 'CRL')
    if (output !== '-') writeNewFile(output, text)
    const { seq, revoked, keys } = claims
    return {
      json: { seq, revoked: revoked.length, keys: keys.length, nextUpdate: formatInstant(claims.next_update), path: output },
      lines: [
        {
          zh: `吊销列表 ${seq}：${revoked.length} 张许可证，${keys.length} 个密钥`,
          en: `revocation list ${seq}: ${revoked.length} licenses, ${keys.length} keys`,
        },
        { zh: `下次更新 ${formatInstant(claims.next_update)}`, en: `next update ${formatInstant(claims.next_update)}` },
        { zh: `文件 ${output}`, en: `file ${output}` },
      ],
      ...(output === '-' && { raw: text }),
    }
  })
}

/** [L-80] The newest list is the whole truth, so it holds everything that still matters. */
function listRevocations(ledger: Ledger, now: Date, days: number) {
  const iat = Math.floor(now.getTime() / 1000)
  const tokens = [...ledger.records.tokens.values()]
  const revoked = tokens
    .filter((token) => token.revoked && token.claims.exp > iat - keptDays * daySeconds)
    .map(({ jti, revoked: taken }) => ({ jti, at: Math.floor(Date.parse(taken!.at) / 1000), reason: taken!.reason }))
  const keys = [...ledger.records.keys.values()]
    .filter((key) => key.status === 'revoked')
    .map(({ kid }) => ({
      kid,
      mode: 'revoked',
      allow: tokens.filter((token) => token.kid === kid && !token.revoked && token.payload !== undefined).map((token) => token.jti),
    }))
  const { iss, aud } = ledger.config
  return {
    iss,
    aud,
    ver: 1,
    seq: ledger.records.crl.seq + 1,
    iat,
    next_update: iat + days * daySeconds,
    revoked,
    keys,
    ledger_head: ledger.head.hash,
  }
}

async function signCrl(payload: string, key: SigningKey, ledger: Ledger): Promise<string> {
  const token = await new CompactSign(Buffer.from(payload))
    .setProtectedHeader({ alg: 'RS256', typ: 'iot-pms-crl+jwt', kid: key.kid })
    .sign(key.privateKey)
  const verified = await verifyCrl(token, { keys: listPublicKeys(ledger) })
  if (!verified.ok) {
    throw new ToolError('TOKEN_REFUSED', {
      zh: `产品不接受此吊销列表（${verified.code}）。`,
      en: `The product would refuse this list (${verified.code}).`,
    })
  }
  return token
}

function inspect(tool: Tool): Result {
  const decoded = decodeUnverified(readInput(tool.args.positionals[0]!))
  if (decoded?.header.typ !== 'iot-pms-crl+jwt') {
    throw new ToolError('CRL_INVALID', { zh: '这不是吊销列表。', en: 'This is not a revocation list.' })
  }
  const { header, payload } = decoded
  return {
    json: { verified: false, header, claims: payload },
    lines: [{ zh: 'UNVERIFIED 未验证', en: 'UNVERIFIED 未验证' }, JSON.stringify(payload, null, 2)],
  }
}

async function verify(tool: Tool): Promise<Result> {
  const ledger = Ledger.isThere(tool.folder) ? openLedger(tool) : undefined
  const crl = await readCrl(tool.args.positionals[0]!, listPublicKeys(ledger, tool.args.list('key')))
  const isOutdated = crl.nextUpdate * 1000 <= tool.now.getTime()
  if (isOutdated) tool.terminal.note('CRL_OUTDATED', { zh: '已过下次更新日期。', en: 'Its next update is due.' })
  const newest = ledger?.records.crl.seq
  if (newest !== undefined && crl.seq < newest) {
    tool.terminal.note('CRL_STALE', { zh: `最新一份是 ${newest}。`, en: `The newest one is ${newest}.` })
  }
  return {
    json: {
      seq: crl.seq,
      revoked: crl.revoked.size,
      keys: crl.revokedKeys.size,
      issuedAt: formatInstant(crl.iat),
      nextUpdate: formatInstant(crl.nextUpdate),
      outdated: isOutdated,
    },
    lines: [
      {
        zh: `吊销列表 ${crl.seq} 有效：${crl.revoked.size} 张许可证，${crl.revokedKeys.size} 个密钥`,
        en: `revocation list ${crl.seq} is good: ${crl.revoked.size} licenses, ${crl.revokedKeys.size} keys`,
      },
    ],
  }
}
