// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { EDITIONS, FEATURES, decodeUnverified, normaliseToken, verifyLicense } from '@iot-pms/core/license'
import type { JsonObject } from '@iot-pms/core/license'
import { usageError } from '../arguments.ts'
import { formatChange, listChanges } from '../changes.ts'
import { ToolError } from '../errors.ts'
import type { Text } from '../errors.ts'
import { readInput } from '../files.ts'
import { Ledger } from '../ledger.ts'
import { listPublicKeys } from '../signer.ts'
import type { Result } from '../terminal.ts'
import { findIssued } from '../token-file.ts'
import { formatInstant, formatTable, openLedger } from '../tool.ts'
import type { Command, Tool } from '../tool.ts'
import { machineOfFactors, machineOfRequest, verifyToken } from '../verify.ts'

export const tokenCommands: Record<string, Command> = {
  inspect: {
    usage: 'inspect FILE|-',
    about: { zh: '解码许可证并显示内容，不作信任判断', en: 'decodes a license and shows it, without trusting it' },
    positionals: { least: 1, most: 1 },
    run: (tool) => inspect(tool),
  },
  verify: {
    usage: 'verify FILE|- [--key FILE …] [--crl FILE] [--request FILE|--factors FILE] [--at ISO] [--env staging]',
    about: { zh: '按产品的规则逐项校验许可证', en: "runs the product's checks on a license" },
    options: { key: 'list', crl: 'text', request: 'text', factors: 'text', at: 'text', env: 'text' },
    positionals: { least: 1, most: 1 },
    run: (tool) => verify(tool),
  },
  diff: {
    usage: 'diff A B',
    about: { zh: '比较两张许可证（编号或文件）', en: 'compares two licenses, named by id or file' },
    positionals: { least: 2, most: 2 },
    run: (tool) => diff(tool),
  },
  'product list': {
    usage: 'product list',
    about: { zh: '列出版本与功能', en: 'lists editions and features' },
    run: () => listProduct(),
  },
  'product show': {
    usage: 'product show EDITION|FEATURE',
    about: { zh: '显示一个版本或功能', en: 'shows an edition or a feature' },
    positionals: { least: 1, most: 1 },
    run: (tool) => showProduct(tool.args.positionals[0]!),
  },
}

async function inspect(tool: Tool): Promise<Result> {
  const text = readInput(tool.args.positionals[0]!)
  const decoded = decodeUnverified(text)
  if (!decoded) {
    throw new ToolError('TOKEN_INVALID', {
      zh: '无法解码，这不是完整的许可证。',
      en: 'This cannot be decoded: it is not a complete license.',
    })
  }
  const ledger = Ledger.isThere(tool.folder) ? openLedger(tool) : undefined
  const { header, payload } = decoded
  const verified =
    ledger && (await verifyLicense(text, { keys: listPublicKeys(ledger), env: payload.env === 'staging' ? 'staging' : 'production' }))
  const warnings = verified?.ok ? verified.warnings : []
  const known = ledger && typeof payload.jti === 'string' ? ledger.records.tokens.get(payload.jti) : undefined
  const first: Text = verified?.ok
    ? { zh: `已由台账密钥 ${verified.kid} 校验`, en: `verified by key ${verified.kid} of the ledger` }
    : { zh: 'UNVERIFIED 未验证', en: 'UNVERIFIED 未验证' }
  return {
    json: {
      verified: verified?.ok === true,
      header,
      claims: payload,
      warnings,
      revoked: known?.revoked ?? null,
      characters: normaliseToken(text).length,
    },
    lines: [
      first,
      ...describe(header),
      '',
      ...describe(payload),
      ...warnings.map(({ code, value }) => `${code} ${value}`),
      ...(known?.revoked
        ? [
            {
              zh: `台账：已于 ${known.revoked.at} 吊销（${known.revoked.reason}）`,
              en: `ledger: revoked ${known.revoked.at} (${known.revoked.reason})`,
            },
          ]
        : []),
    ],
  }
}

/** Dates in UTC and local time; control characters of a foreign file must not reach the terminal. */
function describe(members: JsonObject): string[] {
  return Object.entries(members).map(([name, value]) => {
    const isTime =
      ['iat', 'nbf', 'exp', 'updates_until'].includes(name) && typeof value === 'number' && value > 0 && value < 253_402_300_800
    const shown = isTime
      ? `${value}  ${formatInstant(value)}  ${new Date(value * 1000).toLocaleString('sv-SE', { timeZoneName: 'short' })}`
      : JSON.stringify(value)
    return `${makeVisible(name).padEnd(12)} ${makeVisible(shown)}`
  })
}

function makeVisible(text: string): string {
  return text.replace(/[\p{Cc}\p{Bidi_Control}]/gu, (char) => `\\u${char.codePointAt(0)!.toString(16).padStart(4, '0')}`)
}

async function verify(tool: Tool): Promise<Result> {
  const { args } = tool
  const at = args.date('at') ?? tool.now
  const env = args.choice('env', ['production', 'staging'] as const) ?? 'production'
  const ledger = Ledger.isThere(tool.folder) ? openLedger(tool) : undefined
  const [request, factors] = [args.text('request'), args.text('factors')]
  if (request !== undefined && factors !== undefined) {
    throw usageError('--request 与 --factors 只能给一个', 'give --request or --factors, not both')
  }
  if (!ledger && args.list('key').length === 0) {
    throw new ToolError('KEY_MISSING', { zh: '没有台账，须用 --key 给出公钥。', en: 'There is no ledger: give a public key with --key.' })
  }
  const text = readInput(args.positionals[0]!)
  const keys = listPublicKeys(ledger, args.list('key'))
  const machine = request === undefined ? (factors === undefined ? undefined : machineOfFactors(factors)) : machineOfRequest(request)
  const verdict = await verifyToken(text, {
    keys,
    env,
    at,
    crl: args.text('crl'),
    machine,
  })
  const { checks, state, claims, exit } = verdict
  const revoked = claims && ledger?.records.tokens.get(claims.jti)?.revoked
  if (revoked) {
    tool.terminal.note('REVOKED_IN_LEDGER', {
      zh: `台账中已吊销（${revoked.reason}）；产品在装入新的吊销列表后才知道。`,
      en: `The ledger has revoked it (${revoked.reason}); a product knows once it has the new list.`,
    })
  }
  const failed = checks.find((check) => !check.ok)
  return {
    json: {
      state: state ?? null,
      checks,
      ...(claims && { jti: claims.jti, customer: claims.sub, expiresAt: formatInstant(claims.exp) }),
      ...(failed && { code: failed.code ?? (failed.check === 'machine' ? 'TOKEN_MACHINE' : 'TOKEN_REFUSED') }),
    },
    lines: [
      ...checks.map(({ check, ok, code, detail }) =>
        `${ok ? 'ok  ' : 'FAIL'} ${check.padEnd(10)} ${[code, detail].filter((one) => one !== undefined).join(' ')}`.trimEnd(),
      ),
      { zh: `状态 ${state ?? '—'}`, en: `state ${state ?? '—'}` },
    ],
    exit,
  }
}

function diff(tool: Tool): Result {
  const [from, to] = tool.args.positionals.map((one) => claimsOf(tool, one))
  const changes = listChanges(from!, to!)
  return { json: { changes }, lines: changes.length === 0 ? [{ zh: '没有差别。', en: 'No difference.' }] : changes.map(formatChange) }
}

/** [L-72] needs claims that are what they seem: of the ledger, or of a file that one of its keys has signed. */
function claimsOf(tool: Tool, jtiOrFile: string) {
  return findIssued(openLedger(tool), jtiOrFile).claims
}

function listProduct(): Result {
  const rows = [
    ...Object.entries(EDITIONS).map(([id, { title }]) => ['edition', id, title.zh, title.en]),
    ...Object.entries(FEATURES).map(([id, { title }]) => ['feature', id, title.zh, title.en]),
  ]
  return { json: { editions: Object.keys(EDITIONS), features: Object.keys(FEATURES) }, lines: formatTable(rows) }
}

function showProduct(id: string): Result {
  const feature = Object.hasOwn(FEATURES, id) ? FEATURES[id] : undefined
  if (feature) {
    const { title, editions, onExpire, message } = feature
    return {
      json: { feature: id, title, editions, onExpire },
      lines: [`${id}  ${title.zh} / ${title.en}`, `editions  ${editions.join(' ')}`, `onExpire  ${onExpire}`, message],
    }
  }
  const edition = Object.hasOwn(EDITIONS, id) ? EDITIONS[id as keyof typeof EDITIONS] : undefined
  if (!edition) throw usageError(`没有版本或功能 ${id}`, `there is no edition or feature ${id}`)
  const features = edition.features === 'all' ? Object.keys(FEATURES) : []
  const { title, limits, days } = edition
  return {
    json: { edition: id, title, features, oneVertical: edition.features === 'one', limits, ...(days !== undefined && { days }) },
    lines: [
      `${id}  ${title.zh} / ${title.en}`,
      edition.features === 'one'
        ? { zh: '功能：恰好一个行业功能', en: 'features: exactly one vertical' }
        : `features  ${features.join(' ')}`,
      `limits    ${Object.entries(limits)
        .map(([name, value]) => `${name}=${value}`)
        .join(' ')}`,
    ],
  }
}
