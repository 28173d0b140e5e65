// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { parseRate } from '../ingest/rate-grammar.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import { parseExactly } from '../telemetry/values.ts'
import type { ProductPatch, ProductSettings, Rates, StoredSettings } from './schemas.ts'

/** Defaults of device API §17.1. */
const defaultRpc: ProductSettings['rpc'] = {
  submit: 'burst',
  retries: 5,
  ackTimeoutMs: 10_000,
  responseTimeoutMs: 30_000,
  closeOnAckTimeout: false,
  clientTimeoutMs: 60_000,
}
const defaultMaxChildDevices = 10_000

const maxModelKeys = 1000
const maxMethods = 100
const maxClientRpcBytes = 65_536
const maxTopicBytes = 512
const maxTopicLevels = 16
const limitScopes = ['device', 'gateway', 'gatewayDevice'] as const

/** What a product stores, with the defaults filled in. */
export function completeSettings(stored: StoredSettings): ProductSettings {
  const { transport, payload, gateway, discovery, limits, rpc, clientRpc, ota } = stored
  return Object.freeze({
    transport: { telemetryTopics: [], attributesTopics: [], attributesPushTopic: null, ...transport },
    payload: payload ? { ...defaultPayloadRules, ...payload } : defaultPayloadRules,
    gateway: { autoCreate: true, ...gateway },
    discovery: discovery ?? 'off',
    limits: {
      device: completeRates(limits?.device),
      gateway: completeRates(limits?.gateway),
      gatewayDevice: completeRates(limits?.gatewayDevice),
      maxChildDevices: limits?.maxChildDevices ?? defaultMaxChildDevices,
    },
    rpc: rpc ? { ...defaultRpc, ...rpc } : defaultRpc,
    clientRpc: clientRpc ?? {},
    ota: { firmwareId: null, softwareId: null, ...ota },
  })
}

/** What is stored, its ready answers with all digits of their numbers. @param row `replies` is `settings.clientRpc` as text */
export function withExactReplies({ settings, replies }: { settings: StoredSettings; replies: string | null }): StoredSettings {
  if (replies === null) return settings
  return { ...settings, clientRpc: parseExactly(replies) as NonNullable<StoredSettings['clientRpc']> }
}

/** A product that changes nothing: one object, since most devices have it. */
export const defaultSettings = completeSettings({})

/** The limits of a scope with each counter; null when none is set. */
export function completeRates(rates: Partial<Rates> | undefined): Rates | null {
  const complete = { messages: null, telemetryMessages: null, telemetryDataPoints: null, ...rates }
  return Object.values(complete).every((rate) => rate === null) ? null : complete
}

/**
 * A deep merge; null brings the default back. Provisioning is merged where its secret can be sealed.
 *
 * @throws {ProblemError} `UNPROCESSABLE`, `RATE_LIMIT_SYNTAX`
 */
export function mergeSettings(stored: StoredSettings, patch: Partial<ProductPatch>): StoredSettings {
  const { model, transport, payload, gateway, discovery, limits, rpc, ota, clientRpc } = patch
  const given = Object.entries({ model, transport, payload, gateway, discovery, limits, rpc, ota }).filter(
    ([, value]) => value !== undefined,
  )
  // The schema of the patch has checked every member of it, so what was valid stays so.
  const merged = mergePatch(stored, Object.fromEntries(given)) as StoredSettings
  if (clientRpc !== undefined) {
    // A reply is a value and no object to merge into: null inside it is meant.
    const replies = Object.entries({ ...stored.clientRpc, ...clientRpc }).filter(([, reply]) => reply !== null)
    merged.clientRpc = clientRpc === null ? {} : (Object.fromEntries(replies) as NonNullable<StoredSettings['clientRpc']>)
  }
  checkModel(merged)
  checkTransport(merged)
  checkClientRpc(merged)
  checkLimits(merged.limits ?? {}, '/limits')
  return merged
}

/** @throws {ProblemError} `RATE_LIMIT_SYNTAX` with each wrong entry */
export function checkLimits(limits: { [Scope in (typeof limitScopes)[number]]?: Partial<Rates> | null }, pointer: string): void {
  const errors: FieldError[] = []
  for (const scope of limitScopes) {
    for (const [counter, rate] of Object.entries(limits[scope] ?? {})) {
      const parsed = parseRate(rate ?? '')
      if (typeof parsed === 'string') errors.push({ pointer: `${pointer}/${scope}/${counter}`, detail: parsed })
    }
  }
  if (errors.length > 0) throw new ProblemError('RATE_LIMIT_SYNTAX', { errors })
}

function checkModel({ model }: StoredSettings): void {
  const keys = Object.entries(model?.keys ?? {})
  const errors = keys
    .filter(([, { min, max }]) => min !== undefined && max !== undefined && min > max)
    .map(([key]) => ({
      pointer: `/model/keys/${key.replaceAll('~', '~0').replaceAll('/', '~1')}/min`,
      detail: `The minimum of ${key} lies above its maximum.`,
    }))
  if (keys.length > maxModelKeys) errors.push({ pointer: '/model/keys', detail: `A model has at most ${maxModelKeys} keys.` })
  if (errors.length > 0) throw new ProblemError('UNPROCESSABLE', { errors: errors.slice(0, 20) })
}

/** */
function checkTransport({ transport = {} }: StoredSettings): void {
  const { telemetryTopics = [], attributesTopics = [], attributesPushTopic } = transport
  const errors: FieldError[] = []
  const check = (pointer: string, topic: string, kind: 'filter' | 'topic') => {
    const problem = topicProblem(topic, kind)
    if (problem) errors.push({ pointer: `/transport/${pointer}`, detail: problem })
  }
  telemetryTopics.forEach((topic, index) => check(`telemetryTopics/${index}`, topic, 'filter'))
  attributesTopics.forEach((topic, index) => {
    check(`attributesTopics/${index}`, topic, 'filter')
    if (telemetryTopics.includes(topic)) {
      errors.push({ pointer: `/transport/attributesTopics/${index}`, detail: `"${topic}" is a filter of telemetry already.` })
    }
  })
  if (attributesPushTopic !== undefined) check('attributesPushTopic', attributesPushTopic, 'topic')
  if (errors.length > 0) throw new ProblemError('UNPROCESSABLE', { errors })
}

function topicProblem(topic: string, kind: 'filter' | 'topic'): string | undefined {
  if (!topic.isWellFormed() || /\p{Cc}/u.test(topic)) return 'A topic holds no control characters.'
  if (/^(?:v1\/|v2\/|\/provision|\$)/.test(topic)) return `"${topic}" begins like a fixed topic: v1/, v2/, /provision or $.`
  if (Buffer.byteLength(topic) > maxTopicBytes) return `A topic has at most ${maxTopicBytes} bytes.`
  const levels = topic.split('/')
  if (levels.length > maxTopicLevels) return `A topic has at most ${maxTopicLevels} levels.`
  if (kind === 'topic') return /[+#]/.test(topic) ? `"${topic}" may hold no wildcard.` : undefined
  const isWrong = levels.some((level, index) => {
    if (level === '+') return false
    if (level === '#') return index < levels.length - 1
    return /[+#]/.test(level)
  })
  return isWrong ? `In "${topic}", + must be a whole level and # the last one.` : undefined
}

function checkClientRpc({ clientRpc = {} }: StoredSettings): void {
  const fail = (detail: string) => {
    throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/clientRpc', detail }] })
  }
  if (Object.keys(clientRpc).length > maxMethods) fail(`A product answers at most ${maxMethods} methods.`)
  const text = JSON.stringify(clientRpc)
  if (Buffer.byteLength(text) > maxClientRpcBytes) fail(`The replies have more than ${maxClientRpcBytes} bytes.`)
  // JSON.stringify escapes U+0000 and lone surrogates, which jsonb cannot hold; an escaped backslash before is none.
  if (/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/.test(text)) fail('A reply holds text that is not valid Unicode.')
}

/** RFC 7396. Members are set one by one through entries, so that no name has a meaning of its own [V-3]. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch
  const merged = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) merged.delete(name)
    else if (value !== undefined) merged.set(name, mergePatch(merged.get(name), value))
  }
  return Object.fromEntries(merged)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
