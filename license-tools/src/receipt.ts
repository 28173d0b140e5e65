// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createPublicKey, verify } from 'node:crypto'
import { canonicalJson, parseStrictJson, thumbprintOf } from '@iot-pms/core/license'
import type { JsonObject } from '@iot-pms/core/license'
import { ToolError } from './errors.ts'
import { readInput } from './files.ts'
import type { TokenRecord } from './records.ts'

const domain = 'iot-pms-release-v1\n'

/**
 * Reads the receipt of an installation that has let a license go: signed by the instance key that the license is
 * confirmed to.
 *
 * @throws RECEIPT_INVALID when it is of another license, RECEIPT_SIGNATURE
 */
export function readReceipt(path: string, released: TokenRecord): void {
  const receipt = parseStrictJson(Buffer.from(readInput(path).replace(/^\ufeff/, '')))
  const { sig, ...signed } = receipt ?? {}
  if (receipt?.type !== 'iot-pms-release' || typeof sig !== 'string') {
    throw new ToolError('RECEIPT_INVALID', { zh: `${path} 不是释放回执。`, en: `${path} is not a release receipt.` })
  }
  if (receipt.jti !== released.jti || receipt.seq !== released.claims.seq) {
    throw new ToolError('RECEIPT_INVALID', { zh: '回执属于另一许可证。', en: 'The receipt is of another license.' })
  }
  if (!isSignedBy(signed, sig, released.claims.cnf?.jkt)) {
    throw new ToolError('RECEIPT_SIGNATURE', {
      zh: '回执的签名不符，或不是由持有该许可证的实例签署。',
      en: 'The receipt is not signed by the instance that holds the license.',
    })
  }
}

function isSignedBy(signed: JsonObject, sig: string, jkt: string | undefined): boolean {
  try {
    const key = createPublicKey({ key: signed.instanceKey as { kty: string }, format: 'jwk' })
    const isExpected = jkt === undefined || thumbprintOf(key) === jkt
    return (
      isExpected &&
      key.asymmetricKeyType === 'ed25519' &&
      verify(null, Buffer.from(domain + canonicalJson(signed)), key, Buffer.from(sig, 'base64url'))
    )
  } catch {
    return false
  }
}
