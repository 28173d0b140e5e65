// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { canonicalJson, parseStrictJson, shortCode, strengthOf, verifyRequest } from '@iot-pms/core/license'
import type { LicenseRequest } from '@iot-pms/core/license'
import { ToolError } from './errors.ts'
import type { Text } from './errors.ts'
import { readInput } from './files.ts'
import { assertAllowed, violation } from './issue.ts'

const maxBytes = 65_536

/** Reads an activation request. @throws REQUEST_INVALID, REQUEST_SIGNATURE, POLICY for one of another product or a newer version */
export function readRequest(path: string): LicenseRequest {
  const text = readInput(path)
  const request = verifyRequest(text)
  if (request && isComplete(request)) return request
  const raw = Buffer.byteLength(text) <= maxBytes ? parseStrictJson(Buffer.from(text.replace(/^\ufeff/, ''))) : undefined
  if (raw?.type !== 'iot-pms-license-request') {
    throw new ToolError('REQUEST_INVALID', { zh: '这不是完整的申请文件。', en: 'This is not a complete request file.' })
  }
  if (raw.product !== 'iot-pms' || (typeof raw.ver === 'number' && raw.ver > 1)) {
    assertAllowed([violation('POLICY_PRODUCT', '申请来自其他产品或较新的版本', 'the request is of another product or a newer version')])
  }
  if (!request && typeof raw.sig === 'string' && raw.ver === 1) {
    throw new ToolError('REQUEST_SIGNATURE', {
      zh: '申请文件的签名不符，可能被改动或不完整。',
      en: 'The signature of the request does not fit: it was changed or is not complete.',
    })
  }
  throw new ToolError('REQUEST_INVALID', { zh: '申请文件的内容不合规。', en: 'The members of the request are not valid.' })
}

/** What the product's reader leaves open and a token is made from. */
function isComplete(request: LicenseRequest): boolean {
  const isBytes = (value: string) => /^[\w-]{22}$/.test(value)
  const kinds = request.factors.map((factor) => factor.k)
  return (
    ['host', 'instance', 'cluster'].includes(request.mode) &&
    isBytes(request.nonce) &&
    isBytes(request.salt) &&
    !Number.isNaN(Date.parse(request.createdAt)) &&
    new Set(kinds).size === kinds.length &&
    request.factors.every(({ k, h }) => /^[a-z][a-z0-9-]{1,31}$/.test(k) && isBytes(h))
  )
}

/** To be compared over the phone with what the dashboard of the customer shows. */
export function codeOf(request: LicenseRequest): string {
  const { sig: _sig, shortCode: _code, ...signed } = request
  return shortCode(canonicalJson(signed))
}

/** Strength counted from the factors themselves: what the file says of itself is not asked. */
export function describeStrength(request: LicenseRequest): { strength: string; text: Text } {
  const strength = strengthOf(request.factors.map((factor) => factor.k))
  const texts: Record<typeof strength, Text> = {
    strong: { zh: '强：换机须同时仿冒多个因子', en: 'strong: several factors would have to be imitated' },
    normal: { zh: '一般：足以绑定到一台机器', en: 'normal: enough to bind to one machine' },
    weak: { zh: '弱：数据库与域名相同即视为同一实例', en: 'weak: the same database and address count as the same instance' },
    none: { zh: '无：复制数据库即可在别处使用', en: 'none: a copy of the database works elsewhere' },
  }
  return { strength, text: texts[strength] }
}
