// SPDX-License-Identifier: AGPL-3.0-only
import { generateKeyPairSync } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { makeCertificate } from './make-certificate.ts'
import type { CertificateWish } from './make-certificate.ts'

/** A certificate with its key, as a client or an authority holds it. */
export type TestCertificate = { subject: string; key: KeyObject; cert: string; keyPem: string }

const dayMs = 86_400_000

/** Makes a key and a certificate for it, valid from yesterday until tomorrow. */
export function makeTestCertificate(subject: string, wish: Partial<CertificateWish> = {}): TestCertificate {
  const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const now = Date.now()
  const cert = makeCertificate({
    subject,
    key,
    use: 'client',
    notBefore: new Date(now - dayMs),
    notAfter: new Date(now + dayMs),
    ...wish,
  })
  return { subject, key, cert, keyPem: key.export({ type: 'pkcs8', format: 'pem' }) }
}
