// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createPublicKey, verify } from 'node:crypto'
import { canonicalJson, parseStrictJson } from '@iot-pms/core/license'
import { ToolError } from './errors.ts'
import { readInput } from './files.ts'
import type { Ledger } from './ledger.ts'
import type { TokenRecord } from './records.ts'

const domain = 'iot-pms-release-v1\n'

/**
 * Reads the receipt of an installation that has let a license go. It is signed by the instance key that the license is
 * confirmed to; the ledger knows its public part from the request.
 *
 * @throws RECEIPT_INVALID when it is of another license, RECEIPT_SIGNATURE
 */
export function readReceipt(path: string, released: TokenRecord, ledger: Ledger): void {
  const receipt = parseStrictJson(Buffer.from(readInput(path).replace(/^\ufeff/, '')))
  const { sig, ...signed } = receipt ?? {}
  if (receipt?.type !== 'iot-pms-release' || typeof sig !== 'string') {
    throw new ToolError('RECEIPT_INVALID', { zh: `${path} 不是释放回执。`, en: `${path} is not a release receipt.` })
  }
  if (receipt.jti !== released.jti || receipt.seq !== released.claims.seq) {
    throw new ToolError('RECEIPT_INVALID', { zh: '回执属于另一许可证。', en: 'The receipt is of another license.' })
  }
  const jkt = released.claims.cnf?.jkt
  const instanceKey = jkt === undefined ? undefined : ledger.records.instanceKeys.get(jkt)
  if (!instanceKey) {
    throw new ToolError('RECEIPT_SIGNATURE', {
      zh: '台账不知道持有该许可证的实例，无法核验回执。请改用 revoke 与 issue。',
      en: 'The ledger does not know the instance that holds the license, so the receipt proves nothing. Use revoke and issue.',
    })
  }
  const key = createPublicKey({ key: instanceKey, format: 'jwk' })
  if (!verify(null, Buffer.from(domain + canonicalJson(signed)), key, Buffer.from(sig, 'base64url'))) {
    throw new ToolError('RECEIPT_SIGNATURE', {
      zh: '回执不是由持有该许可证的实例签署，或已被改动。',
      en: 'The receipt is not signed by the instance that holds the license, or was changed.',
    })
  }
}
