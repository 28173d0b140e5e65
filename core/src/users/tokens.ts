// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { SignJWT, jwtVerify } from 'jose'
import { ProblemError } from '../errors.ts'
import type { Secrets } from '../secrets.ts'

const issuer = 'iot-pms'
const tokenType = 'at+jwt'
/** Clocks of two replicas may differ this much. */
const leewayS = 30
/** Members that the header has; one more is an attack or not ours. */
const headerMembers = 'alg,kid,typ'

/** What an access token says: who, in which login, as of which version of the user. */
export type AccessClaims = { userId: string; sessionId: string; sessionVersion: number; tenantId: string }

/**
 * JWT HS256 of [SC-20]. Equal arguments give an equal token, so that a repeated refresh
 * gets the very pair it missed without storing it.
 */
export async function signAccessToken(
  secrets: Secrets,
  installId: string,
  claims: AccessClaims,
  issuedAt: number,
  lifeS: number,
): Promise<string> {
  const iat = Math.floor(issuedAt / 1000)
  return new SignJWT({ sid: claims.sessionId, sv: claims.sessionVersion, tid: claims.tenantId })
    .setProtectedHeader({ alg: 'HS256', typ: tokenType, kid: secrets.keyId })
    .setIssuer(issuer)
    .setAudience(installId)
    .setSubject(claims.userId)
    .setIssuedAt(iat)
    .setExpirationTime(iat + lifeS)
    .sign(secrets.derive('jwt'))
}

/** @throws {ProblemError} `TOKEN_INVALID` for anything but our own unexpired access token */
export async function verifyAccessToken(secrets: Secrets, installId: string, token: string, now: number): Promise<AccessClaims> {
  try {
    const { payload } = await jwtVerify(
      token,
      (header) => {
        // The key is chosen by our own kid; nothing in the header can bring or name another one.
        if (Object.keys(header).sort().join() !== headerMembers || header.kid !== secrets.keyId || header.typ !== tokenType) {
          throw new Error('foreign header')
        }
        return secrets.derive('jwt')
      },
      {
        algorithms: ['HS256'],
        issuer,
        audience: installId,
        clockTolerance: leewayS,
        currentDate: new Date(now),
        requiredClaims: ['sub', 'sid', 'sv', 'tid', 'iat', 'exp'],
      },
    )
    const { sub, sid, sv, tid, aud } = payload
    if (
      typeof sub !== 'string' ||
      typeof sid !== 'string' ||
      typeof sv !== 'number' ||
      typeof tid !== 'string' ||
      typeof aud !== 'string'
    ) {
      throw new Error('foreign claims')
    }
    return { userId: sub, sessionId: sid, sessionVersion: sv, tenantId: tid }
  } catch (error) {
    throw new ProblemError('TOKEN_INVALID', { cause: error })
  }
}

/** 32 random bytes: refresh tokens, setup and reset links. */
export function createOpaqueToken(): string {
  return randomBytes(32).toString('base64url')
}

/**
 * The refresh token that follows `used`. It is computed, not drawn: a browser that asks twice (two tabs,
 * a lost answer) gets the same successor, of which only the hash is stored [SC-22].
 */
export function nextRefreshToken(secrets: Secrets, used: string): string {
  return secrets.hmac('refresh', 'next', used).toString('base64url')
}
