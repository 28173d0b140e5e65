// SPDX-License-Identifier: AGPL-3.0-only
import { X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { makeTestCertificate } from './testing.ts'

describe('a certificate made here', () => {
  it('signs itself and carries host names and addresses', () => {
    const { cert, key } = makeTestCertificate('server', { use: 'server', hosts: ['gateway.local', '10.0.0.7', '2001:db8::1', '::1'] })
    const read = new X509Certificate(cert)
    expect(read.subject).toBe('CN=server')
    expect(read.verify(read.publicKey)).toBe(true)
    expect(read.checkPrivateKey(key)).toBe(true)
    expect(read.ca).toBe(false)
    expect(read.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1'])
    expect(read.checkHost('gateway.local')).toBe('gateway.local')
    for (const address of ['10.0.0.7', '2001:db8::1', '::1']) expect(read.checkIP(address)).toBe(address)
    expect(read.checkHost('other.local')).toBeUndefined()
    expect(read.checkIP('10.0.0.8')).toBeUndefined()
    expect(read.publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: 'prime256v1' })
  })

  it('is signed by an authority, and by no other of the same name', () => {
    const authority = makeTestCertificate('Ünicode CA', { use: 'ca' })
    const other = makeTestCertificate('Ünicode CA', { use: 'ca' })
    const leaf = new X509Certificate(makeTestCertificate('冷库-7', { issuer: authority }).cert)
    expect(new X509Certificate(authority.cert).ca).toBe(true)
    expect(leaf.subject).toBe('CN=冷库-7')
    expect(leaf.checkIssued(new X509Certificate(authority.cert))).toBe(true)
    expect(leaf.verify(new X509Certificate(authority.cert).publicKey)).toBe(true)
    expect(leaf.checkIssued(new X509Certificate(other.cert))).toBe(false)
    expect(leaf.verify(new X509Certificate(other.cert).publicKey)).toBe(false)
  })

  it('is valid exactly in its time, before and after 2050', () => {
    const times = { notBefore: new Date('2049-12-31T23:59:59Z'), notAfter: new Date('2050-01-01T00:00:00Z') }
    const read = new X509Certificate(makeTestCertificate('times', times).cert)
    expect(read.validFromDate).toEqual(times.notBefore)
    expect(read.validToDate).toEqual(times.notAfter)
  })

  it('has a serial number of its own', () => {
    const serials = Array.from({ length: 50 }, () => new X509Certificate(makeTestCertificate('x').cert).serialNumber)
    expect(new Set(serials).size).toBe(50)
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9A-F]{31}$/)
  })
})
