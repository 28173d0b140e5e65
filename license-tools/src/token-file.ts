// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { decodeUnverified } from '@iot-pms/core/license'
import { ToolError } from './errors.ts'
import { readInput } from './files.ts'
import type { Ledger } from './ledger.ts'
import type { TokenRecord } from './records.ts'

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/**
 * What the ledger knows about a token, named by its id or by its file. A file only says which one is meant: what
 * counts is the ledger's own record.
 *
 * @throws JTI_UNKNOWN, TOKEN_INVALID
 */
export function findRecord(ledger: Ledger, jtiOrFile: string): TokenRecord {
  const jti = uuid.test(jtiOrFile) ? jtiOrFile : jtiOf(jtiOrFile)
  const found = ledger.records.tokens.get(jti)
  if (found && found.state !== 'refused') return found
  throw new ToolError('JTI_UNKNOWN', { zh: `台账中没有许可证 ${jti}。`, en: `The ledger has no license ${jti}.` })
}

/** @throws JTI_UNKNOWN also when a crash left it unfinished */
export function findIssued(ledger: Ledger, jtiOrFile: string): TokenRecord {
  const found = findRecord(ledger, jtiOrFile)
  if (found.payload !== undefined) return found
  throw new ToolError('JTI_UNKNOWN', { zh: `${found.jti} 没有签发完成，见 doctor。`, en: `${found.jti} was not finished, see doctor.` })
}

function jtiOf(path: string): string {
  const jti = decodeUnverified(readInput(path))?.payload.jti
  if (typeof jti === 'string' && uuid.test(jti)) return jti
  throw new ToolError('TOKEN_INVALID', { zh: `${path} 不是许可证文件。`, en: `${path} is not a license.` })
}
