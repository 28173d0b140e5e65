// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { armourToken } from '@iot-pms/core/license'
import type { LicenseClaims, LicenseRequest } from '@iot-pms/core/license'
import { keyOptions, usageError } from '../arguments.ts'
import type { OptionTable } from '../arguments.ts'
import { describeMachine, formatChange, listChanges } from '../changes.ts'
import { ToolError } from '../errors.ts'
import { assertIsNew, writeNewFile } from '../files.ts'
import { assertAllowed, buildClaims, checkPolicy, completeToken, editions, issueToken, signToken } from '../issue.ts'
import { checkCustomerId, checkName, continueFrom, readTerms, termOptions } from '../issue-options.ts'
import type { IssueOptions } from '../issue.ts'
import type { SigningKey } from '../keystore.ts'
import type { Ledger } from '../ledger.ts'
import { readReceipt } from '../receipt.ts'
import type { TokenRecord } from '../records.ts'
import { readRequest } from '../request-file.ts'
import { chooseKey, importForeignKey } from '../signer.ts'
import type { ChosenKey } from '../signer.ts'
import { findIssued, findRecord } from '../token-file.ts'
import type { Result } from '../terminal.ts'
import { formatDay, formatInstant, openLedger, record, withLock } from '../tool.ts'
import type { Command, Tool } from '../tool.ts'

const issueOptions: OptionTable = {
  ...termOptions,
  ...keyOptions,
  machine: 'text',
  customer: 'text',
  name: 'text',
  edition: 'text',
  env: 'text',
}

export const issueCommands: Record<string, Command> = {
  issue: {
    usage:
      'issue (--request FILE | --machine any --reason TEXT) --customer ID --name TEXT --edition E [--feature a,b] [--limit name=value …] (--days N | --until D) [--from D] [--grace N] [--kind nfr|dev] [--env staging] [--dry-run] -o FILE',
    about: { zh: '签发许可证', en: 'issues a license' },
    options: issueOptions,
    run: (tool) => issue(tool, {}),
  },
  'trial create': {
    usage: 'trial create --request FILE --customer ID --name TEXT -o FILE',
    about: { zh: '签发 30 天试用', en: 'issues a trial of 30 days' },
    options: issueOptions,
    run: (tool) => issue(tool, { edition: 'trial' }),
  },
  renew: {
    usage: 'renew JTI|FILE [--days N] [--request FILE] [options of issue] -o FILE',
    about: { zh: '续期：沿用原许可证的内容，可改个别项', en: 'renews: as the old license, but for what is given' },
    options: { ...termOptions, ...keyOptions, name: 'text', edition: 'text' },
    positionals: { least: 1, most: 1 },
    run: (tool) => renew(tool),
  },
  transfer: {
    usage: 'transfer JTI --request FILE --receipt FILE [--days N] -o FILE',
    about: { zh: '迁移到新机器：核验释放回执，签发新证并吊销旧证', en: 'moves a license to a new machine against a release receipt' },
    options: { ...termOptions, ...keyOptions, receipt: 'text', name: 'text', edition: 'text' },
    positionals: { least: 1, most: 1 },
    run: (tool) => transfer(tool),
  },
  export: {
    usage: 'export JTI -o FILE',
    about: { zh: '再次写出已签发的许可证（与原件逐字相同）', en: 'writes an issued license once more, the same to the letter' },
    options: { output: 'text', ...keyOptions },
    positionals: { least: 1, most: 1 },
    run: (tool) => exportToken(tool),
  },
}

/** One issue from options to file; `replaces` is taken back in the same act. */
type Plan = { options: IssueOptions; request: LicenseRequest | undefined; former?: LicenseClaims; replaces?: TokenRecord }

async function issue(tool: Tool, fixed: { edition?: 'trial' }): Promise<Result> {
  const ledger = openLedger(tool)
  const { args } = tool
  const request = readMachine(tool)
  const edition = fixed.edition ?? args.choice('edition', editions)
  if (edition === undefined) args.required('edition')
  if (edition !== 'trial' && args.text('days') === undefined && args.text('until') === undefined) {
    throw usageError('缺少 --days 或 --until', '--days or --until is missing')
  }
  const options: IssueOptions = {
    ...readTerms(tool),
    customer: checkCustomerId(args.required('customer')),
    name: checkName(args.required('name')),
    edition: edition!,
    env: args.choice('env', ['production', 'staging'] as const) ?? 'production',
  }
  return carryOut(tool, ledger, { options, request })
}

async function renew(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const former = findIssued(ledger, tool.args.positionals[0]!)
  if (former.revoked) throw revokedError(former.jti)
  const path = tool.args.text('request')
  const request = path === undefined ? undefined : readRequest(path)
  return carryOut(tool, ledger, { options: continueFrom(tool, former.claims), request, former: former.claims })
}

async function transfer(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const former = findIssued(ledger, tool.args.positionals[0]!)
  if (former.revoked) throw revokedError(former.jti)
  const request = readRequest(tool.args.required('request'))
  readReceipt(tool.args.required('receipt'), former, ledger)
  const options = continueFrom(tool, former.claims)
  const isDated = tool.args.text('days') !== undefined || tool.args.text('until') !== undefined
  // A move does not lengthen the term by itself.
  const kept = isDated ? options : { ...options, until: new Date(former.claims.exp * 1000) }
  return carryOut(tool, ledger, { options: kept, request, former: former.claims, replaces: former })
}

/** [T-15] [T-21] Policy before the passphrase, and once more under the lock, where the number is given. */
async function carryOut(tool: Tool, ledger: Ledger, plan: Plan): Promise<Result> {
  const { options, request, former } = plan
  const chosen = findKey(tool, ledger, options)
  const check = (claims: LicenseClaims) => checkPolicy(claims, options, { ledger, request, now: tool.now, key: chosen })
  const draft = buildClaims(options, request, ledger, tool.now)
  const violations = check(draft)
  const changes = former ? listChanges(former, draft) : []
  if (tool.args.flag('dry-run')) return dryRun(draft, violations, changes)
  assertAllowed(violations)
  if (ledger.isTableChanged) {
    tool.terminal.note('PRODUCT_CHANGED', {
      zh: '产品的功能表在建立台账后有变化，请核对功能与限额。',
      en: "The product's table of features has changed since init: look at features and limits.",
    })
  }
  const output = tool.args.required('output')
  if (output === '-' && tool.terminal.isJson) throw usageError('-o - 不能与 --json 同用', '-o - and --json exclude each other')
  if (output !== '-') assertIsNew(output)
  if (former) {
    for (const change of changes) tool.terminal.note(change.change, formatChange(change))
    await tool.terminal.confirm({ zh: '按以上变化签发？', en: 'Issue with these changes?' })
  }
  // Without a key, policy has passed but there is nothing to sign with: say which key is missing.
  const key = await (chosen ?? chooseKey(tool, ledger, options.env === 'staging' ? 'staging' : 'license')).open()
  return withLock(tool, ledger, async () => {
    const claims = buildClaims(options, request, ledger, tool.now)
    assertAllowed(check(claims))
    importForeignKey(tool, ledger, key)
    const { reason } = options
    const remarks = { ...(reason !== undefined && { reason }), ...(options.waivers.size > 0 && { waivers: [...options.waivers] }) }
    const token = await issueToken({ ledger, claims, key, request, actor: tool.actor, now: tool.now, remarks })
    if (plan.replaces) record(tool, ledger, 'revoke', { jti: plan.replaces.jti, reason: 'superseded' })
    return deliver(tool, claims, key, token, output, changes, plan.replaces)
  })
}

function deliver(
  tool: Tool,
  claims: LicenseClaims,
  key: SigningKey,
  token: string,
  output: string,
  changes: ReturnType<typeof listChanges>,
  replaced: TokenRecord | undefined,
): Result {
  const text = armourToken(token)
  if (output !== '-') writeOrTell(output, text, claims.jti)
  const { jti, sub, seq, nbf, exp, edition, features } = claims
  if (replaced) {
    tool.terminal.note('BUILD_CRL', {
      zh: '旧许可证在下一份吊销列表（crl build）后失效。',
      en: 'The old license ends with the next revocation list (crl build).',
    })
  }
  return {
    json: {
      jti,
      customer: sub,
      seq,
      kid: key.kid,
      edition,
      features,
      notBefore: formatInstant(nbf),
      expiresAt: formatInstant(exp),
      path: output,
      ...(changes.length > 0 && { changes }),
      ...(replaced && { replaced: replaced.jti }),
    },
    lines: [
      { zh: `已签发 ${jti}`, en: `issued ${jti}` },
      {
        zh: `客户 ${sub}，序号 ${seq}，${edition}，${formatDay(nbf)} 至 ${formatDay(exp)}`,
        en: `customer ${sub}, seq ${seq}, ${edition}, ${formatDay(nbf)} to ${formatDay(exp)}`,
      },
      { zh: `机器 ${describeMachine(claims)}`, en: `machine ${describeMachine(claims)}` },
      { zh: `文件 ${output}`, en: `file ${output}` },
    ],
    ...(output === '-' && { raw: text }),
  }
}

/** The license exists once the ledger says so; a full stick must not make anybody issue it again. */
function writeOrTell(path: string, text: string, jti: string): void {
  try {
    writeNewFile(path, text)
  } catch (error) {
    if (error instanceof ToolError && error.code === 'FILE_EXISTS') throw error
    throw new ToolError(
      'FILE_WRITE',
      {
        zh: `许可证 ${jti} 已签发并记入台账，但无法写入 ${path}。请运行 export ${jti} -o 另一文件。`,
        en: `License ${jti} is issued and in the ledger, but ${path} cannot be written. Run export ${jti} -o with another file.`,
      },
      { jti },
    )
  }
}

/** Signs the payload of the ledger again, or finishes what a crash left. */
async function exportToken(tool: Tool): Promise<Result> {
  const ledger = openLedger(tool)
  const found = findIssued(ledger, tool.args.positionals[0]!)
  const output = tool.args.required('output')
  if (output !== '-') assertIsNew(output)
  const token = await signToken(Buffer.from(found.payload!, 'base64url').toString('utf8'), await openIssuingKey(tool, ledger, found))
  const text = armourToken(token)
  if (output !== '-') writeNewFile(output, text)
  return {
    json: { jti: found.jti, path: output },
    lines: [{ zh: `${found.jti} 已写入 ${output}。`, en: `${found.jti} is in ${output}.` }],
    ...(output === '-' && { raw: text }),
  }
}

/** The key that signed a token; a retired one may sign the same payload again. @throws KEY_MISSING */
async function openIssuingKey(tool: Tool, ledger: Ledger, found: TokenRecord): Promise<SigningKey> {
  const purpose = found.claims.env === 'staging' ? 'staging' : 'license'
  const key = await chooseKey(tool, ledger, purpose, tool.args.text('key') ?? found.kid).open()
  if (key.kid === found.kid) return key
  throw new ToolError('KEY_MISSING', { zh: `此许可证由密钥 ${found.kid} 签发。`, en: `This license was signed by key ${found.kid}.` })
}

/** [T-15] `doctor --complete JTI`. */
export async function completeIntent(tool: Tool, ledger: Ledger, jti: string): Promise<Result> {
  const found = findRecord(ledger, jti)
  if (found.state !== 'intent') throw usageError(`${jti} 没有未完成的签发`, `${jti} has no unfinished issue`)
  const key = await openIssuingKey(tool, ledger, found)
  return withLock(tool, ledger, async () => {
    if (ledger.records.tokens.get(jti)?.state === 'intent') {
      await completeToken({ ledger, claims: found.claims, key, request: undefined, actor: tool.actor, now: tool.now })
    }
    return {
      json: { jti, completed: true },
      lines: [{ zh: `已补完 ${jti}，可用 export 写出。`, en: `${jti} is complete; export writes it.` }],
    }
  })
}

function dryRun(claims: LicenseClaims, violations: ReturnType<typeof checkPolicy>, changes: ReturnType<typeof listChanges>): Result {
  return {
    json: { dryRun: true, claims, changes, violations: violations.map(({ code, text }) => ({ code, message: text.en })) },
    lines: [
      JSON.stringify(claims, null, 2),
      ...changes.map(formatChange),
      ...violations.map(({ code, text }) => ({ zh: `${code} ${text.zh}`, en: `${code} ${text.en}` })),
      { zh: '试运行：没有签名，没有写入。', en: 'Dry run: nothing signed, nothing written.' },
    ],
    ...(violations.length > 0 && { exit: 10 }),
  }
}

/** A missing key is said only after the policy has spoken, so that a dry run needs none. */
function findKey(tool: Tool, ledger: Ledger, options: IssueOptions): ChosenKey | undefined {
  try {
    return chooseKey(tool, ledger, options.env === 'staging' ? 'staging' : 'license')
  } catch (error) {
    if (error instanceof ToolError && error.code === 'KEY_MISSING' && tool.args.text('key') === undefined) return undefined
    throw error
  }
}

function readMachine(tool: Tool): LicenseRequest | undefined {
  const path = tool.args.text('request')
  const machine = tool.args.choice('machine', ['any'] as const)
  if ((path === undefined) === (machine === undefined)) {
    throw usageError('须给出 --request 或 --machine any 之一', 'give either --request or --machine any')
  }
  return path === undefined ? undefined : readRequest(path)
}

function revokedError(jti: string): ToolError {
  return new ToolError('TOKEN_REVOKED', { zh: `许可证 ${jti} 已吊销。`, en: `License ${jti} is revoked.` })
}
