// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { signAcs3 } from './aliyun-sms.ts'
import { signDingtalk } from './dingtalk.ts'
import { signFeishu } from './feishu.ts'
import { signTc3 } from './tencent-sms.ts'
import { signTwilio } from './twilio-sms.ts'
import { isWebhookSecret, signV1, signV1a, whpk } from './webhook.ts'

const seed = Buffer.from('4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb', 'hex')

it('signs as Standard Webhooks do: their public vector', () => {
  const signed = { id: 'msg_p5jXN8AQM9LWM0D4loKWxJek', ts: 1614265330, body: '{"test": 2432232314}' }
  expect(signV1('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', signed)).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=')
})

it('signs webhooks with ed25519, with the seed of RFC 8032 TEST 2', () => {
  const body = '{"type":"test","timestamp":"2026-11-22T00:00:00Z","data":{}}'
  expect(signV1a(seed, { id: 'msg_000000000009', ts: 1795305600, body })).toBe(
    'v1a,uYMfEgHDcVl8z7TahCmRNfo81ZZ6DnMltVQcwIEcbfissU/5Gtt+SQDhGb1iXcSJHKeVFkZW0c6S2TvNHWJIDA==',
  )
  expect(whpk(seed)).toBe('whpk_PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=')
})

it('knows a signing secret by its length and alphabet', () => {
  expect(isWebhookSecret('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')).toBe(true)
  for (const bad of ['whsec_short', 'whsec_***', 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', `whsec_${Buffer.alloc(65).toString('base64')}`]) {
    expect(isWebhookSecret(bad), bad).toBe(false)
  }
})

it('signs for Feishu with the secret in the key and nothing in the message', () => {
  expect(signFeishu('demo', 1599360473)).toBe('l1N0gAcBjdwBvGm1xMjOF0XSyaLRpR7tuO5dHfhAYc8=')
})

it('signs for DingTalk as it stands in the query', () => {
  expect(signDingtalk('this is secret', 1577262236757)).toBe('hmPWwU%2B7lVdm3ZZz0r9tSfx0L4Q26jWOZr9%2BGs6EZQM%3D')
})

it('signs for Alibaba Cloud: their public example', () => {
  const { signature, signedHeaders } = signAcs3(
    {
      method: 'POST',
      path: '/',
      query: { ImageId: 'win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd', RegionId: 'cn-shanghai' },
      headers: {
        host: 'ecs.cn-shanghai.aliyuncs.com',
        'x-acs-action': 'RunInstances',
        'x-acs-version': '2014-05-26',
        'x-acs-date': '2023-10-26T10:22:32Z',
        'x-acs-signature-nonce': '3156853299f313e23d1673dc12e1703d',
      },
      body: '',
    },
    'YourAccessKeySecret',
  )
  expect(signature).toBe('06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0')
  expect(signedHeaders).toContain('x-acs-content-sha256')
})

it('signs for Tencent Cloud over the bytes of the body', () => {
  const body =
    '{"PhoneNumberSet":["+8613900000000"],"SmsSdkAppId":"1400000001","SignName":"示例","TemplateId":"2001","TemplateParamSet":["冷库","9"]}'
  const call = { host: 'sms.tencentcloudapi.com', ts: 1795305600, action: 'SendSms', body }
  expect(signTc3(call, 'ExampleSecretKey0123456789abcdef').signature).toBe(
    'f49b9f813fe2dc7ab46ade212bfca469c7f33ad5f1196bccc7907c057d3d10df',
  )
})

it('knows what a callback of Twilio is signed with', () => {
  const url = 'https://iot.example.com/api/v1/notifications/inbound/c1/t1'
  const params = { MessageSid: 'SM1', MessageStatus: 'delivered', To: '+15005550006', From: '+15005550001', AccountSid: 'AC1' }
  expect(signTwilio('exampleauthtoken', url, params)).toBe('VhiVLLRgjPc4odtg0FHMB5J1YeU=')
})
