// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import type { ChannelType } from './channel-type.ts'
import { aliyunSms } from './channels/aliyun-sms.ts'
import { bark } from './channels/bark.ts'
import { dingtalk } from './channels/dingtalk.ts'
import { discord } from './channels/discord.ts'
import { email } from './channels/email.ts'
import { feishu, lark } from './channels/feishu.ts'
import { flomo } from './channels/flomo.ts'
import { gotify } from './channels/gotify.ts'
import { inapp } from './channels/inapp.ts'
import { ntfy } from './channels/ntfy.ts'
import { serverchan } from './channels/serverchan.ts'
import { slack } from './channels/slack.ts'
import { teams } from './channels/teams.ts'
import { telegram } from './channels/telegram.ts'
import { tencentSms } from './channels/tencent-sms.ts'
import { twilioSms } from './channels/twilio-sms.ts'
import { webhook } from './channels/webhook.ts'
import { wecom } from './channels/wecom.ts'

/** Every kind of channel, in the order people are offered them. */
export const channelTypes: readonly ChannelType[] = [
  inapp,
  email,
  webhook,
  feishu,
  lark,
  dingtalk,
  wecom,
  serverchan,
  flomo,
  bark,
  ntfy,
  gotify,
  slack,
  teams,
  discord,
  telegram,
  aliyunSms,
  tencentSms,
  twilioSms,
]

const byName = new Map(channelTypes.map((one) => [one.type, one]))

/** @throws {ProblemError} `CHANNEL_TYPE_UNKNOWN` */
export function channelTypeOf(type: string): ChannelType {
  const found = byName.get(type)
  if (!found) throw new ProblemError('CHANNEL_TYPE_UNKNOWN', { params: { type } })
  return found
}
