// SPDX-License-Identifier: AGPL-3.0-only
import type { Api } from './api.ts'
import { Client } from './client.ts'
import type { CallOptions, ClientOptions } from './client.ts'

export type Message = Api['POST /api/v1/notifications/messages']['body']
export type SentMessage = Api['POST /api/v1/notifications/messages']['response']
export type BatchItem = Api['POST /api/v1/notifications/messages/batch']['response']['items'][number]
/** A delivery moved on. */
export type DeliveryEvent = { at: string; deliveryId: string; type: string; state: string; reason: string | null }

/** What the server takes at once. */
const mostAtOnce = 1000
/** A thousand messages take their time. */
const batchMs = 60_000
const pollMs = 500
const endStates = new Set(['sent', 'delivered', 'read', 'acked', 'failed', 'expired', 'suppressed', 'canceled'])

/** Sends messages through the hub, and follows what becomes of them. */
export class NotificationHub {
  readonly client: Client

  constructor(options: ClientOptions | Client) {
    this.client = options instanceof Client ? options : new Client(options)
  }

  /** Takes the way that the recipient has chosen. Repeats by the client itself arrive once. */
  sendSmart(message: Message, options: CallOptions = {}): Promise<SentMessage> {
    return this.client.call('POST /api/v1/notifications/messages', { body: message, ...options })
  }

  /** As many as wanted, in parts of 1,000; one that is wrong does not fail the others. Answers are in the same order. */
  async sendBatch(messages: readonly Message[], options: Omit<CallOptions, 'idempotencyKey'> = {}): Promise<BatchItem[]> {
    const items: BatchItem[] = []
    for (let from = 0; from < messages.length; from += mostAtOnce) {
      const body = { messages: messages.slice(from, from + mostAtOnce) }
      const answer = await this.client.call('POST /api/v1/notifications/messages/batch', { body, timeoutMs: batchMs, ...options })
      items.push(...answer.items.map((item) => ({ ...item, index: item.index + from })))
    }
    return items
  }

  /** Every change of every delivery, until all of them have come to an end. Needs the scope `notify.read`. */
  async *follow(id: string, options: { signal?: AbortSignal } = {}): AsyncGenerator<DeliveryEvent> {
    const known = new Map<string, string>()
    for (;;) {
      const { deliveries } = await this.client.call('GET /api/v1/notifications/messages/{id}', { path: { id }, ...options })
      for (const { id: deliveryId, type, state, reason } of deliveries) {
        if (known.get(deliveryId) === state) continue
        known.set(deliveryId, state)
        yield { at: new Date().toISOString(), deliveryId, type, state, reason }
      }
      if (deliveries.every((one) => endStates.has(one.state))) return
      options.signal?.throwIfAborted()
      await new Promise((resolve) => setTimeout(resolve, pollMs))
    }
  }
}
