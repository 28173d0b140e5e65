// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import { notifyInbox } from '../db/notify-tables.ts'
import type { Outbound } from '../outbound.ts'
import { isHttp } from './channel-type.ts'
import type { BuildAt, Rendered } from './channel-type.ts'
import type { OpenChannel } from './channels.ts'
import { disabled, sent, unknown } from './outcome.ts'
import type { Outcome } from './outcome.ts'
import { renderMarkdown } from './render.ts'
import type { Text } from './render.ts'
import { sizeOf, splitText } from './split.ts'
import { sendEmail } from './smtp.ts'
import { call } from './transport.ts'

/** One thing to say, before a channel puts it into its own words. */
export type Said = Omit<Rendered, 'entities'> & { groupKey?: string; userId?: string }

export type Attempt = { outcome: Outcome; httpStatus: number | null; latencyMs: number }

/** Makes one attempt at one channel: renders, splits, calls, classifies. */
export class Sender {
  readonly #context: Context
  readonly #outbound: Outbound

  constructor(context: Context, outbound: Outbound) {
    this.#context = context
    this.#outbound = outbound
  }

  /** All parts of the message, the first that fails ends it. */
  async send(channel: OpenChannel, said: Said, signal?: AbortSignal): Promise<Attempt> {
    const startedAt = performance.now()
    const { outcome, httpStatus } = await this.#attempt(channel, said, signal)
    return { outcome: scrub(outcome, channel), httpStatus, latencyMs: Math.round(performance.now() - startedAt) }
  }

  /** Puts it into a person's inbox as part of a transaction. */
  async putIntoInbox(tx: Tx, said: Said, tenantId: string, userId: string): Promise<Outcome> {
    const { deliveryId: id, title, text, priority } = said
    await tx
      .insert(notifyInbox)
      .values({ tenantId, userId, id, title, text, priority, links: [...said.links] })
      .onConflictDoNothing()
    return sent(id)
  }

  /** The parts as the channel would send them. */
  render(channel: Pick<OpenChannel, 'type'>, said: Said): Rendered[] {
    const { type } = channel
    const whole: Text =
      said.format === 'text'
        ? { text: said.text, entities: [] }
        : renderMarkdown(said.text, type.dialect === 'html' ? 'plain' : type.dialect)
    // Title, links and the frame of the call have their share.
    const frame =
      sizeOf(said.title, type.limit.unit) + said.links.reduce((sum, link) => sum + sizeOf(link.label + link.url, type.limit.unit) + 8, 16)
    const limit = Math.max(200, type.limit[said.format] - frame)
    const parts = type.isOnce ? [cut(whole, type.limit.text)] : splitText(whole, limit, type.limit.unit)
    return parts.map(({ text, entities }, index) => ({ ...said, text, entities, links: index === parts.length - 1 ? said.links : [] }))
  }

  async #attempt(channel: OpenChannel, said: Said, signal: AbortSignal | undefined): Promise<Omit<Attempt, 'latencyMs'>> {
    const { type, config } = channel
    if (!isHttp(type)) {
      if (type.own === 'inapp') return { outcome: disabled('inbox'), httpStatus: null }
      const text = said.format === 'text' ? said.text : renderMarkdown(said.text, 'plain').text
      const html = renderMarkdown(said.text, 'html').text
      return { outcome: await sendEmail(this.#outbound, config, { ...said, text }, html, said.groupKey), httpStatus: null }
    }
    const endpoint = this.#context.config.notify.endpoints[type.type]
    const at: BuildAt = {
      now: this.#context.clock.now(),
      random: Math.random,
      base: (name, usual) => this.#context.config.notify.endpoints[name] ?? usual,
      nonce: () => randomBytes(16).toString('hex'),
    }
    let last: Omit<Attempt, 'latencyMs'> = { outcome: unknown('empty'), httpStatus: null }
    for (const part of this.render(channel, said)) {
      const answered = await call(type.build(part, config, at), {
        outbound: this.#outbound,
        isExempt: endpoint !== undefined,
        isOnce: type.isOnce === true,
        ...(signal ? { signal } : {}),
      })
      if ('failure' in answered) return { outcome: answered.failure, httpStatus: null }
      last = { outcome: type.classify(answered.reply, at, part), httpStatus: answered.reply.status }
      if (last.outcome.outcome !== 'sent') return last
    }
    return last
  }
}

function cut(whole: Text, chars: number): Text {
  const characters = [...whole.text]
  return characters.length <= chars ? whole : { text: `${characters.slice(0, chars - 1).join('')}…`, entities: [] }
}

/** What a provider says back may hold what it was told: the channel's own secrets are taken out. */
function scrub(outcome: Outcome, { type, config }: OpenChannel): Outcome {
  if (outcome.providerMessage === undefined) return outcome
  const secrets = type.secrets.flatMap((name) => secretTexts(config[name]))
  const providerMessage = secrets.reduce((text, secret) => text.replaceAll(secret, '***'), outcome.providerMessage)
  return { ...outcome, providerMessage }
}

function secretTexts(value: unknown): string[] {
  if (typeof value === 'string') return value.length >= 4 ? [value] : []
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(secretTexts) : []
}
