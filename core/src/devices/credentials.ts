// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { and, eq, sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { deviceCredentials } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import { basicLookup, hmacPassword, tokenLookup } from '../ingest/device-registry.ts'
import { checksumBase62, randomBase62 } from '../secrets.ts'
import type { SealPlace } from '../secrets.ts'
import { certificateLookup, parseCertificate } from './certificates.ts'
import type { Credentials } from './schemas.ts'

/**
 * First path segments of the REST API, so that `/api/v1/{token}/…` can never mean one of them [H-1].
 * A test compares the list with the routes that exist.
 */
export const reservedTokens: ReadonlySet<string> = new Set(
  (
    'alarms alarm-rules api-keys audit auth bin client-errors commands connectors customers dashboards demo device-groups devices editions events exports groups health imports jobs ' +
    'job-queues license map me metrics modules notifications openapi.json ota-packages overview products provision reports retention-rules rules search settings setup site source stream system ' +
    'telemetry tenants users views workers write retail vehicle finance sso cluster analytics billing quotas scaling costs'
  ).split(' '),
)

/** `pmsd_` + 21 random base62 + 6 base62 of CRC-32 over the part before: 32 characters [M-10]. */
export function createToken(): string {
  const start = `pmsd_${randomBase62(21)}`
  return start + checksumBase62(crc32(start), 6)
}

/** Gives a device its credentials in place of all it had; an old token may live on for `graceMs`. */
export async function setCredentials(
  context: Context,
  tx: Tx,
  tenantId: string,
  deviceId: string,
  wanted: Credentials,
  graceMs = 0,
): Promise<void> {
  const old = and(eq(deviceCredentials.deviceId, deviceId), eq(deviceCredentials.isActive, true))
  if (graceMs > 0) {
    await tx
      .update(deviceCredentials)
      .set({ expiresAt: new Date(context.clock.now() + graceMs) })
      .where(old)
  } else await tx.delete(deviceCredentials).where(old)
  await tx.delete(deviceCredentials).where(sql`${deviceCredentials.expiresAt} < now()`)
  const { lookup, password } = checkCredentials(wanted)
  const id = randomUUIDv7()
  // In a savepoint, so that a taken token leaves the transaction usable.
  await tx
    .transaction((inner) =>
      inner.insert(deviceCredentials).values({
        tenantId,
        deviceId,
        id,
        kind: wanted.type,
        lookupSha256: lookup,
        passwordHmac: password === undefined ? null : hmacPassword(context.secrets, deviceId, password),
        sealed: sealCredentials(context.secrets, tenantId, deviceId, wanted),
      }),
    )
    .catch((error: unknown) => {
      throw isUniqueViolation(error) ? new ProblemError('TOKEN_TAKEN', { cause: error }) : error
    })
}

/** Credentials as they are kept, so that entitled users can be shown them again [M-9]. */
export function sealCredentials(secrets: Context['secrets'], tenantId: string, deviceId: string, credentials: Credentials): string {
  return secrets.seal(JSON.stringify(credentials), place(tenantId, deviceId))
}

/** The credentials a device has now, in clear: for entitled users only [SC-7]. */
export async function findCredentials(context: Context, tx: Tx, tenantId: string, deviceId: string): Promise<Credentials | undefined> {
  const rows = await tx
    .select({ sealed: deviceCredentials.sealed, expiresAt: deviceCredentials.expiresAt })
    .from(deviceCredentials)
    .where(and(eq(deviceCredentials.deviceId, deviceId), eq(deviceCredentials.isActive, true)))
  const current = rows.find((row) => row.expiresAt === null)
  if (!current) return undefined
  const credentials = JSON.parse(context.secrets.open(current.sealed, place(tenantId, deviceId))) as Credentials
  const grace = rows.map((row) => row.expiresAt).find((at) => at && at.getTime() > context.clock.now())
  return credentials.type === 'access_token' && grace ? { ...credentials, graceUntil: grace.toISOString() } : credentials
}

/** Credentials of a deleted device are free at once for others, and come back with it when nobody took them. */
export async function setCredentialsActive(tx: Tx, deviceId: string, isActive: boolean): Promise<void> {
  await tx
    .transaction((inner) => inner.update(deviceCredentials).set({ isActive }).where(eq(deviceCredentials.deviceId, deviceId)))
    .catch((error: unknown) => {
      throw isUniqueViolation(error) ? new ProblemError('TOKEN_TAKEN', { cause: error }) : error
    })
}

function checkCredentials(wanted: Credentials): { lookup: Buffer; password: string | undefined } {
  if (wanted.type === 'access_token') {
    if (reservedTokens.has(wanted.token) || wanted.token === 'provision') throw new ProblemError('TOKEN_RESERVED')
    return { lookup: tokenLookup(wanted.token), password: undefined }
  }
  if (wanted.type === 'x509') {
    const certificate = parseCertificate(wanted.pem)
    if (!certificate) {
      throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/pem', detail: 'This is no X.509 certificate as PEM.' }] })
    }
    return { lookup: certificateLookup(certificate.raw), password: undefined }
  }
  if (!wanted.clientId && !wanted.userName) {
    throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/clientId', detail: 'MQTT basic needs a client id or a user name.' }] })
  }
  return { lookup: basicLookup(wanted.clientId ?? '', wanted.userName ?? ''), password: wanted.password || undefined }
}

function place(tenantId: string, deviceId: string): SealPlace {
  return { column: 'device_credentials.sealed', tenantId, rowId: deviceId }
}
