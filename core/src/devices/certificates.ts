// SPDX-License-Identifier: AGPL-3.0-only
import { X509Certificate, createHash } from 'node:crypto'

const clientAuth = '1.3.6.1.5.5.7.3.2'
const anyUsage = '2.5.29.37.0'
const armour = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----/

/** Reads the first certificate of PEM text, or base64 text of its DER; undefined when there is none. */
export function parseCertificate(text: string): X509Certificate | undefined {
  const body = text.includes('-----') ? armour.exec(text)?.[1] : text
  if (!body || !/^[A-Za-z0-9+/=\s]+$/.test(body)) return undefined
  try {
    return new X509Certificate(Buffer.from(body, 'base64'))
  } catch {
    return undefined
  }
}

/** The key a certificate is found by: SHA-256 of its DER. */
export function certificateLookup(der: Buffer): Buffer {
  return createHash('sha256').update(der).digest()
}

/** `credentialsId` of ThingsBoard's clients: hex SHA3-256 of the base64 body without line breaks. */
export function compatCertificateId(certificate: X509Certificate): string {
  return createHash('sha3-256').update(certificate.raw.toString('base64')).digest('hex')
}

/** Why a client certificate is not good now, whoever it belongs to; undefined when it is. */
export function certificateProblem(certificate: X509Certificate, now: number): 'expired' | 'not_yet_valid' | 'wrong_usage' | undefined {
  const date = dateProblem(certificate, now)
  if (date !== undefined) return date
  // What Node calls keyUsage is the extended one.
  const usages = certificate.keyUsage as readonly string[] | undefined
  if (usages === undefined || usages.includes(clientAuth) || usages.includes(anyUsage)) return undefined
  return 'wrong_usage'
}

/** There is no grace: a certificate that expired a minute ago has expired. */
export function dateProblem(certificate: X509Certificate, now: number): 'expired' | 'not_yet_valid' | undefined {
  if (now > certificate.validToDate.getTime()) return 'expired'
  return now < certificate.validFromDate.getTime() ? 'not_yet_valid' : undefined
}
