// SPDX-License-Identifier: AGPL-3.0-only
import type { EventBus } from '../events.ts'
import type { LongPolls } from '../ingest/long-polls.ts'
import { attributePushFilters } from '../ingest/mqtt/topics.ts'
import type { Sessions } from '../ingest/sessions.ts'
import { toJsonValue } from '../telemetry/values.ts'
import type { AttributeChange } from './attributes.ts'
import { formatValues } from './questions.ts'

/**
 * Brings changes of shared attributes to the device that is there to hear of them, [A-3]: to its MQTT
 * session if that subscribed, and to its HTTP poll.
 */
export function pushSharedAttributes(events: EventBus, parts: { sessions: Sessions; polls: LongPolls }): () => void {
  return events.on('attributes.changed', (change) => {
    if (change.scope !== 'shared') return
    const session = parts.sessions.get(change.deviceId)
    const ownTopic = session?.device.settings.transport.attributesPushTopic
    const topic = session?.pushTopic(ownTopic ? [...attributePushFilters, ownTopic] : attributePushFilters)
    const isPolling = parts.polls.has(change.deviceId, 'attributes')
    if (topic === undefined && !isPolling) return
    const text = formatPush(change)
    if (isPolling) parts.polls.answer(change.deviceId, 'attributes', text)
    if (topic !== undefined) session?.send({ topic, payload: Buffer.from(text), key: 'attributes', merge: mergePushes })
  })
}

/** One message with exactly the keys of the change. */
export function formatPush({ values, deleted }: Pick<AttributeChange, 'values' | 'deleted'>): string {
  return formatValues(values, ...(deleted.length > 0 ? [`"deleted":${JSON.stringify(deleted)}`] : []))
}

/** [M-25] Two pushes that both still wait, as one: the newer word on each key counts. */
export function mergePushes(older: Buffer, newer: Buffer): Buffer {
  const [first, second] = [older, newer].map((payload) => splitPush(payload))
  const values = { ...first!.values, ...second!.values }
  for (const key of second!.deleted) delete values[key]
  const deleted = new Set([...first!.deleted.filter((key) => !Object.hasOwn(second!.values, key)), ...second!.deleted])
  return Buffer.from(JSON.stringify(deleted.size > 0 ? { ...values, deleted: [...deleted] } : values))
}

function splitPush(payload: Buffer): { values: Record<string, unknown>; deleted: string[] } {
  // Numbers keep their digits, and every name is an own member, `__proto__` too.
  const { deleted, ...values } = toJsonValue({ kind: 'json', value: payload.toString() }) as Record<string, unknown>
  return { values, deleted: Array.isArray(deleted) ? deleted.map(String) : [] }
}
