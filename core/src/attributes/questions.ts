// SPDX-License-Identifier: AGPL-3.0-only
import { decodeAttributes } from '../ingest/codecs.ts'
import type { PayloadRules } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import { served } from '../ingest/requests.ts'
import type { RequestHandler } from '../ingest/requests.ts'
import { answerTopic } from '../ingest/mqtt/topics.ts'
import { toCompatJsonText } from '../telemetry/values.ts'
import type { AttributeAnswer, AttributeQuestion, AttributeReads, WantedKeys } from './attribute-reads.ts'
import type { StoredAttribute } from './columns.ts'

const wrongShape: Reject = {
  code: 'SHAPE_INVALID',
  detail: 'expected {"clientKeys":"a,b","sharedKeys":"c"}, each may be an array of texts too',
}
/** The answer could be asked for in parts. */
export const answerTooLarge: Reject = { code: 'VALUE_TOO_LARGE', detail: 'the answer would be larger than 1 MiB; ask for fewer keys' }

/** Serves attribute requests of MQTT devices. */
export function answerAttributeRequests(reads: AttributeReads): RequestHandler {
  return async (request) => {
    const { device, session, payload } = request
    const question = parseQuestion(payload, device.rules)
    if ('code' in question) return { status: 'refused', reject: question }
    const answer = await reads.read(device, question)
    if (answer === 'unavailable') return { status: 'unavailable' }
    if (answer === 'too_large') return { status: 'refused', reject: answerTooLarge }
    session.send({ topic: answerTopic(request), payload: Buffer.from(formatAnswer(answer)) })
    return served
  }
}

/** What the payload of a request asks for. */
function parseQuestion(payload: Buffer, rules: PayloadRules): AttributeQuestion | Reject {
  const decoded = decodeAttributes(payload, { ...rules, castNumericStrings: false })
  if ('refused' in decoded) return decoded.refused.code === 'SHAPE_INVALID' ? wrongShape : decoded.refused
  const read = (name: string): WantedKeys | 'wrong' | undefined => {
    if (decoded.rejects.some(({ key }) => key === name)) return 'wrong'
    const member = decoded.attributes.find(({ key }) => key === name)
    if (member === undefined) return undefined
    if (member.kind === 'string') return splitKeys(member.value)
    const list: unknown = member.kind === 'json' ? JSON.parse(member.value) : undefined
    return Array.isArray(list) && list.every((key) => typeof key === 'string') ? list.filter(isNamed) : 'wrong'
  }
  const client = read('clientKeys')
  const shared = read('sharedKeys')
  return client === 'wrong' || shared === 'wrong' ? wrongShape : askFor(client, shared)
}

/** Neither list means everything; an empty one asks for nothing of its scope. */
export function askFor(client: WantedKeys | undefined, shared: WantedKeys | undefined): AttributeQuestion {
  if (client === undefined && shared === undefined) return { client: 'all', shared: 'all' }
  return { ...(client === undefined ? {} : { client }), ...(shared === undefined ? {} : { shared }) }
}

/** Blank parts of a list name nothing; what cannot be a key is asked for in vain. */
export function splitKeys(list: string): string[] {
  return list.split(',').filter(isNamed)
}

function isNamed(key: string): boolean {
  return key.trim() !== '' && !key.includes('\0') && key.isWellFormed()
}

/** A scope without any found key is left out. */
export function formatAnswer({ client, shared }: AttributeAnswer): string {
  const members = [
    ...(client.length > 0 ? [`"client":${formatValues(client)}`] : []),
    ...(shared.length > 0 ? [`"shared":${formatValues(shared)}`] : []),
  ]
  return `{${members.join(',')}}`
}

/** Attributes as one object of JSON text; integers with all their digits. */
export function formatValues(attributes: readonly StoredAttribute[], ...more: string[]): string {
  const members = attributes.map((one) => `${JSON.stringify(one.key)}:${toCompatJsonText(one, true)}`)
  return `{${[...members, ...more].join(',')}}`
}
