// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, isNull } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Value } from 'typebox/value'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { deviceCredentials } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import { EntityId, entityId } from '../http/compat.ts'
import { Id, Nullable } from '../http/schemas.ts'
import { basicLookup } from '../ingest/device-registry.ts'
import { compatCertificateId, parseCertificate } from './certificates.ts'
import { MqttText, Pem, Token } from './schemas.ts'
import type { Credentials } from './schemas.ts'

export const CompatCredentials = Type.Object({
  id: Type.Object({ id: Id }),
  createdTime: Type.Integer(),
  deviceId: EntityId,
  credentialsType: Type.Union([Type.Literal('ACCESS_TOKEN'), Type.Literal('MQTT_BASIC'), Type.Literal('X509_CERTIFICATE')]),
  credentialsId: Type.String(),
  credentialsValue: Nullable(Type.String()),
  version: Type.Integer(),
})
export type CompatCredentials = Static<typeof CompatCredentials>

/** The JSON text in `credentialsValue` of MQTT_BASIC; absent parts may be null. */
const BasicValue = Type.Object({
  clientId: Type.Optional(Nullable(MqttText)),
  userName: Type.Optional(Nullable(MqttText)),
  password: Type.Optional(Nullable(MqttText)),
})

/**
 * Credentials in ThingsBoard's form. Each change makes a new row here, so its version is always 1.
 */
export async function formatCredentials(
  context: Context,
  scope: Scope,
  deviceId: string,
  credentials: Credentials,
): Promise<CompatCredentials> {
  const [row] = await context.db.withTenant(scope, (tx) =>
    tx
      .select({ id: deviceCredentials.id, createdAt: deviceCredentials.createdAt })
      .from(deviceCredentials)
      .where(and(eq(deviceCredentials.deviceId, deviceId), eq(deviceCredentials.isActive, true), isNull(deviceCredentials.expiresAt))),
  )
  if (!row) throw new ProblemError('NOT_FOUND')
  const common = { id: { id: row.id }, createdTime: row.createdAt.getTime(), deviceId: entityId('DEVICE', deviceId), version: 1 }
  if (credentials.type === 'access_token') {
    return { ...common, credentialsType: 'ACCESS_TOKEN', credentialsId: credentials.token, credentialsValue: null }
  }
  if (credentials.type === 'x509') {
    const certificate = parseCertificate(credentials.pem)
    const credentialsId = certificate ? compatCertificateId(certificate) : ''
    return { ...common, credentialsType: 'X509_CERTIFICATE', credentialsId, credentialsValue: credentials.pem }
  }
  const { clientId, userName, password } = credentials
  return {
    ...common,
    credentialsType: 'MQTT_BASIC',
    credentialsId: basicLookup(clientId ?? '', userName ?? '').toString('hex'),
    credentialsValue: JSON.stringify({ clientId: clientId ?? null, userName: userName ?? null, password: password ?? null }),
  }
}

type Given = { credentialsType: string; credentialsId?: string | null; credentialsValue?: string | null }

/** @throws {ProblemError} `VALIDATION_FAILED`, also for types this server does not have */
export function parseCredentials({ credentialsType, credentialsId, credentialsValue }: Given): Credentials {
  switch (credentialsType) {
    case 'ACCESS_TOKEN':
      if (!Value.Check(Token, credentialsId)) throw invalid('/credentialsId', 'An access token has 1–128 characters of A–Z a–z 0–9 _ . ~ -')
      return { type: 'access_token', token: credentialsId }
    case 'MQTT_BASIC': {
      const value = parseJson(credentialsValue ?? '')
      if (!Value.Check(BasicValue, value)) {
        throw invalid('/credentialsValue', 'credentialsValue must be JSON text of an object with clientId, userName and password.')
      }
      const { clientId, userName, password } = value
      return { type: 'mqtt_basic', ...(clientId ? { clientId } : {}), ...(userName ? { userName } : {}), ...(password ? { password } : {}) }
    }
    case 'X509_CERTIFICATE':
      if (!Value.Check(Pem, credentialsValue) || !parseCertificate(credentialsValue)) {
        throw invalid('/credentialsValue', 'credentialsValue must be an X.509 certificate as PEM.')
      }
      return { type: 'x509', pem: credentialsValue }
    default:
      throw invalid(
        '/credentialsType',
        `credentialsType ${credentialsType.slice(0, 40)} is not supported: ACCESS_TOKEN, MQTT_BASIC or X509_CERTIFICATE.`,
      )
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function invalid(pointer: string, detail: string): ProblemError {
  return new ProblemError('VALIDATION_FAILED', { errors: [{ pointer, detail }] })
}
