// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { str } from '../channel-type.ts'
import type { ChannelConfig, HttpChannelType } from '../channel-type.ts'
import { byStatus, disabled, gone, jsonOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { At, Outcome, Reply } from '../outcome.ts'
import { cutParam, encode3986, hmac, sha256Hex } from './sms.ts'

export type Acs3Call = { method: string; path: string; query: Record<string, string>; headers: Record<string, string>; body: string }

/** ACS3-HMAC-SHA256: `host` and all `x-acs-*` headers are signed. @returns hex signature and the list of what it covers */
export function signAcs3(call: Acs3Call, secret: string): { signature: string; signedHeaders: string } {
  const headers: Record<string, string> = { ...call.headers, 'x-acs-content-sha256': sha256Hex(call.body) }
  const names = Object.keys(headers)
    .filter((name) => name === 'host' || name.startsWith('x-acs-'))
    .sort()
  const canonical = [
    call.method,
    call.path,
    formatQuery(call.query),
    names.map((name) => `${name}:${headers[name]!.trim()}\n`).join(''),
    names.join(';'),
    sha256Hex(call.body),
  ].join('\n')
  return { signature: hmac(secret, `ACS3-HMAC-SHA256\n${sha256Hex(canonical)}`).toString('hex'), signedHeaders: names.join(';') }
}

function formatQuery(query: Record<string, string>): string {
  return Object.entries(query)
    .map(([name, value]) => [encode3986(name), encode3986(value)] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}=${value}`)
    .join('&')
}

const minuteMs = 60_000
const rejectedCodes = /^isv\.(TEMPLATE_MISSING_PARAMETERS|INVALID_PARAMETERS|PARAM_LENGTH_LIMIT|BLACK_KEY_CONTROL_LIMIT)$/
const disabledCodes =
  /^(isv\.(SMS_SIGNATURE_ILLEGAL|SMS_TEMPLATE_ILLEGAL|AMOUNT_NOT_ENOUGH|OUT_OF_SERVICE|ACCOUNT_\w+)|isp\.RAM_PERMISSION_DENY|InvalidAccessKeyId\..*|SignatureDoesNotMatch|Forbidden.*|InvalidTimeStamp\..*)$/
const retryCodes = /^(isp\.SYSTEM_ERROR|Throttling.*|ServiceUnavailable)$/

function judge(code: string, words: string, reply: Reply, body: Record<string, unknown>, at: At): Outcome {
  if (code === 'OK') return reply.status === 200 ? sent(body['BizId']) : unknown()
  if (code === 'isv.BUSINESS_LIMIT_CONTROL') {
    if (words.includes('天')) return rejected('recipient_quota')
    if (words.includes('小时') || words.includes('时级')) return retry(60 * minuteMs, 'rate')
    if (words.includes('分钟')) return retry(65_000, 'rate')
    return unknown(code)
  }
  if (code === 'isv.MOBILE_NUMBER_ILLEGAL') return gone('number')
  if (rejectedCodes.test(code)) return rejected(code)
  if (disabledCodes.test(code)) return disabled(code)
  if (retryCodes.test(code) || reply.status >= 500) return retry(undefined, code)
  return byStatus(reply, at)?.outcome === 'retry' ? retry(undefined, code) : unknown(code)
}

function paramsOf(params: unknown): string {
  const given = typeof params === 'object' && params !== null && !Array.isArray(params) ? (params as Record<string, unknown>) : {}
  return JSON.stringify(Object.fromEntries(Object.entries(given).map(([name, value]) => [name, cutParam(String(value))])))
}

const checkParams = (config: ChannelConfig) =>
  config['params'] === undefined || !Array.isArray(config['params'])
    ? []
    : [{ pointer: '/config/params', detail: 'Parameters are named here.' }]

export const aliyunSms: HttpChannelType = {
  type: 'aliyun_sms',
  title: { zh: '阿里云短信', en: 'Alibaba Cloud SMS' },
  config: Type.Object(
    {
      accessKeyId: Type.String({ pattern: '^[A-Za-z0-9]{10,64}$' }),
      accessKeySecret: Type.String({ pattern: '^[A-Za-z0-9]{10,128}$' }),
      signName: Type.String({ minLength: 1, maxLength: 50 }),
      templateCode: Type.String({ pattern: '^[A-Za-z0-9_]{3,50}$' }),
      params: Type.Optional(Type.Record(Type.String({ maxLength: 50 }), Type.String({ maxLength: 500 }), { maxProperties: 20 })),
      phone: Type.Optional(Type.String({ maxLength: 20 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['accessKeySecret'],
  rates: [{ count: 100, perMs: 1000 }],
  dialect: 'plain',
  limit: { unit: 'chars', markdown: 500, text: 500 },
  isOnce: true,
  check: checkParams,
  build(message, config, at) {
    const base = new URL(at.base('aliyun_sms', 'https://dysmsapi.aliyuncs.com'))
    const query = {
      PhoneNumbers: (message.address ?? str(config, 'phone')).replace(/^\+86/, '').replace(/^\+/, '00'),
      SignName: str(config, 'signName'),
      TemplateCode: str(config, 'templateCode'),
      TemplateParam: paramsOf(message.params),
      OutId: message.deliveryId,
    }
    const headers: Record<string, string> = {
      host: base.host,
      'x-acs-action': 'SendSms',
      'x-acs-version': '2017-05-25',
      'x-acs-date': new Date(at.now).toISOString().replace(/\.\d+Z$/, 'Z'),
      'x-acs-signature-nonce': at.nonce(),
      'x-acs-content-sha256': sha256Hex(''),
    }
    const path = `${base.pathname.replace(/\/$/, '')}/`
    const { signature, signedHeaders } = signAcs3({ method: 'POST', path, query, headers, body: '' }, str(config, 'accessKeySecret'))
    const authorization = `ACS3-HMAC-SHA256 Credential=${str(config, 'accessKeyId')},SignedHeaders=${signedHeaders},Signature=${signature}`
    return { method: 'POST', url: `${base.origin}${path}?${formatQuery(query)}`, headers: { ...headers, authorization }, body: '' }
  },
  classify(reply, at) {
    const body = jsonOf(reply)
    const code = body?.['Code']
    if (!body || typeof code !== 'string') return byStatus(reply, at) ?? unknown()
    return withWords(judge(code, String(body['Message'] ?? ''), reply, body, at), code, body['Message'])
  },
}
