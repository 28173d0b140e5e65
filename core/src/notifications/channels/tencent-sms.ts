// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { str } from '../channel-type.ts'
import type { HttpChannelType, Rendered } from '../channel-type.ts'
import { byStatus, disabled, gone, jsonOf, memberOf, rejected, retry, sent, unknown, withWords } from '../outcome.ts'
import type { Outcome } from '../outcome.ts'
import { cutParam, hmac, sha256Hex } from './sms.ts'

const service = 'sms'
const contentType = 'application/json; charset=utf-8'

/** TC3-HMAC-SHA256 over content type, host and action. @param ts seconds @returns hex */
export function signTc3(
  call: { host: string; ts: number; action: string; body: string },
  secret: string,
): { signature: string; scope: string } {
  const date = new Date(call.ts * 1000).toISOString().slice(0, 10)
  const scope = `${date}/${service}/tc3_request`
  const signed = 'content-type;host;x-tc-action'
  const headers = `content-type:${contentType}\nhost:${call.host}\nx-tc-action:${call.action.toLowerCase()}\n`
  const canonical = `POST\n/\n\n${headers}\n${signed}\n${sha256Hex(call.body)}`
  const text = `TC3-HMAC-SHA256\n${call.ts}\n${scope}\n${sha256Hex(canonical)}`
  const key = ['tc3_request'].reduce<Buffer>((last, part) => hmac(last, part), hmac(hmac(`TC3${secret}`, date), service))
  return { signature: hmac(key, text).toString('hex'), scope }
}

const goneCodes = ['InvalidParameterValue.IncorrectPhoneNumber', 'FailedOperation.PhoneNumberInBlacklist']
const quotaCodes = ['LimitExceeded.PhoneNumberDailyLimit', 'LimitExceeded.PhoneNumberSameContentDailyLimit']
const disabledCodes =
  /^(AuthFailure(\..*)?|UnauthorizedOperation(\..*)?|FailedOperation\.(InsufficientBalanceInSmsPackage|SignatureIncorrectOrUnapproved|TemplateIncorrectOrUnapproved|MissingSignature.*))$/
const retryCodes = /^(RequestLimitExceeded.*|LimitExceeded\.DeliveryFrequencyLimit|InternalError.*)$/

function judge(code: string, serial: unknown): Outcome {
  if (code === 'Ok') return sent(serial)
  if (code === 'LimitExceeded.PhoneNumberThirtySecondLimit') return retry(35_000, 'rate')
  if (code === 'LimitExceeded.PhoneNumberOneHourLimit') return retry(3_600_000, 'rate')
  if (quotaCodes.includes(code)) return rejected('recipient_quota')
  if (goneCodes.includes(code)) return gone('number')
  if (disabledCodes.test(code)) return disabled(code)
  if (retryCodes.test(code)) return retry(60_000, code)
  if (/^(FailedOperation\.|InvalidParameter)/.test(code)) return rejected(code)
  return unknown(code)
}

function numberOf(message: Rendered | undefined, fallback = ''): string {
  return message?.address ?? fallback
}

export const tencentSms: HttpChannelType = {
  type: 'tencent_sms',
  title: { zh: '腾讯云短信', en: 'Tencent Cloud SMS' },
  config: Type.Object(
    {
      secretId: Type.String({ pattern: '^[A-Za-z0-9]{10,64}$' }),
      secretKey: Type.String({ pattern: '^[A-Za-z0-9]{10,128}$' }),
      sdkAppId: Type.String({ pattern: '^\\d{5,20}$' }),
      signName: Type.String({ minLength: 1, maxLength: 50 }),
      templateId: Type.String({ pattern: '^\\d{1,20}$' }),
      region: Type.Optional(Type.String({ pattern: '^[a-z]{2,3}-[a-z0-9-]{2,30}$' })),
      params: Type.Optional(Type.Array(Type.String({ maxLength: 500 }), { maxItems: 20 })),
      phone: Type.Optional(Type.String({ maxLength: 20 })),
    },
    { additionalProperties: false },
  ),
  secrets: ['secretKey'],
  rates: [{ count: 3000, perMs: 1000 }],
  dialect: 'plain',
  limit: { unit: 'chars', markdown: 500, text: 500 },
  isOnce: true,
  build(message, config, at) {
    const base = new URL(at.base('tencent_sms', 'https://sms.tencentcloudapi.com'))
    const ts = Math.floor(at.now / 1000)
    const params = Array.isArray(message.params) ? message.params.map((one) => cutParam(String(one))) : []
    const body = JSON.stringify({
      PhoneNumberSet: [numberOf(message, str(config, 'phone'))],
      SmsSdkAppId: str(config, 'sdkAppId'),
      SignName: str(config, 'signName'),
      TemplateId: str(config, 'templateId'),
      TemplateParamSet: params,
      SessionContext: message.messageId,
    })
    const { signature, scope } = signTc3({ host: base.host, ts, action: 'SendSms', body }, str(config, 'secretKey'))
    return {
      method: 'POST',
      url: `${base.origin}/`,
      headers: {
        'content-type': contentType,
        host: base.host,
        'x-tc-action': 'SendSms',
        'x-tc-version': '2021-01-11',
        'x-tc-timestamp': String(ts),
        'x-tc-region': str(config, 'region') || 'ap-guangzhou',
        authorization: `TC3-HMAC-SHA256 Credential=${str(config, 'secretId')}/${scope}, SignedHeaders=content-type;host;x-tc-action, Signature=${signature}`,
      },
      body,
    }
  },
  classify(reply, at, message) {
    const response = memberOf(jsonOf(reply), 'Response')
    const error = memberOf(response, 'Error')
    if (error) return withWords(judge(String(error['Code']), undefined), error['Code'], error['Message'])
    const set = response?.['SendStatusSet']
    if (!Array.isArray(set)) return byStatus(reply, at) ?? unknown()
    // The status of the call says nothing: each number is judged by its own.
    const statuses: Record<string, unknown>[] = set.filter((one): one is Record<string, unknown> => typeof one === 'object' && one !== null)
    const wanted = numberOf(message)
    const mine = wanted ? statuses.find((one) => one['PhoneNumber'] === wanted) : statuses[0]
    if (!mine) return unknown('number_missing')
    return withWords(judge(String(mine['Code']), mine['SerialNo']), mine['Code'], mine['Message'])
  },
}
