// SPDX-License-Identifier: AGPL-3.0-only
import type { TObject } from 'typebox'
import type { Window } from '../jobs/limiter.ts'
import type { At, Outcome, Reply } from './outcome.ts'

export type Priority = 1 | 2 | 3 | 4 | 5
export type Dialect = 'plain' | 'slack' | 'feishu' | 'dingtalk' | 'wecom' | 'telegram' | 'discord' | 'teams' | 'html' | 'commonmark'

/** One message as a channel sends it: rendered in its dialect, within its limit. */
export type Rendered = {
  deliveryId: string
  messageId: string
  title: string
  text: string
  /** Ranges in `text`, for dialects that mark by offset. */
  entities?: readonly Record<string, unknown>[]
  format: 'markdown' | 'text'
  priority: Priority
  /** The alert is over. */
  resolved: boolean
  links: readonly { label: string; url: string }[]
  /** Such as `alarm.raised`; `message` for what the API sent. */
  event: string
  at: Date
  data: Record<string, unknown>
  /** What templates of SMS providers may use. */
  params?: Record<string, string> | readonly string[]
  /** The receiver on this channel, where the channel itself does not name one. */
  address?: string
  /** Where a provider reports what became of it. */
  callbackUrl?: string
}

/** A channel's configuration with its secrets, as its schema describes it. */
export type ChannelConfig = Record<string, unknown>

export type HttpCall = { method: 'POST' | 'PUT'; url: string; headers: Record<string, string>; body: string }

export type BuildAt = At & {
  /** Address of the provider, unless the host administrator has set another one. */
  base: (type: string, usual: string) => string
  /** 32 hex digits. */
  nonce: () => string
}

type Described = {
  type: string
  title: { zh: string; en: string }
  /** Of the configuration as it is written, secrets among it. */
  config: TObject
  secrets: readonly string[]
  /** Never more in any span; a channel may be set lower. */
  rates: readonly Window[]
  dialect: Dialect
  /** Of one part, in the unit that the provider counts in. */
  limit: { unit: 'bytes' | 'chars' | 'utf16'; markdown: number; text: number }
  /** Waiting messages may become one when there is little room left. */
  digests?: boolean
  /** A call whose answer was lost must not simply be repeated. */
  isOnce?: boolean
  /** Host of the fixed provider address, for a pasted `url`; `split` gives the configuration in it. */
  url?: { hosts: readonly string[]; split: (url: URL) => ChannelConfig | undefined }
  /** Members whose value is an address that people chose: checked by the outbound guard when saved and when used. */
  addresses?: readonly string[]
  /** Refuses what the schema cannot say; pointers into the configuration. */
  check?: (config: ChannelConfig) => { pointer: string; detail: string }[]
}

/** A kind of channel: how a message becomes a call, and what the answer means. Both are pure. */
export type HttpChannelType = Described & {
  build: (message: Rendered, config: ChannelConfig, at: BuildAt) => HttpCall
  classify: (reply: Reply, at: At, message?: Rendered) => Outcome
}

/** Kinds that no single HTTP call makes: they send by themselves. */
export type OwnChannelType = Described & { own: 'email' | 'inapp' }

export type ChannelType = HttpChannelType | OwnChannelType

export const isHttp = (type: ChannelType): type is HttpChannelType => 'build' in type

export const jsonHeaders = { 'content-type': 'application/json; charset=utf-8' }

export const minuteMs = 60_000
export const dayMs = 86_400_000

/** A text of the configuration; the schema has checked that it is one. */
export const str = (config: ChannelConfig, name: string): string => (typeof config[name] === 'string' ? config[name] : '')
