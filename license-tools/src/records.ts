// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { LicenseClaims, LicenseRequest } from '@iot-pms/core/license'
import type { KeyStatus, Purpose } from './keystore.ts'
import type { Entry } from './ledger.ts'

/** What the chain says about one token. */
export type TokenRecord = {
  jti: string
  claims: LicenseClaims
  kid: string
  n: number
  at: string
  /** `intent`: begun, perhaps interrupted. `refused`: the product's own verifier would not take it. */
  state: 'intent' | 'done' | 'refused' | 'imported'
  /** The text that was signed, once it was. */
  payload: string | undefined
  sha256: string | undefined
  nonce: string | undefined
  externalId: string | undefined
  /** Says that two rows of a bulk file with one external id are the same row. */
  rowHash: string | undefined
  revoked: { at: string; reason: string; note: string | undefined; n: number } | undefined
}

export type KeyRecord = { kid: string; purpose: Purpose; bits: number; status: KeyStatus; statusAt: string; public: string | undefined }

export type CustomerRecord = { sub: string; name: string; seq: number; last: string | undefined }

type InstanceKey = LicenseRequest['instanceKey']

/** What follows from all entries, kept up to date as they are appended. */
export type Records = {
  tokens: Map<string, TokenRecord>
  keys: Map<string, KeyRecord>
  customers: Map<string, CustomerRecord>
  /** Nonce of a request → what it was answered with. */
  nonces: Map<string, TokenRecord>
  externalIds: Map<string, TokenRecord>
  /** Thumbprint of an instance key → the key, from the requests that were answered. */
  instanceKeys: Map<string, InstanceKey>
  crl: { seq: number; n: number; at: string }
}

export function createRecords(): Records {
  return {
    tokens: new Map(),
    keys: new Map(),
    customers: new Map(),
    nonces: new Map(),
    externalIds: new Map(),
    instanceKeys: new Map(),
    crl: { seq: 0, n: 0, at: '' },
  }
}

/** Members of bodies; each act has some of them. */
type Body = { kid: string; jti: string; status: KeyStatus; payload: string; sha256: string; reason: string; note?: string; seq: number }

/** One entry's effect. The chain vouches for the form of bodies: this tool wrote them. */
export function applyEntry(records: Records, entry: Entry): void {
  const body = entry.body as Body
  switch (entry.act) {
    case 'key.create':
    case 'key.import':
      records.keys.set(body.kid, { ...pickKey(entry), status: 'active', statusAt: entry.ts })
      break
    case 'key.status': {
      const key = records.keys.get(body.kid)
      if (key) Object.assign(key, { status: body.status, statusAt: entry.ts })
      break
    }
    case 'issue.intent':
      addToken(records, entry, 'intent')
      break
    case 'import':
      addToken(records, entry, 'imported')
      break
    case 'issue.done': {
      const token = records.tokens.get(body.jti)
      if (!token) break
      Object.assign(token, { state: 'done', payload: body.payload, sha256: body.sha256 })
      records.customers.get(token.claims.sub)!.last = token.jti
      break
    }
    case 'issue.refused': {
      const token = records.tokens.get(body.jti)
      if (!token) break
      token.state = 'refused'
      if (token.externalId !== undefined) records.externalIds.delete(token.externalId)
      if (token.nonce !== undefined) records.nonces.delete(token.nonce)
      break
    }
    case 'revoke': {
      const token = records.tokens.get(body.jti)
      if (token) token.revoked = { at: entry.ts, reason: body.reason, note: body.note, n: entry.n }
      break
    }
    case 'unrevoke': {
      const token = records.tokens.get(body.jti)
      if (token) token.revoked = undefined
      break
    }
    case 'crl':
      records.crl = { seq: body.seq, n: entry.n, at: entry.ts }
      break
    case 'init':
    case 'key.export_public':
    case 'key.passphrase':
    case 'anchor':
      break
  }
}

function addToken(records: Records, entry: Entry, state: 'intent' | 'imported'): void {
  const body = entry.body as {
    claims: LicenseClaims
    kid: string
    nonce?: string
    instance_key?: InstanceKey
    external_id?: string
    row?: string
    payload?: string
    sha256?: string
  }
  const { claims, kid, nonce } = body
  const token: TokenRecord = {
    jti: claims.jti,
    claims,
    kid,
    n: entry.n,
    at: entry.ts,
    state,
    payload: body.payload,
    sha256: body.sha256,
    nonce,
    externalId: body.external_id,
    rowHash: body.row,
    revoked: undefined,
  }
  records.tokens.set(claims.jti, token)
  if (token.externalId !== undefined) records.externalIds.set(token.externalId, token)
  if (nonce !== undefined) records.nonces.set(nonce, token)
  if (body.instance_key && claims.cnf) records.instanceKeys.set(claims.cnf.jkt, body.instance_key)
  const before = records.customers.get(claims.sub)
  records.customers.set(claims.sub, {
    sub: claims.sub,
    name: claims.cust?.name ?? before?.name ?? '',
    // Also of tokens that were never finished: a number is given once [T-21].
    seq: Math.max(before?.seq ?? 0, claims.seq),
    last: state === 'imported' ? claims.jti : before?.last,
  })
}

function pickKey(entry: Entry): Pick<KeyRecord, 'kid' | 'purpose' | 'bits' | 'public'> {
  const body = entry.body as { kid: string; purpose: Purpose; bits: number; public?: string }
  return { kid: body.kid, purpose: body.purpose, bits: body.bits, public: body.public }
}
