// SPDX-License-Identifier: AGPL-3.0-only

/** What a provider answered. */
export type Reply = { status: number; headers: Readonly<Record<string, string>>; body: string }

type Said = {
  /** The provider's own code and words. */
  providerCode?: string
  providerMessage?: string
  /** A sentence for the person who set the channel up. */
  detail?: string
  /** No call on this channel for so long. */
  paceMs?: number
}

/** How one attempt ended [notifications §3]. */
export type Outcome = Said &
  (
    | { outcome: 'sent'; providerMessageId?: string }
    /** Transient; the next attempt is not before `afterMs`. With an address the receiver has moved there: at once. */
    | { outcome: 'retry'; reason: string; afterMs?: number; movedTo?: string }
    /** This message will never pass. */
    | { outcome: 'rejected'; reason: string }
    /** The address is dead. */
    | { outcome: 'recipient_gone'; reason: string }
    /** Credential or configuration: a person is needed. */
    | { outcome: 'channel_disabled'; reason: string }
    /** An answer that fits no rule. Never counted as sent. */
    | { outcome: 'unknown'; reason: string }
    /** The answer of a call that must not be repeated blindly was lost. */
    | { outcome: 'uncertain'; reason: string }
  )

/** The instant and the dice that classifying needs. */
export type At = { now: number; random: () => number }

export const sent = (providerMessageId?: unknown): Outcome => ({
  outcome: 'sent',
  ...(providerMessageId === undefined || providerMessageId === null ? {} : { providerMessageId: String(providerMessageId) }),
})
export const retry = (afterMs: number | undefined, reason = 'provider'): Outcome => ({
  outcome: 'retry',
  reason,
  ...(afterMs === undefined ? {} : { afterMs }),
})
export const rejected = (reason = 'content', detail?: string): Outcome => ({ outcome: 'rejected', reason, ...(detail ? { detail } : {}) })
export const gone = (reason = 'gone'): Outcome => ({ outcome: 'recipient_gone', reason })
export const disabled = (reason: string, detail?: string): Outcome => ({
  outcome: 'channel_disabled',
  reason,
  ...(detail ? { detail } : {}),
})
export const unknown = (reason = 'answer'): Outcome => ({ outcome: 'unknown', reason })

const longestRetryAfterMs = 86_400_000
const transient = new Set([408, 425, 429, 500, 502, 503, 504])
const redirects = new Set([301, 302, 303, 307, 308])

/**
 * The rule where a channel says nothing of its own; undefined for a 2xx, which only the channel can judge.
 * No answer at all is {@link lost}.
 */
export function byStatus(reply: Reply, at: At): Outcome | undefined {
  const { status } = reply
  if (status >= 200 && status < 300) return undefined
  if (transient.has(status)) return retry(retryAfterMs(reply, at.now), `http_${status}`)
  if (redirects.has(status)) return disabled('redirect')
  if ([401, 403, 404, 410].includes(status)) return disabled(`http_${status}`)
  if (status === 413) return rejected('size')
  if (status >= 400 && status < 500) return rejected(`http_${status}`)
  return unknown(`http_${status}`)
}

/** `Retry-After` in seconds or as a date, up to a day. */
export function retryAfterMs({ headers }: Reply, now: number): number | undefined {
  const text = headers['retry-after']?.trim()
  if (!text) return undefined
  const ms = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now
  return Number.isNaN(ms) ? undefined : Math.min(longestRetryAfterMs, Math.max(0, Math.ceil(ms)))
}

/** The JSON object of an answer; undefined when it is none. */
export function jsonOf(reply: Reply): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(reply.body)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

/** A member that is an object. */
export function memberOf(value: unknown, name: string): Record<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const member = (value as Record<string, unknown>)[name]
  return typeof member === 'object' && member !== null ? (member as Record<string, unknown>) : undefined
}

/** The same outcome with what the provider said. */
export function withWords(outcome: Outcome, code: unknown, message: unknown): Outcome {
  return {
    ...outcome,
    ...(code === undefined || code === null ? {} : { providerCode: textOf(code) }),
    ...(message === undefined || message === null ? {} : { providerMessage: textOf(message).slice(0, 500) }),
  }
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))
