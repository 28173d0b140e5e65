// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { certificateProblem, findWrongFingerprint, readFingerprints } from './chain.ts'

describe('provisioning by certificates', () => {
  it('takes a certificate, and neither a key nor anything else', () => {
    const pem = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n'
    expect(certificateProblem(pem)).toBeUndefined()
    expect(certificateProblem(`${['-----BEGIN', 'PRIVATE KEY-----'].join(' ')}\n${pem}`)).toBe('privateKey')
    expect(certificateProblem('MIIB')).toBe('notPem')
    expect(certificateProblem('')).toBe('notPem')
  })

  it('reads fingerprints as tools print them', () => {
    const hex = 'ab'.repeat(32)
    const colons = hex.toUpperCase().match(/../g)!.join(':')
    expect(readFingerprints(`\n sha256 Fingerprint=${colons}\n${hex}\n`)).toEqual([hex])
    expect(findWrongFingerprint([hex])).toBeUndefined()
    expect(findWrongFingerprint([hex, 'ab'])).toBe('ab')
  })
})
