// SPDX-License-Identifier: AGPL-3.0-only
import type { RequestForm, RequestKind } from '../requests.ts'

/** What a topic of device API §3 asks for. */
export type Route = { kind: RequestKind; form: RequestForm; id: number; chunk?: number }

/** Filters of shared attribute pushes, and of server RPC requests; a push goes out in the form subscribed last [M-39]. */
export const attributePushFilters = ['v1/devices/me/attributes', 'v2/a', 'v2/a/j'] as const
export const rpcRequestFilters = ['v1/devices/me/rpc/request/+', 'v2/r/req/+', 'v2/r/req/j/+'] as const

/** The only topics of a provisioning session [P-4]. */
export const provisionTopics = { request: '/provision/request', response: '/provision/response' } as const

/** Topics that end in `{id}`. Those of one kind differ in their beginning only; the longer one stands first. */
const numbered: readonly { prefix: string; kind: RequestKind; form: RequestForm }[] = [
  { prefix: 'v1/devices/me/attributes/request/', kind: 'attributeRequest', form: 'v1' },
  { prefix: 'v2/a/req/j/', kind: 'attributeRequest', form: 'v2/j' },
  { prefix: 'v2/a/req/', kind: 'attributeRequest', form: 'v2' },
  { prefix: 'v1/devices/me/rpc/response/', kind: 'rpcResponse', form: 'v1' },
  { prefix: 'v2/r/res/j/', kind: 'rpcResponse', form: 'v2/j' },
  { prefix: 'v2/r/res/', kind: 'rpcResponse', form: 'v2' },
  { prefix: 'v1/devices/me/rpc/request/', kind: 'rpcRequest', form: 'v1' },
  { prefix: 'v2/r/req/j/', kind: 'rpcRequest', form: 'v2/j' },
  { prefix: 'v2/r/req/', kind: 'rpcRequest', form: 'v2' },
]

const chunked: readonly { prefix: string; kind: RequestKind }[] = [
  { prefix: 'v2/fw/request/', kind: 'firmwareChunk' },
  { prefix: 'v2/sw/request/', kind: 'softwareChunk' },
]

const unnumbered: ReadonlyMap<string, RequestKind> = new Map([
  ['v1/devices/me/claim', 'claim'],
  ['v1/gateway/connect', 'gateway'],
  ['v1/gateway/disconnect', 'gateway'],
  ['v1/gateway/telemetry', 'gateway'],
  ['v1/gateway/attributes', 'gateway'],
  ['v1/gateway/attributes/request', 'gateway'],
  ['v1/gateway/rpc', 'gateway'],
  ['v1/gateway/claim', 'gateway'],
])

const decimal = /^(?:0|[1-9]\d{0,9})$/
const largestId = 2 ** 31 - 1

/** Finds what a topic that is neither telemetry nor client attributes asks for; `bad_id` when only its number is wrong. */
export function routeTopic(topic: string): Route | 'bad_id' | undefined {
  const plain = unnumbered.get(topic)
  if (plain !== undefined) return { kind: plain, form: 'v1', id: 0 }
  const entry = numbered.find(({ prefix }) => topic.startsWith(prefix))
  if (entry !== undefined) {
    const last = topic.slice(entry.prefix.length)
    // Further levels are another topic, for example those of protobuf payloads [T-2].
    if (last.includes('/')) return undefined
    const id = parseNumber(last)
    return id === undefined ? 'bad_id' : { kind: entry.kind, form: entry.form, id }
  }
  const file = chunked.find(({ prefix }) => topic.startsWith(prefix))
  if (file === undefined) return undefined
  const [idText = '', word, chunkText = '', ...more] = topic.slice(file.prefix.length).split('/')
  if (word !== 'chunk' || more.length > 0) return undefined
  const id = parseNumber(idText)
  const chunk = parseNumber(chunkText)
  return id === undefined || chunk === undefined ? 'bad_id' : { kind: file.kind, form: 'v2', id, chunk }
}

const answerPrefixes: Readonly<Record<'attributeRequest' | 'rpcRequest', Record<RequestForm, string>>> = {
  attributeRequest: { v1: 'v1/devices/me/attributes/response/', v2: 'v2/a/res/', 'v2/j': 'v2/a/res/j/' },
  rpcRequest: { v1: 'v1/devices/me/rpc/response/', v2: 'v2/r/res/', 'v2/j': 'v2/r/res/j/' },
}

/** Where the answer to a request goes: the form of the request [T-1]. */
export function answerTopic({ kind, form, id }: { kind: RequestKind; form: RequestForm; id: number }): string {
  return answerPrefixes[kind === 'rpcRequest' ? 'rpcRequest' : 'attributeRequest'][form] + id
}

/** Claims hold a secret: nothing of them may get into the reject log [L-3]. */
export function hasSecretPayload(topic: string): boolean {
  return topic === 'v1/devices/me/claim' || topic === 'v1/gateway/claim'
}

/** The filter a topic with numbers in it belongs to, as {@link allowedFilters} writes it. */
export function filterOf(topic: string): string {
  return topic.replaceAll(/(?<=\/)\d+(?=\/|$)/g, '+')
}

/** Echoed unchanged, so only the usual way of writing a number is one. */
function parseNumber(text: string): number | undefined {
  if (!decimal.test(text)) return undefined
  const number = Number(text)
  return number <= largestId ? number : undefined
}
