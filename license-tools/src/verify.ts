// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import {
  evaluate,
  factorHash,
  findRevocation,
  matchMachine,
  parseStrictJson,
  thumbprintOf,
  verifyCrl,
  verifyLicense,
} from '@iot-pms/core/license'
import type { LicenseClaims, LicenseKeys, LicenseState, MachineFactor } from '@iot-pms/core/license'
import { createPublicKey } from 'node:crypto'
import { ToolError, exits } from './errors.ts'
import { readInput } from './files.ts'
import { readRequest } from './request-file.ts'

export type Check = { check: 'form' | 'signature' | 'time' | 'machine' | 'crl'; ok: boolean; code?: string; detail?: string }

export type Verdict = {
  checks: Check[]
  state: LicenseState | undefined
  claims: LicenseClaims | undefined
  kid: string | undefined
  exit: number
}

/** Refusals that say what the text is, not who signed it. */
const formCodes = new Set([
  'LIC_SIZE',
  'LIC_MALFORMED',
  'LIC_TYP',
  'LIC_HEADER_FORBIDDEN',
  'LIC_VERSION',
  'LIC_CRIT',
  'LIC_CLAIM_MISSING',
  'LIC_CLAIM_TYPE',
])

/** The product's own checks, in order; the first that fails gives the exit code. */
export async function verifyToken(
  text: string,
  options: { keys: LicenseKeys; env: 'production' | 'staging'; at: Date; crl?: string | undefined; machine?: OwnMachine | undefined },
): Promise<Verdict> {
  const verified = await verifyLicense(text, options)
  if (!verified.ok) {
    const isForm = formCodes.has(verified.code)
    const detail = verified.claim ?? (verified.expected === undefined ? undefined : `${verified.expected} / ${verified.found}`)
    const failed: Check = { check: isForm ? 'form' : 'signature', ok: false, code: verified.code, ...(detail !== undefined && { detail }) }
    const checks: Check[] = isForm ? [failed] : [{ check: 'form', ok: true }, failed]
    return { checks, state: undefined, claims: undefined, kid: undefined, exit: isForm ? exits.input : exits.verification }
  }
  const { claims, kid } = verified
  const now = options.at.getTime()
  const checks: Check[] = [{ check: 'form', ok: true }, { check: 'signature', ok: true, detail: kid }, checkTime(claims, now)]
  const match = options.machine && matchMachine(claims, options.machine(claims))
  if (match) {
    checks.push({
      check: 'machine',
      ok: match.bound,
      detail: `${match.matched}/${match.total}, ${match.min} needed${match.isKeyMatched ? '' : ', another instance key'}`,
    })
  }
  const revocation = options.crl === undefined ? undefined : await checkCrl(options.crl, options.keys, { ...claims, kid })
  if (revocation) checks.push(revocation)
  const isScheduled = now < claims.nbf * 1000
  const state = isScheduled
    ? undefined
    : evaluate({ claims, now, bound: match?.bound ?? true, mismatchSince: undefined, revoked: revocation?.ok === false })
  const exitOf = { form: exits.input, signature: exits.verification, time: exits.time, machine: exits.machine, crl: exits.revoked }
  const failed = checks.find((check) => !check.ok)
  return { checks, state, claims, kid, exit: failed ? exitOf[failed.check] : exits.ok }
}

/** The hashes of a machine under the salt of a token. */
export type OwnMachine = (claims: LicenseClaims) => { factors: MachineFactor[]; jkt: string | undefined }

/** The machine of a request. Its hashes fit only a token made from that same request's salt. */
export function machineOfRequest(path: string): OwnMachine {
  const request = readRequest(path)
  const jkt = thumbprintOf(createPublicKey({ key: request.instanceKey, format: 'jwk' }))
  return ({ machine }) => {
    if (machine.mode !== 'any' && machine.salt !== request.salt) {
      throw new ToolError('TOKEN_MACHINE', {
        zh: '许可证不是由此申请签发的，盐值不同，无法比较。请用 --factors。',
        en: 'The license was not made from this request: their salts differ, so nothing can be compared. Use --factors.',
      })
    }
    return { factors: request.factors, jkt }
  }
}

/** Raw values of a machine: `{"factors":{"install":"…","machine-id":"…"},"jkt":"…"}`. Without `jkt` the instance key is taken as right. */
export function machineOfFactors(path: string): OwnMachine {
  const value = parseStrictJson(Buffer.from(readInput(path).replace(/^\ufeff/, '')))
  const factors = value?.factors
  const isList =
    typeof factors === 'object' &&
    factors !== null &&
    !Array.isArray(factors) &&
    Object.values(factors).every((one) => typeof one === 'string')
  if (!isList) throw new ToolError('REQUEST_INVALID', { zh: `${path} 不是机器因子文件。`, en: `${path} is not a file of factors.` })
  return ({ machine, cnf }) => ({
    factors: machine.mode === 'any' ? [] : Object.entries(factors).map(([k, one]) => ({ k, h: factorHash(machine.salt, k, String(one)) })),
    jkt: typeof value?.jkt === 'string' ? value.jkt : cnf?.jkt,
  })
}

/** @throws CRL_INVALID, CRL_SIGNATURE */
export async function readCrl(path: string, keys: LicenseKeys) {
  const text = readInput(path)
  const verified = await verifyCrl(text, { keys })
  if (verified.ok) return verified.crl
  const isForm = ['CRL_SIZE', 'CRL_MALFORMED', 'CRL_TYP', 'CRL_HEADER_FORBIDDEN', 'CRL_CLAIM'].includes(verified.code)
  throw new ToolError(
    isForm ? 'CRL_INVALID' : 'CRL_SIGNATURE',
    { zh: `吊销列表不被接受（${verified.code}）。`, en: `The revocation list is not accepted (${verified.code}).` },
    { reason: verified.code },
  )
}

function checkTime({ nbf, exp }: LicenseClaims, now: number): Check {
  if (now < nbf * 1000) return { check: 'time', ok: false, code: 'NOT_YET' }
  return now < exp * 1000 ? { check: 'time', ok: true } : { check: 'time', ok: false, code: 'EXPIRED' }
}

async function checkCrl(path: string, keys: LicenseKeys, token: { jti: string; kid: string; crl_seq?: number }): Promise<Check> {
  const crl = await readCrl(path, keys)
  const code = findRevocation(crl, token) ?? ((token.crl_seq ?? 0) > crl.seq ? 'LIC_CRL_REQUIRED' : undefined)
  return { check: 'crl', ok: code === undefined, detail: `seq ${crl.seq}`, ...(code !== undefined && { code }) }
}
