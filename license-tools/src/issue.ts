// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHash, createPublicKey, randomUUIDv7 } from 'node:crypto'
import { EDITIONS, FEATURES, limitNames, machineModes, matchMachine, strengthOf, thumbprintOf, verifyLicense } from '@iot-pms/core/license'
import type { LicenseClaims, LicenseEdition, LicenseRequest, MachineClaim } from '@iot-pms/core/license'
import { CompactSign } from 'jose'
import { ToolError } from './errors.ts'
import type { Text } from './errors.ts'
import type { KeyStatus, Purpose, SigningKey } from './keystore.ts'
import type { Ledger } from './ledger.ts'

export const editions = ['standard', 'enterprise', 'source', 'saas', 'trial'] as const

/** What the issuer asks for; what is left out follows from the edition. */
export type IssueOptions = {
  customer: string
  name: string
  edition: LicenseEdition
  features?: string[] | undefined
  limits?: Record<string, number> | undefined
  days?: number | undefined
  until?: Date | undefined
  from?: Date | undefined
  grace?: number | undefined
  kind?: 'nfr' | 'dev' | undefined
  crlSeq?: number | undefined
  env: 'production' | 'staging'
  min?: number | undefined
  anchors?: number | undefined
  /** Machine and instance key of an old token, when there is no new request. */
  binding?: Pick<LicenseClaims, 'machine' | 'cnf'> | undefined
  reason?: string | undefined
  /** Guards that the issuer has answered for; each needs the reason. */
  waivers: ReadonlySet<Waiver>
}

export const waivers = ['long-term', 'override', 'accept-weak', 'reissue', 'new-customer'] as const
export type Waiver = (typeof waivers)[number]

export type Violation = { code: string; text: Text }

const daySeconds = 86_400
const defaultGraceDays = 30
const maxTermDays = 400
const maxTrialDays = 90
/** The product refuses more, whatever the reason. */
const productTermDays = 3660
const maxLimit = 1_000_000_000
const maxStandardDevices = 1000
const minReason = 10
const maxRequestAgeMs = 30 * 86_400_000
const maxRequestAheadMs = 86_400_000

/** The claims of a new token. @param request what it answers; undefined for any machine or a renewal */
export function buildClaims(options: IssueOptions, request: LicenseRequest | undefined, ledger: Ledger, now: Date): LicenseClaims {
  const customer = ledger.records.customers.get(options.customer)
  const row = EDITIONS[options.edition]
  const iat = Math.floor(now.getTime() / 1000)
  const nbf = options.from ? Math.floor(options.from.getTime() / 1000) : iat
  const kind = row.kind ?? options.kind ?? 'production'
  const binding = request ? bindTo(request, options) : (options.binding ?? { machine: { mode: 'any' as const } })
  return {
    ver: 1,
    iss: ledger.config.iss as 'iot-pms-license',
    aud: ledger.config.aud as 'iot-pms',
    jti: randomUUIDv7(),
    sub: options.customer,
    seq: (customer?.seq ?? 0) + 1,
    iat,
    nbf,
    exp: options.until ? Math.floor(options.until.getTime() / 1000) : nbf + (options.days ?? row.days ?? 0) * daySeconds,
    kind,
    edition: options.edition,
    env: options.env,
    features: options.features ?? (row.features === 'all' ? Object.keys(FEATURES) : []),
    // The product counts what is missing in its own way: these two are always written [L-60].
    limits: { ...row.limits, overage_pct: row.limits.overage_pct ?? 0, ...options.limits },
    ...binding,
    grace_days: kind === 'trial' ? 0 : (options.grace ?? defaultGraceDays),
    ...(options.crlSeq !== undefined && { crl_seq: options.crlSeq }),
    ...(customer?.last !== undefined && { prev: customer.last }),
    cust: { name: options.name },
  }
}

export type PolicyContext = {
  ledger: Ledger
  request: LicenseRequest | undefined
  now: Date
  key: { kid: string | undefined; purpose: Purpose; status: KeyStatus } | undefined
}

/** Everything the issuer's policy has against these claims, not only the first. */
export function checkPolicy(claims: LicenseClaims, options: IssueOptions, context: PolicyContext): Violation[] {
  const reason = options.reason ?? ''
  const isWaived = (waiver: Waiver) => options.waivers.has(waiver) && reason !== ''
  return [
    ...checkTerm(claims, context.now, isWaived('long-term')),
    ...checkFeatures(claims),
    ...checkLimits(claims, isWaived('override')),
    ...checkBinding(claims, reason, isWaived('accept-weak')),
    ...checkRequest(claims, context, isWaived('reissue')),
    ...checkCustomer(claims, options, context.ledger),
    ...checkKey(claims, context),
  ]
}

function checkTerm({ exp, nbf, kind }: LicenseClaims, now: Date, isLongTerm: boolean): Violation[] {
  const seconds = Math.floor(now.getTime() / 1000)
  const days = (exp - seconds) / daySeconds
  if (exp <= seconds || exp <= nbf) {
    return [violation('POLICY_TERM', '截止时间须在将来且晚于起始时间', 'the license must end in the future and after it begins')]
  }
  if (kind === 'trial' && days > maxTrialDays) return [violation('POLICY_TERM', '试用最长 90 天', 'a trial lasts 90 days at most')]
  if ((exp - nbf) / daySeconds > productTermDays) {
    return [violation('POLICY_TERM', '产品不接受超过 3660 天的期限', 'the product takes no term above 3660 days')]
  }
  if (days > maxTermDays && !isLongTerm) {
    return [violation('POLICY_TERM', '超过 400 天须加 --long-term 与 --reason', 'more than 400 days needs --long-term and --reason')]
  }
  return []
}

function checkFeatures({ edition, features }: LicenseClaims): Violation[] {
  const found: Violation[] = []
  for (const id of features) {
    const feature = FEATURES[id]
    if (!feature || !Object.hasOwn(FEATURES, id)) found.push(violation('POLICY_FEATURE', `没有功能 ${id}`, `there is no feature ${id}`))
    else if (!feature.editions.includes(edition)) {
      found.push(violation('POLICY_FEATURE', `${edition} 不含功能 ${id}`, `${edition} does not include ${id}`))
    }
  }
  if (EDITIONS[edition].features === 'one' && features.length !== 1) {
    found.push(violation('POLICY_FEATURE', '标准版须恰好一个行业功能（--feature）', 'standard needs exactly one vertical (--feature)'))
  }
  return found
}

function checkLimits({ edition, limits }: LicenseClaims, isOverridden: boolean): Violation[] {
  const found: Violation[] = []
  for (const [name, value] of Object.entries(limits)) {
    if (!(limitNames as readonly string[]).includes(name)) {
      found.push(violation('POLICY_LIMIT', `没有限额 ${name}`, `there is no limit ${name}`))
    } else if (value < (name === 'overage_pct' ? 0 : -1) || value > (name === 'overage_pct' ? 100 : maxLimit)) {
      found.push(violation('POLICY_LIMIT', `${name} 超出范围`, `${name} is out of range`))
    }
  }
  const { devices } = limits
  if (devices === undefined) found.push(violation('POLICY_LIMIT', '缺少 devices', 'devices is missing'))
  else if (edition === 'standard' && (devices > maxStandardDevices || devices === -1) && !isOverridden) {
    found.push(
      violation(
        'POLICY_LIMIT',
        '标准版超过 1000 台设备须加 --override 与 --reason',
        'standard above 1000 devices needs --override and --reason',
      ),
    )
  }
  return found
}

function checkBinding({ machine }: LicenseClaims, reason: string, isWeakAccepted: boolean): Violation[] {
  if (machine.mode === 'any') {
    if ([...reason].length >= minReason) return []
    return [
      violation('POLICY_ANY_MACHINE', '不绑定机器须写明至少 10 个字的 --reason', 'any machine needs a --reason of at least 10 characters'),
    ]
  }
  const kinds = machine.factors.map((factor) => factor.k)
  const anchors = kinds.filter((kind) => machineModes[machine.mode].anchors.includes(kind)).length
  if (kinds.length < machine.min || anchors < machine.anchors) {
    return [
      violation(
        'POLICY_BINDING',
        `申请只有 ${kinds.length} 个机器因子（其中锚点 ${anchors} 个），需要 ${machine.min} 个（锚点 ${machine.anchors} 个）`,
        `the request has ${kinds.length} factors (${anchors} anchors), ${machine.min} (${machine.anchors}) are needed`,
      ),
    ]
  }
  const strength = strengthOf(kinds)
  if (strength === 'strong' || strength === 'normal' || isWeakAccepted) return []
  return [
    violation(
      'POLICY_BINDING',
      '绑定强度弱，须加 --accept-weak 与 --reason',
      `the binding is ${strength}: it needs --accept-weak and --reason`,
    ),
  ]
}

function checkRequest(claims: LicenseClaims, { request, ledger, now }: PolicyContext, isReissue: boolean): Violation[] {
  if (!request) return []
  const found: Violation[] = []
  const used = ledger.records.nonces.get(request.nonce)
  if (used && !(isReissue && used.claims.sub === claims.sub)) {
    found.push(
      used.claims.sub === claims.sub
        ? violation(
            'POLICY_NONCE',
            '此申请已签发过，重发须加 --reissue 与 --reason',
            'this request was answered before; another answer needs --reissue and --reason',
          )
        : violation('POLICY_NONCE', '此申请已用于另一客户', 'this request was answered for another customer'),
    )
  }
  const ageMs = now.getTime() - Date.parse(request.createdAt)
  if (!(ageMs <= maxRequestAgeMs && ageMs >= -maxRequestAheadMs)) {
    found.push(
      violation(
        'POLICY_REQUEST_AGE',
        '申请早于 30 天或晚于现在 24 小时以上',
        'the request is older than 30 days or more than 24 h in the future',
      ),
    )
  }
  return found
}

function checkCustomer({ sub, cust }: LicenseClaims, { waivers: given }: IssueOptions, ledger: Ledger): Violation[] {
  const { customers } = ledger.records
  if (customers.has(sub) || given.has('new-customer')) return []
  const same = [...customers.values()].find((other) => other.name === cust?.name)
  if (!same) return []
  return [
    violation(
      'POLICY_CUSTOMER',
      `同名客户已有编号 ${same.sub}；确为新客户请加 --new-customer`,
      `a customer of this name is ${same.sub}; --new-customer says that this is another`,
    ),
  ]
}

function checkKey({ env, kind }: LicenseClaims, { key, ledger }: PolicyContext): Violation[] {
  const found: Violation[] = []
  const purpose: Purpose = env === 'staging' ? 'staging' : 'license'
  if (key && key.purpose !== purpose) {
    found.push(
      violation(
        'POLICY_KEY',
        `密钥 ${key.kid ?? ''} 的用途是 ${key.purpose}，不是 ${purpose}`,
        `key ${key.kid ?? ''} is for ${key.purpose}, not for ${purpose}`,
      ),
    )
  }
  if (key && key.status !== 'active') {
    found.push(
      violation(
        'POLICY_KEY',
        `密钥 ${key.kid ?? ''} 已${key.status === 'retired' ? '停用' : '吊销'}`,
        `key ${key.kid ?? ''} is ${key.status}`,
      ),
    )
  }
  if (ledger.config.test && env !== 'staging' && kind !== 'dev') {
    found.push(
      violation('POLICY_ENV', '测试台账只能签发 --env staging 或 --kind dev', 'a test ledger issues only --env staging or --kind dev'),
    )
  }
  return found
}

/** @throws POLICY with all violations */
export function assertAllowed(violations: readonly Violation[]): void {
  if (violations.length === 0) return
  throw new ToolError(
    'POLICY',
    {
      zh: `策略不允许：${violations.map(({ code, text }) => `${text.zh}（${code}）`).join('；')}。`,
      en: `Refused by policy: ${violations.map(({ code, text }) => `${text.en} (${code})`).join('; ')}.`,
    },
    { violations: violations.map(({ code, text }) => ({ code, message: text.en })) },
  )
}

/** [L-30] Binding as the table of the product's modes says, unless the issuer sets other numbers. */
function bindTo(request: LicenseRequest, options: IssueOptions): Pick<LicenseClaims, 'machine' | 'cnf'> {
  const { mode, salt, factors } = request
  const usualMin = mode === 'host' && factors.length >= 4 ? 3 : 2
  const machine: MachineClaim = {
    mode,
    salt,
    min: options.min ?? usualMin,
    anchors: options.anchors ?? (mode === 'host' ? 1 : 0),
    factors: factors.map(({ k, h }) => ({ k, h })),
  }
  return { machine, cnf: { jkt: thumbprintOf(createPublicKey({ key: request.instanceKey, format: 'jwk' })) } }
}

export function violation(code: string, zh: string, en: string): Violation {
  return { code, text: { zh, en } }
}

/** Signs a text of claims; the same text and key always give the same token, as RS256 adds no chance. */
export async function signToken(payload: string, key: SigningKey): Promise<string> {
  return new CompactSign(Buffer.from(payload))
    .setProtectedHeader({ alg: 'RS256', typ: 'iot-pms-license+jwt', kid: key.kid })
    .sign(key.privateKey)
}

export type IssueJob = {
  ledger: Ledger
  claims: LicenseClaims
  key: SigningKey
  request: LicenseRequest | undefined
  actor: string
  now: Date
  /** Why and by which waivers, and where from: kept with the intent. */
  remarks?: Record<string, unknown>
}

/**
 * [T-15] [T-20] Intent, signature, check by the product's own verifier, done: a crash between any two of them
 * loses nothing. Needs the ledger's lock.
 *
 * @throws TOKEN_REFUSED when the product would not take the token
 */
export async function issueToken(job: IssueJob): Promise<string> {
  const { ledger, claims, key, request, actor, now } = job
  ledger.append(
    'issue.intent',
    { claims, kid: key.kid, ...(request && { nonce: request.nonce, instance_key: request.instanceKey }), ...job.remarks },
    actor,
    now,
  )
  return completeToken(job)
}

/** The second half of an issue, also for an intent that a crash left behind. */
export async function completeToken({ ledger, claims, key, request, actor, now }: IssueJob): Promise<string> {
  const payload = JSON.stringify(claims)
  const token = await signToken(payload, key)
  const fault = await findFault(token, claims, key, request)
  if (fault !== undefined) {
    ledger.append('issue.refused', { jti: claims.jti, code: fault }, actor, now)
    throw new ToolError(
      'TOKEN_REFUSED',
      { zh: `产品的校验器不接受此许可证（${fault}）。`, en: `The product would refuse this license (${fault}).` },
      { reason: fault },
    )
  }
  const nonce = ledger.records.tokens.get(claims.jti)?.nonce
  const body = {
    jti: claims.jti,
    sha256: createHash('sha256').update(token).digest('hex'),
    payload: Buffer.from(payload).toString('base64url'),
    ...(nonce !== undefined && { nonce }),
  }
  ledger.append('issue.done', body, actor, now)
  return token
}

async function findFault(
  token: string,
  claims: LicenseClaims,
  key: SigningKey,
  request: LicenseRequest | undefined,
): Promise<string | undefined> {
  const keys = new Map([[key.kid, { kid: key.kid, purpose: key.purpose, key: key.publicKey }]])
  const verified = await verifyLicense(token, { keys, env: claims.env })
  if (!verified.ok) return verified.claim === undefined ? verified.code : `${verified.code} ${verified.claim}`
  if (!request) return undefined
  const jkt = thumbprintOf(createPublicKey({ key: request.instanceKey, format: 'jwk' }))
  return matchMachine(verified.claims, { factors: request.factors, jkt }).bound ? undefined : 'MACHINE'
}
