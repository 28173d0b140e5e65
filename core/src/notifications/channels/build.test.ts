// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { isHttp } from '../channel-type.ts'
import type { BuildAt, ChannelConfig, HttpCall, Rendered } from '../channel-type.ts'
import { channelTypeOf } from '../channel-types.ts'
import { signFeishu } from './feishu.ts'
import { signV1 } from './webhook.ts'

const at: BuildAt = { now: 1795305600_123, random: () => 0, base: (_, usual) => usual, nonce: () => 'a'.repeat(32) }
const message: Rendered = {
  deliveryId: '0190-d',
  messageId: '0190-m',
  title: '【紧急】1号冷库',
  text: '温度 **9.5**',
  format: 'markdown',
  priority: 1,
  resolved: false,
  links: [{ label: '查看', url: 'https://iot.example/a/1' }],
  event: 'alarm.raised',
  at: new Date(1795305600_000),
  data: { alerts: [1, 2, 3] },
}

function build(
  type: string,
  config: ChannelConfig,
  change: Partial<Rendered> = {},
  where: Partial<BuildAt> = {},
): HttpCall & { json: ReturnType<typeof JSON.parse> } {
  const channel = channelTypeOf(type)
  if (!isHttp(channel)) throw new Error(type)
  const call = channel.build({ ...message, ...change }, config, { ...at, ...where })
  return { ...call, json: call.headers['content-type']?.startsWith('application/json') ? JSON.parse(call.body) : undefined }
}

describe('the call of each channel', () => {
  it('feishu: a card in the colour of the priority, signed in the body in seconds', () => {
    const { url, json } = build('feishu', { token: 'abcdefgh', signSecret: 'demo', keyword: '报警' })
    expect(url).toBe('https://open.feishu.cn/open-apis/bot/v2/hook/abcdefgh')
    expect(json).toMatchObject({ timestamp: '1795305600', sign: signFeishu('demo', 1795305600), msg_type: 'interactive' })
    expect(json.card.header).toEqual({ title: { tag: 'plain_text', content: message.title }, template: 'red' })
    expect(json.card.elements[0]).toEqual({ tag: 'markdown', content: '温度 **9.5**\n报警' })
    expect(json.card.elements[1].actions[0]).toMatchObject({ tag: 'button', url: 'https://iot.example/a/1' })
    expect(build('lark', { token: 'abcdefgh' }, { resolved: true }).json.card.header.template).toBe('green')
    expect(build('feishu', { token: 'abcdefgh' }, { format: 'text' }).json).toEqual({
      msg_type: 'text',
      content: { text: `${message.title}\n${message.text}` },
    })
  })

  it('goes to the address the host administrator has set instead', () => {
    const { url } = build('feishu', { token: 'abcdefgh' }, {}, { base: () => 'http://10.0.0.5:9000/feishu' })
    expect(url).toBe('http://10.0.0.5:9000/feishu/open-apis/bot/v2/hook/abcdefgh')
  })

  it('dingtalk: signed in the query in milliseconds, mentions in the text too', () => {
    const { url, json } = build('dingtalk', { accessToken: 'a'.repeat(32), signSecret: 'SEC1', atMobiles: ['13800000000'] })
    expect(url).toMatch(/^https:\/\/oapi\.dingtalk\.com\/robot\/send\?access_token=a{32}&timestamp=1795305600123&sign=[\w%]+$/)
    expect(json).toMatchObject({
      msgtype: 'markdown',
      markdown: { title: message.title },
      at: { atMobiles: ['13800000000'], isAtAll: false },
    })
    expect(json.markdown.text).toBe(`### ${message.title}\n\n${message.text}\n\n[查看](https://iot.example/a/1)\n\n@13800000000`)
    expect(build('dingtalk', { accessToken: 'a'.repeat(32) }, { format: 'text' }).json).toMatchObject({ msgtype: 'text' })
  })

  it('wecom, flomo, slack, teams and discord speak their forms', () => {
    expect(build('wecom', { key: 'k'.repeat(36) }).json).toEqual({
      msgtype: 'markdown',
      markdown: { content: `**${message.title}**\n温度 **9.5**\n[查看](https://iot.example/a/1)` },
    })
    expect(build('flomo', { user: 'u1', secret: 's1' })).toMatchObject({
      url: 'https://flomoapp.com/iwh/u1/s1/',
      json: { content: expect.stringContaining('#iot/alarm') },
    })
    const slack = build('slack', { path: 'T1/B2/x3' }, { text: `${'长'.repeat(2990)}\n${'短'.repeat(100)}` }).json
    expect(slack.blocks.map((one: { type: string }) => one.type)).toEqual(['header', 'section', 'section', 'actions'])
    const teams = build(
      'teams',
      { url: 'https://prod-1.westeurope.logic.azure.com/workflows/1?sig=abc' },
      { text: '温度 9.5', entities: [{ type: 'bold', offset: 3, length: 3 }] },
    )
    expect(teams.url).toBe('https://prod-1.westeurope.logic.azure.com/workflows/1?sig=abc')
    expect(teams.json.attachments[0].content.body[1].inlines).toEqual([
      { type: 'TextRun', text: '温度 ' },
      { type: 'TextRun', text: '9.5', weight: 'Bolder' },
    ])
    const discord = build('discord', { webhookId: '123456', token: 't'.repeat(30), threadId: '98765' })
    expect(discord.url).toBe(`https://discord.com/api/webhooks/123456/${'t'.repeat(30)}?wait=true&thread_id=98765`)
    expect(discord.json.allowed_mentions).toEqual({ parse: [] })
  })

  it('telegram: entities move behind the title, never a parse mode', () => {
    const { json } = build(
      'telegram',
      { botToken: `123456:${'b'.repeat(30)}`, chatId: '-42' },
      { text: '温度 9.5', entities: [{ type: 'bold', offset: 3, length: 3 }], priority: 4 },
    )
    expect(json).not.toHaveProperty('parse_mode')
    expect(json.disable_notification).toBe(true)
    const bold = json.entities[1]
    expect(json.text.slice(bold.offset, bold.offset + bold.length)).toBe('9.5')
    expect(json.text.slice(0, json.entities[0].length)).toBe(message.title)
  })

  it('ntfy, gotify and bark turn priorities round', () => {
    expect(build('ntfy', { server: 'https://ntfy.sh/', topic: 'a', token: 'tk_1' })).toMatchObject({
      url: 'https://ntfy.sh/',
      headers: { authorization: 'Bearer tk_1' },
      json: { topic: 'a', priority: 5, click: 'https://iot.example/a/1' },
    })
    expect(
      [1, 2, 3, 4, 5].map(
        (priority) => build('gotify', { server: 'http://g', appToken: 'A.token' }, { priority: priority as 1 }).json.priority,
      ),
    ).toEqual([10, 7, 5, 3, 1])
    expect(build('bark', { server: 'https://api.day.app', deviceKeys: ['k1'], sound: 'bell' }).json).toMatchObject({
      device_keys: ['k1'],
      level: 'critical',
      sound: 'bell',
    })
  })

  it('serverchan finds the host of either kind of key, and cuts the title to 32 characters', () => {
    expect(build('serverchan', { sendKey: 'SCT12345abc' }).url).toBe('https://sctapi.ftqq.com/SCT12345abc.send')
    const newer = build('serverchan', { sendKey: 'sctp99tabcdef' }, { title: '冷'.repeat(40) })
    expect(newer.url).toBe('https://99.push.ft07.com/send/sctp99tabcdef.send')
    expect([...newer.json.title]).toHaveLength(32)
  })

  it('SMS providers get their own form of the number, parameters cut to 35 characters', () => {
    const aliyun = build(
      'aliyun_sms',
      { accessKeyId: 'AKID123456', accessKeySecret: 'secret1234567', signName: '示例', templateCode: 'SMS_1' },
      { address: '+8613900000000', params: { name: '冷'.repeat(50) } },
    )
    const query = new URL(aliyun.url).searchParams
    expect(query.get('PhoneNumbers')).toBe('13900000000')
    expect(JSON.parse(query.get('TemplateParam')!)).toEqual({ name: '冷'.repeat(35) })
    expect(aliyun.headers['authorization']).toMatch(
      /^ACS3-HMAC-SHA256 Credential=AKID123456,SignedHeaders=host;x-acs-.*,Signature=[0-9a-f]{64}$/,
    )
    const tencent = build(
      'tencent_sms',
      { secretId: 'AKID123456', secretKey: 'secret1234567', sdkAppId: '1400000001', signName: '示例', templateId: '2001' },
      { address: '+8613900000000', params: ['冷库', '9'] },
    )
    expect(JSON.parse(tencent.body)).toMatchObject({
      PhoneNumberSet: ['+8613900000000'],
      TemplateParamSet: ['冷库', '9'],
      SessionContext: '0190-m',
    })
    const twilio = build(
      'twilio_sms',
      { accountSid: 'AC12345678', authToken: 'token12345', from: '+15005550001' },
      { address: '+15005550006' },
    )
    expect(Object.fromEntries(new URLSearchParams(twilio.body))).toMatchObject({ To: '+15005550006', From: '+15005550001' })
  })

  it('webhook: signs the bytes it sends, with the old secret too for a while, and cuts what is too large', () => {
    const [secret, old] = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', `whsec_${Buffer.alloc(32, 7).toString('base64')}`]
    const call = build('webhook', { url: 'https://example.com/hook', signingSecret: secret, oldSecret: old })
    const signed = { id: '0190-d', ts: 1795305600, body: call.body }
    expect(call.headers).toMatchObject({
      'webhook-id': '0190-d',
      'webhook-timestamp': '1795305600',
      'webhook-signature': `${signV1(secret, signed)} ${signV1(old, signed)}`,
    })
    expect(JSON.parse(call.body)).toEqual({ type: 'alarm.raised', timestamp: '2026-11-22T00:00:00.000Z', data: { alerts: [1, 2, 3] } })
    const big = build(
      'webhook',
      { url: 'https://example.com/hook', signingSecret: secret },
      { data: { alerts: Array.from({ length: 100 }, () => 'x'.repeat(1000)) } },
    )
    expect(Buffer.byteLength(big.body)).toBeLessThanOrEqual(20_480)
    expect(JSON.parse(big.body).data.truncated).toBe(true)
  })
})
