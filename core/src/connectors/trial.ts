// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import { withoutShare } from '../ingest/topic-filters.ts'
import type { Outbound } from '../outbound.ts'
import { toJsonText } from '../telemetry/values.ts'
import { BrokerError, connectBroker } from './broker.ts'
import type { BrokerOptions } from './broker.ts'
import { toPoints } from './feed.ts'
import { mapMessage } from './mapping.ts'
import type { MappedItem } from './mapping.ts'
import { Samples } from './samples.ts'
import type { Preview, PreviewRequest, TestResult } from './schemas.ts'
import { checkRules } from './settings.ts'

const wantedSamples = 5

/**
 * Connects with settings that need not be saved, and gathers up to five messages. Nothing is stored, and nobody else
 * loses a message: it subscribes for itself instead of taking part in a shared subscription, in a session of its own.
 */
export async function tryConnection(
  context: Context,
  outbound: Outbound,
  options: BrokerOptions & { topics: readonly string[]; seconds: number },
): Promise<TestResult> {
  const samples = new Samples()
  let enough: () => void = () => {}
  const hasEnough = new Promise<void>((resolve) => (enough = resolve))
  // A client id of its own: with the connector's it would throw that one out.
  const own = { ...options, clientId: `iot-pms-test-${randomBytes(6).toString('hex')}`, clean: true }
  try {
    const broker = await connectBroker(outbound, own, (packet, goOn) => {
      const payload = typeof packet.payload === 'string' ? Buffer.from(packet.payload) : packet.payload
      samples.add({ topic: packet.topic, payload, qos: packet.qos, retain: packet.retain, at: context.clock.now() })
      if (samples.count >= wantedSamples) enough()
      goOn()
    })
    try {
      await broker.subscribe([...new Set(options.topics.map(withoutShare))])
      const isOver = new Promise<void>((resolve) => context.clock.after(options.seconds * 1000, resolve))
      const ended = await Promise.race([hasEnough, isOver, broker.closed])
      if (ended) return { ok: false, error: ended, messages: samples.list() }
      return { ok: true, error: null, messages: samples.list() }
    } finally {
      broker.destroy()
    }
  } catch (error) {
    if (error instanceof BrokerError) return { ok: false, error: error.failure, messages: [] }
    throw error
  }
}

/** What would become of a message by these rules: the same way as a live one goes, up to the store. */
export function previewMessage(context: Context, request: PreviewRequest): Preview {
  const rules = checkRules(request.rules)
  if (request.encoding === 'base64' && !/^[A-Za-z0-9+/]*={0,2}$/.test(request.payload)) {
    throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/payload', detail: 'This is no base64.' }] })
  }
  const payload = Buffer.from(request.payload, request.encoding === 'base64' ? 'base64' : 'utf8')
  const mapped = mapMessage(rules, defaultPayloadRules, request.topic, payload)
  if (mapped.refused) return { rule: mapped.rule ?? null, ignored: false, refused: showReject(mapped.refused), items: [] }
  const receivedAt = context.clock.now()
  return {
    rule: mapped.rule,
    ignored: 'isIgnored' in mapped,
    refused: null,
    items: mapped.items.map((item) => showItem(item, receivedAt)),
  }
}

function showItem(item: MappedItem, receivedAt: number): Preview['items'][number] {
  const { points, rejects } = toPoints(item, { lastServerTs: 0, rules: defaultPayloadRules }, receivedAt)
  return {
    device: item.name,
    product: item.product ?? null,
    kind: item.kind,
    ts: item.ts === undefined ? null : new Date(item.ts).toISOString(),
    values: points.map((point) => ({ key: point.key, kind: point.kind, value: toJsonText(point) })),
    rejects: rejects.map(showReject),
  }
}

function showReject({ code, detail, key }: Reject): { code: string; detail: string; key?: string } {
  return { code, detail, ...(key === undefined ? {} : { key }) }
}
