// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { isHttp } from '../channel-type.ts'
import { channelTypeOf, channelTypes } from '../channel-types.ts'
import type { Outcome, Reply } from '../outcome.ts'
import { classifySmtp } from './email.ts'
import { untilChinaMorning } from './serverchan.ts'

/** 2026-11-21 16:04 UTC: one minute before 00:05 in China. */
const now = Date.UTC(2026, 10, 21, 16, 4)

function classify(type: string, status: number, body: unknown, headers: Reply['headers'] = {}): Outcome {
  const channel = channelTypeOf(type)
  if (!isHttp(channel)) throw new Error(type)
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  return channel.classify({ status, headers, body: text }, { now, random: () => 0.5 })
}

type Row = [
  type: string,
  status: number,
  body: unknown,
  outcome: Outcome['outcome'],
  more?: string | [number, number] | Record<string, unknown>,
]

const rows: Row[] = [
  ['feishu', 200, { code: 0, msg: 'success', data: {} }, 'sent'],
  ['feishu', 200, { StatusCode: 0, StatusMessage: 'success' }, 'sent'],
  [
    'feishu',
    200,
    { code: 11232, data: {}, msg: 'frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]' },
    'retry',
    [60_000, 75_000],
  ],
  ['feishu', 200, { code: 99991400, msg: 'request trigger frequency limit' }, 'retry', [60_000, 75_000]],
  ['feishu', 200, { code: 9499, msg: 'too many request' }, 'retry', [60_000, 75_000]],
  ['feishu', 200, { code: 9499, msg: 'Bad Request' }, 'rejected'],
  ['feishu', 400, { code: 9499, msg: 'Bad Request', data: {} }, 'rejected'],
  ['feishu', 200, { code: 19001, msg: 'param invalid: incoming webhook access token invalid' }, 'channel_disabled', 'token'],
  ['lark', 200, { code: 19021, msg: 'sign match fail or timestamp is not within one hour from current time' }, 'channel_disabled', 'sign'],
  ['feishu', 200, { code: 19022, msg: 'Ip Not Allowed' }, 'channel_disabled', 'ip'],
  ['feishu', 200, { code: 19024, msg: 'Key Words Not Found' }, 'rejected', 'keyword'],
  ['feishu', 200, { code: 4711 }, 'unknown'],
  ['feishu', 200, { msg: 'no code' }, 'unknown'],
  ['feishu', 200, '<html>gateway</html>', 'unknown'],
  ['feishu', 200, '', 'unknown'],
  ['feishu', 502, '<html>', 'retry'],

  ['dingtalk', 200, { errcode: 0, errmsg: 'ok' }, 'sent'],
  ['dingtalk', 200, { errcode: 130101, errmsg: 'send too fast' }, 'retry', [60_000, 60_000]],
  ['dingtalk', 200, { errcode: 410100, errmsg: 'send too fast, exceed 20 times per minute' }, 'retry', [60_000, 60_000]],
  ['dingtalk', 200, { status: 1111, wait: 5, punish: 'deny' }, 'retry', [5000, 5000]],
  ['dingtalk', 200, { errcode: -1, errmsg: 'system busy' }, 'retry', [5000, 5000]],
  ['dingtalk', 200, { errcode: 310000, errmsg: 'keywords not in content' }, 'rejected', 'keyword'],
  [
    'dingtalk',
    200,
    { errcode: 310000, errmsg: 'sign not match, more: [https://ding-doc.dingtalk.com/doc#/serverapi2/qf2nxq]' },
    'channel_disabled',
    'sign',
  ],
  ['dingtalk', 200, { errcode: 310000, errmsg: 'invalid timestamp' }, 'channel_disabled', 'sign'],
  ['dingtalk', 200, { errcode: 310000, errmsg: 'ip 203.0.113.9 not in whitelist' }, 'channel_disabled', 'ip'],
  ['dingtalk', 200, { errcode: 310000, errmsg: 'something else' }, 'channel_disabled', 'security'],
  ['dingtalk', 200, { errcode: 300001, errmsg: 'token is not exist' }, 'channel_disabled', 'token'],
  ['dingtalk', 200, { errcode: 400101, errmsg: 'access_token not exist' }, 'channel_disabled', 'token'],
  ['dingtalk', 200, { errcode: 400013, errmsg: 'group dissolved' }, 'channel_disabled', 'robot'],
  ['dingtalk', 200, { errcode: 400102, errmsg: 'robot stopped' }, 'channel_disabled', 'robot'],
  ['dingtalk', 200, { errcode: 40035, errmsg: 'param error' }, 'rejected'],
  ['dingtalk', 200, { errcode: 460101, errmsg: 'too long' }, 'rejected'],
  ['dingtalk', 200, { errcode: 777, errmsg: '?' }, 'unknown'],

  ['wecom', 200, { errcode: 0, errmsg: 'ok' }, 'sent'],
  [
    'wecom',
    200,
    { errcode: 45009, errmsg: 'api freq out of limit, hint: [1763683200123], from ip: 203.0.113.9' },
    'retry',
    [60_000, 90_000],
  ],
  ['wecom', 200, { errcode: -1 }, 'retry', [5000, 5000]],
  ['wecom', 200, { errcode: 93000, errmsg: 'invalid webhook url' }, 'channel_disabled', 'token'],
  ['wecom', 200, { errcode: 60020 }, 'channel_disabled', 'ip'],
  ['wecom', 200, { errcode: 40058, errmsg: 'markdown.content exceed max length 4096' }, 'rejected'],
  ['wecom', 200, { errcode: 1 }, 'unknown'],

  ['flomo', 200, { code: 0, message: '已记录', memo: { slug: 'MjA' } }, 'sent', { providerMessageId: 'MjA' }],
  ['flomo', 200, { code: -1, message: 'no' }, 'rejected'],
  ['flomo', 404, '', 'channel_disabled'],
  ['flomo', 200, 'ok', 'unknown'],

  ['slack', 200, 'ok', 'sent'],
  ['slack', 200, '<html>ok</html>', 'unknown'],
  ['slack', 400, 'invalid_payload', 'rejected'],
  ['slack', 403, 'action_prohibited', 'channel_disabled'],
  ['slack', 404, 'no_service', 'channel_disabled'],
  ['slack', 410, 'channel_is_archived', 'channel_disabled'],
  ['slack', 500, 'rollup_error', 'retry'],
  ['slack', 429, '', 'retry'],

  ['teams', 202, '', 'sent'],
  ['teams', 200, '1', 'sent'],
  ['teams', 400, 'Bad payload', 'rejected'],
  ['teams', 401, '', 'channel_disabled'],
  ['teams', 404, '', 'channel_disabled'],
  ['teams', 413, '', 'rejected', 'size'],
  ['teams', 429, '', 'retry'],

  ['discord', 200, { id: '1187' }, 'sent', { providerMessageId: '1187' }],
  ['discord', 204, '', 'unknown'],
  ['discord', 200, '{}', 'unknown'],
  ['discord', 400, { code: 50035, message: 'Invalid Form Body' }, 'rejected'],
  ['discord', 404, { code: 10015, message: 'Unknown Webhook' }, 'channel_disabled'],
  ['discord', 429, { message: 'You are being rate limited.', retry_after: 1.2345, global: false }, 'retry', [1235, 1235]],

  ['telegram', 200, { ok: true, result: { message_id: 7 } }, 'sent', { providerMessageId: '7' }],
  ['telegram', 200, { ok: true }, 'unknown'],
  [
    'telegram',
    429,
    { ok: false, error_code: 429, description: 'Too Many Requests: retry after 37', parameters: { retry_after: 37 } },
    'retry',
    [37_000, 60_000],
  ],
  [
    'telegram',
    400,
    { ok: false, error_code: 400, description: 'upgraded', parameters: { migrate_to_chat_id: -100123 } },
    'retry',
    { movedTo: '-100123', afterMs: 0 },
  ],
  ['telegram', 400, { ok: false, description: 'Bad Request: chat not found' }, 'recipient_gone'],
  ['telegram', 403, { ok: false, description: 'Forbidden: bot was blocked by the user' }, 'recipient_gone'],
  ['telegram', 401, { ok: false, description: 'Unauthorized' }, 'channel_disabled', 'token'],
  ['telegram', 400, { ok: false, description: "Bad Request: can't parse entities" }, 'rejected'],

  ['ntfy', 200, { id: 'x1', event: 'message' }, 'sent', { providerMessageId: 'x1' }],
  ['ntfy', 401, { code: 40101, http: 401, error: 'unauthorized' }, 'channel_disabled'],
  ['ntfy', 403, { code: 40301, error: 'forbidden' }, 'channel_disabled'],
  ['ntfy', 413, { code: 41301, error: 'too large' }, 'rejected'],
  ['ntfy', 400, { code: 40009, error: 'invalid topic' }, 'rejected'],
  ['ntfy', 429, { code: 42908, error: 'daily limit' }, 'retry', [3_600_000, 3_600_000]],
  ['ntfy', 429, { code: 42901, error: 'too many requests' }, 'retry', [60_000, 60_000]],

  ['gotify', 200, { id: 25, appid: 5 }, 'sent', { providerMessageId: '25' }],
  ['gotify', 200, {}, 'unknown'],
  ['gotify', 401, { error: 'Unauthorized', errorCode: 401 }, 'channel_disabled'],
  ['gotify', 400, { error: 'Bad Request', errorCode: 400 }, 'rejected'],

  ['bark', 200, { code: 200, message: 'success', timestamp: 1700000000 }, 'sent'],
  ['bark', 400, { code: 400, message: 'failed to get device token: key not found' }, 'recipient_gone'],
  ['bark', 500, { code: 500, message: 'push failed: BadDeviceToken' }, 'recipient_gone'],
  ['bark', 500, { code: 500, message: 'push failed: timeout' }, 'retry'],
  ['bark', 400, { code: 400, message: 'request bind failed' }, 'rejected'],
  ['bark', 404, 'not found', 'channel_disabled'],

  [
    'serverchan',
    200,
    { code: 0, message: '', data: { pushid: '1', readkey: 'k', error: 'SUCCESS', errno: 0 } },
    'sent',
    { providerMessageId: '1' },
  ],
  ['serverchan', 200, { code: 0, data: { error: 'FAIL' } }, 'unknown'],
  [
    'serverchan',
    400,
    { message: '[AUTH]错误的Key', code: 40001, info: '错误的Key', args: [null], scode: 461 },
    'channel_disabled',
    'token',
  ],
  ['serverchan', 400, { message: '[AUTH]超过当天的发送次数限制[5]', code: 40001, scode: 471 }, 'retry', [60_000, 60_000]],
  ['serverchan', 400, { message: '[INPUT]参数错误', code: 20001 }, 'rejected'],
  ['serverchan', 400, { code: 1 }, 'unknown'],

  ['aliyun_sms', 200, { Code: 'OK', BizId: '900^0', Message: 'OK' }, 'sent', { providerMessageId: '900^0' }],
  [
    'aliyun_sms',
    200,
    { Message: '触发小时级流控Permits:5', RequestId: 'R', Code: 'isv.BUSINESS_LIMIT_CONTROL' },
    'retry',
    [3_600_000, 3_700_000],
  ],
  ['aliyun_sms', 200, { Message: '触发分钟级流控Permits:1', Code: 'isv.BUSINESS_LIMIT_CONTROL' }, 'retry', [65_000, 65_000]],
  ['aliyun_sms', 200, { Message: '触发天级流控Permits:10', Code: 'isv.BUSINESS_LIMIT_CONTROL' }, 'rejected', 'recipient_quota'],
  ['aliyun_sms', 200, { Code: 'isv.MOBILE_NUMBER_ILLEGAL' }, 'recipient_gone'],
  ['aliyun_sms', 200, { Code: 'isv.TEMPLATE_MISSING_PARAMETERS' }, 'rejected'],
  ['aliyun_sms', 200, { Code: 'isv.AMOUNT_NOT_ENOUGH' }, 'channel_disabled'],
  ['aliyun_sms', 400, { Code: 'SignatureDoesNotMatch' }, 'channel_disabled'],
  ['aliyun_sms', 404, { Code: 'InvalidAccessKeyId.NotFound' }, 'channel_disabled'],
  ['aliyun_sms', 200, { Code: 'isp.SYSTEM_ERROR' }, 'retry'],
  ['aliyun_sms', 400, { Code: 'Throttling.User' }, 'retry'],
  ['aliyun_sms', 200, { Code: 'isv.NEW' }, 'unknown'],

  ['tencent_sms', 200, { Response: { SendStatusSet: [{ SerialNo: 's1', Code: 'Ok' }] } }, 'sent', { providerMessageId: 's1' }],
  ['tencent_sms', 200, { Response: { Error: { Code: 'AuthFailure.SignatureFailure', Message: 'no' } } }, 'channel_disabled'],
  [
    'tencent_sms',
    200,
    { Response: { SendStatusSet: [{ Code: 'LimitExceeded.PhoneNumberThirtySecondLimit' }] } },
    'retry',
    [35_000, 35_000],
  ],
  [
    'tencent_sms',
    200,
    { Response: { SendStatusSet: [{ Code: 'LimitExceeded.PhoneNumberOneHourLimit' }] } },
    'retry',
    [3_600_000, 3_600_000],
  ],
  ['tencent_sms', 200, { Response: { SendStatusSet: [{ Code: 'LimitExceeded.PhoneNumberDailyLimit' }] } }, 'rejected', 'recipient_quota'],
  ['tencent_sms', 200, { Response: { SendStatusSet: [{ Code: 'FailedOperation.PhoneNumberInBlacklist' }] } }, 'recipient_gone'],
  ['tencent_sms', 200, { Response: { SendStatusSet: [{ Code: 'FailedOperation.InsufficientBalanceInSmsPackage' }] } }, 'channel_disabled'],
  ['tencent_sms', 200, { Response: { SendStatusSet: [{ Code: 'FailedOperation.ContainSensitiveWord' }] } }, 'rejected'],
  ['tencent_sms', 200, { Response: { Error: { Code: 'RequestLimitExceeded' } } }, 'retry', [60_000, 60_000]],
  ['tencent_sms', 200, { Response: { SendStatusSet: [] } }, 'unknown'],

  ['twilio_sms', 201, { sid: 'SM1', status: 'queued' }, 'sent', { providerMessageId: 'SM1' }],
  ['twilio_sms', 400, { code: 21211, message: "Invalid 'To' Phone Number" }, 'recipient_gone'],
  ['twilio_sms', 400, { code: 21610 }, 'recipient_gone', 'opted_out'],
  ['twilio_sms', 400, { code: 21617 }, 'rejected'],
  ['twilio_sms', 401, { code: 20003 }, 'channel_disabled'],
  ['twilio_sms', 429, { code: 20429 }, 'retry'],
  ['twilio_sms', 503, '', 'retry'],

  ['webhook', 204, '', 'sent'],
  ['webhook', 301, '', 'channel_disabled', 'redirect'],
  ['webhook', 410, '', 'channel_disabled', 'gone'],
  ['webhook', 404, '', 'retry'],
  ['webhook', 500, '', 'retry'],
]

describe('what a provider answers', () => {
  it.each(rows)('%s %i %j is %s', (type, status, body, outcome, more) => {
    const found = classify(type, status, body)
    expect(found.outcome, JSON.stringify(found)).toBe(outcome)
    if (typeof more === 'string') expect(found).toMatchObject({ reason: more })
    else if (Array.isArray(more)) {
      const { afterMs = -1 } = found as { afterMs?: number }
      expect(afterMs).toBeGreaterThanOrEqual(more[0])
      expect(afterMs).toBeLessThanOrEqual(more[1])
    } else if (more) expect(found).toMatchObject(more)
  })

  it('waits as long as Retry-After says, in seconds or as a date, a day at most', () => {
    expect(classify('gotify', 503, '', { 'retry-after': '7' })).toMatchObject({ outcome: 'retry', afterMs: 7000 })
    expect(classify('webhook', 429, '', { 'retry-after': new Date(now + 90_000).toUTCString() })).toMatchObject({ afterMs: 90_000 })
    expect(classify('webhook', 429, '', { 'retry-after': '999999999' })).toMatchObject({ afterMs: 86_400_000 })
    expect(classify('webhook', 429, '', { 'retry-after': 'soon' })).not.toHaveProperty('afterMs')
  })

  it('paces by the headers of Discord', () => {
    expect(classify('discord', 200, { id: '1' }, { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset-after': '0.75' })).toMatchObject({
      outcome: 'sent',
      paceMs: 750,
    })
  })

  it('never counts an answer that fits no rule as sent, whatever the channel', () => {
    const odd: [number, string][] = [
      [200, ''],
      [200, 'null'],
      [200, '[]'],
      [200, '{"a":1}'],
      [200, '<!doctype html>'],
      [299, 'x'],
      [302, ''],
      [418, ''],
      [599, ''],
      [100, ''],
    ]
    for (const channel of channelTypes.filter(isHttp).filter((one) => !['webhook', 'teams'].includes(one.type))) {
      for (const [status, body] of odd) {
        const { outcome } = channel.classify({ status, headers: {}, body }, { now, random: Math.random })
        expect(outcome, `${channel.type} ${status} ${body}`).not.toBe('sent')
      }
    }
  })

  it('follows no redirect anywhere', () => {
    for (const channel of channelTypes.filter(isHttp)) {
      expect(
        channel.classify({ status: 302, headers: { location: 'http://127.0.0.1/' }, body: '' }, { now, random: Math.random }).outcome,
      ).toBe('channel_disabled')
    }
  })

  it('reads SMTP codes', () => {
    const of = (code: number) => classifySmtp(code, 'text').outcome
    expect([250, 421, 450, 451, 452, 499].map(of)).toEqual(['sent', 'retry', 'retry', 'retry', 'retry', 'retry'])
    expect([530, 534, 535, 538].map(of)).toEqual(Array.from({ length: 4 }, () => 'channel_disabled'))
    expect([550, 551, 553, 556].map(of)).toEqual(Array.from({ length: 4 }, () => 'recipient_gone'))
    expect([552, 554, 570].map(of)).toEqual(['rejected', 'rejected', 'rejected'])
    expect(of(0)).toBe('unknown')
  })

  it('begins the day of Server酱 at 00:05 in China', () => {
    expect(untilChinaMorning(now)).toBe(60_000)
    expect(untilChinaMorning(now + 60_000)).toBe(86_400_000)
  })
})
