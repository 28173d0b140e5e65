// SPDX-License-Identifier: AGPL-3.0-only

export type CertificateProblem = 'notPem' | 'privateKey'

/** What is wrong with a pasted certificate; the server reads it closely. */
export function certificateProblem(text: string): CertificateProblem | undefined {
  if (text.includes('PRIVATE KEY')) return 'privateKey'
  return /-----BEGIN CERTIFICATE-----[\s\S]+-----END CERTIFICATE-----/.test(text) ? undefined : 'notPem'
}

/** SHA-256 fingerprints, one a line, with colons or without. */
export function readFingerprints(text: string): string[] {
  const lines = text.split('\n').map((line) => line.replace(/^.*=/, '').replaceAll(/[:\s]/g, '').toLowerCase())
  return [...new Set(lines.filter(Boolean))]
}

export function findWrongFingerprint(fingerprints: readonly string[]): string | undefined {
  return fingerprints.find((one) => !/^[0-9a-f]{64}$/.test(one))
}
