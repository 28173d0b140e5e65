// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, createPublicKey, randomBytes, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { isIP } from 'node:net'
import { bitString, boolean, explicit, implicit, integer, octetString, oid, sequence, set, time, utf8String } from './der.ts'

/** What a certificate may be used for (RFC 5280 §4.2.1.3, §4.2.1.12). */
export type CertificateUse = 'server' | 'client' | 'ca'

export type CertificateWish = {
  /** Common name. */
  subject: string
  /** P-256 key pair of the subject. */
  key: KeyObject
  use: CertificateUse
  notBefore: Date
  notAfter: Date
  /** Host names and addresses a server is reached by. */
  hosts?: readonly string[]
  /** Who signs; without it the certificate signs itself. */
  issuer?: { subject: string; key: KeyObject }
}

const ecdsaWithSha256 = sequence(oid('1.2.840.10045.4.3.2'))
const commonName = oid('2.5.4.3')
const usages = { server: oid('1.3.6.1.5.5.7.3.1'), client: oid('1.3.6.1.5.5.7.3.2') }
const extensions = {
  subjectKeyId: oid('2.5.29.14'),
  keyUsage: oid('2.5.29.15'),
  hosts: oid('2.5.29.17'),
  constraints: oid('2.5.29.19'),
  issuerKeyId: oid('2.5.29.35'),
  extendedUsage: oid('2.5.29.37'),
}
const serialBytes = 16

/** Makes an X.509 certificate with a P-256 key (RFC 5280); @returns it as PEM. */
export function makeCertificate(wish: CertificateWish): string {
  const { subject, key, issuer = { subject, key }, notBefore, notAfter } = wish
  const serial = randomBytes(serialBytes)
  // Positive, and of full length: neither the sign bit nor a leading zero.
  serial[0] = (serial[0]! & 0x3f) | 0x40
  const contents = sequence(
    explicit(0, integer(Buffer.from([2]))), // version 3
    integer(serial),
    ecdsaWithSha256,
    name(issuer.subject),
    sequence(time(notBefore), time(notAfter)),
    name(subject),
    publicKeyOf(key),
    explicit(3, sequence(...listExtensions(wish, issuer.key))),
  )
  const der = sequence(contents, ecdsaWithSha256, bitString(sign('sha256', contents, issuer.key)))
  const lines = der.toString('base64').match(/.{1,64}/g)!
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

function listExtensions({ use, key, hosts = [] }: CertificateWish, issuerKey: KeyObject): Buffer[] {
  const isCa = use === 'ca'
  // keyCertSign and cRLSign, or digitalSignature.
  const keyUsage = isCa ? bitString(Buffer.from([0x06]), 1) : bitString(Buffer.from([0x80]), 7)
  return [
    extension(extensions.constraints, sequence(...(isCa ? [boolean(true)] : [])), true),
    extension(extensions.keyUsage, keyUsage, true),
    ...(isCa ? [] : [extension(extensions.extendedUsage, sequence(usages[use]))]),
    ...(hosts.length > 0 ? [extension(extensions.hosts, sequence(...hosts.map(alternativeName)))] : []),
    extension(extensions.subjectKeyId, octetString(keyId(key))),
    extension(extensions.issuerKeyId, sequence(implicit(0, keyId(issuerKey)))),
  ]
}

function extension(id: Buffer, value: Buffer, isCritical = false): Buffer {
  return sequence(id, ...(isCritical ? [boolean(true)] : []), octetString(value))
}

function name(text: string): Buffer {
  return sequence(set(sequence(commonName, utf8String(text))))
}

/** dNSName [2] or iPAddress [7] (RFC 5280 §4.2.1.6). */
function alternativeName(host: string): Buffer {
  return isIP(host) === 0 ? implicit(2, Buffer.from(host)) : implicit(7, addressBytes(host))
}

function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number))
  // `::` stands for as many zero groups as are missing of eight.
  const [head = [], tail = []] = address.split('::').map((part) => part.split(':').filter(Boolean))
  const groups = [...head, ...Array.from({ length: 8 - head.length - tail.length }, () => '0'), ...tail]
  return Buffer.from(groups.map((group) => group.padStart(4, '0')).join(''), 'hex')
}

function publicKeyOf(key: KeyObject): Buffer {
  return createPublicKey(key).export({ type: 'spki', format: 'der' })
}

/** Tells keys apart; any digest of the key does (RFC 5280 §4.2.1.2). */
function keyId(key: KeyObject): Buffer {
  return createHash('sha256').update(publicKeyOf(key)).digest().subarray(0, 20)
}
