// SPDX-License-Identifier: AGPL-3.0-only
import type { AttributeAnswer, AttributeQuestion } from '../attributes/attribute-reads.ts'
import { formatValues, splitKeys } from '../attributes/questions.ts'
import { parseOffer } from '../claims/claims.ts'
import type { ClaimOffer } from '../claims/claims.ts'
import { JsonReader } from '../ingest/json.ts'
import type { PayloadRules } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import { isStorable, readPoint } from '../ingest/values.ts'
import type { ValueIssue } from '../ingest/values.ts'
import type { Point } from '../telemetry/points.ts'
import { toCompatJsonText } from '../telemetry/values.ts'

/** What `v1/gateway/connect` and `disconnect` say. */
export type ChildConnect = { name: string; type: string | undefined }
/** What `v1/gateway/attributes/request` asks. */
export type ChildQuestion = { id: number; name: string; question: AttributeQuestion; asked: 'one' | 'many' }
/** What `v1/gateway/rpc` answers; `data` is JSON text. */
export type ChildAnswer = { id: number; name: string; data: string }

/** A member: its value, null for JSON null, and its text as it was written. */
type Members = ReadonlyMap<string, { value: Point | null | ValueIssue; text: string }>

const longestName = 255
const largestId = 2 ** 31 - 1

const wrong = (expected: string): Reject => ({ code: 'SHAPE_INVALID', detail: `expected ${expected}` })
const wrongConnect = wrong('{"device":"A","type":"meter"}; a name has 1–255 characters')
const wrongQuestion = wrong('{"id":1,"device":"A","client":true,"key":"k"} or "keys":["k","l"]')
const wrongClaims = wrong('one object with a member for each child: {"A":{"secretKey":"…"}}')
const wrongAnswer = wrong('{"device":"A","id":1,"data":…}')

/** [G-1] A name: 1–255 characters, blanks around them don't count. */
export function parseName(text: string): string | undefined {
  const name = text.trim()
  if (name === '' || name.length > 2 * longestName || !isStorable(name)) return undefined
  return name.length <= longestName || [...name].length <= longestName ? name : undefined
}

/** @returns why the payload names no child */
export function parseConnect(payload: Buffer, rules: PayloadRules): ChildConnect | Reject {
  const members = readMembers(payload, rules, wrongConnect)
  if ('code' in members) return members
  const name = readName(members)
  const type = members.get('type')?.value ?? null
  if (name === undefined || (type !== null && (typeof type === 'string' || type.kind !== 'string'))) return wrongConnect
  const product = type === null ? '' : type.value.trim()
  if (product.length > longestName) return wrongConnect
  return { name, type: product === '' ? undefined : product }
}

/** [G-6] in the form with `key` or `keys`, and in the older one with lists of keys per scope. */
export function parseQuestion(payload: Buffer, rules: PayloadRules): ChildQuestion | Reject {
  const members = readMembers(payload, rules, wrongQuestion)
  if ('code' in members) return members
  const name = readName(members)
  const id = readId(members)
  if (name === undefined || id === undefined) return wrongQuestion
  const client = readKeys(members, 'client')
  const shared = readKeys(members, 'shared')
  if (client !== undefined || shared !== undefined) {
    const question = { ...(client === undefined ? {} : { client }), ...(shared === undefined ? {} : { shared }) }
    return { id, name, question, asked: 'many' }
  }
  const key = members.get('key')?.value ?? null
  const one = key !== null && typeof key !== 'string' && key.kind === 'string' ? [key.value] : undefined
  const keys = [...new Set(one ?? readKeys(members, 'keys'))]
  if (one === undefined && readKeys(members, 'keys') === undefined) return wrongQuestion
  const isClient = members.get('client')?.text === 'true'
  return { id, name, question: isClient ? { client: keys } : { shared: keys }, asked: keys.length === 1 ? 'one' : 'many' }
}

/** [G-6] `value` for one key, `values` when more were asked, neither for one that is missing. */
export function formatAnswer({ id, name, asked }: ChildQuestion, { client, shared }: AttributeAnswer): string {
  const found = [...client, ...shared.filter(({ key }) => !client.some((one) => one.key === key))]
  const head = `{"id":${id},"device":${JSON.stringify(name)}`
  if (asked === 'many') return `${head},"values":${formatValues(found)}}`
  return found[0] === undefined ? `${head}}` : `${head},"value":${toCompatJsonText(found[0], true)}}`
}

/** [G-7] The answer to a command, as it was written. */
export function parseAnswer(payload: Buffer, rules: PayloadRules): ChildAnswer | Reject {
  const members = readMembers(payload, rules, wrongAnswer)
  if ('code' in members) return members
  const name = readName(members)
  const id = readId(members)
  if (name === undefined || id === undefined) return wrongAnswer
  const data = members.get('data')
  return { id, name, data: data === undefined ? 'null' : toStrictText(data) }
}

/** [CL-1] What each child offers, by its name; a child whose offer is none is refused alone. */
export function parseClaims(payload: Buffer, rules: PayloadRules): Map<string, ClaimOffer | Reject> | Reject {
  const members = readMembers(payload, rules, wrongClaims)
  if ('code' in members) return members
  return new Map([...members].map(([name, { text }]) => [name.trim(), parseOffer(Buffer.from(text))]))
}

function readMembers(payload: Buffer, rules: PayloadRules, wrongShape: Reject): Members | Reject {
  const reader = new JsonReader(payload, rules)
  const members = new Map<string, { value: Point | null | ValueIssue; text: string }>()
  const isObject = reader.isAtObject()
  if (!isObject) readPoint(reader, '', false)
  else {
    reader.enter()
    for (let name = reader.nextName(true); name !== undefined; name = reader.nextName(false)) {
      reader.next()
      const start = reader.at
      const value = readPoint(reader, name, false)
      if (members.has(name)) reader.noteDuplicate(name)
      members.set(name, { value, text: reader.bytes.toString('utf8', start, reader.at) })
    }
  }
  return reader.finish() ?? (isObject ? members : wrongShape)
}

function readName(members: Members): string | undefined {
  const value = members.get('device')?.value ?? null
  return value !== null && typeof value !== 'string' && value.kind === 'string' ? parseName(value.value) : undefined
}

function readId(members: Members): number | undefined {
  const value = members.get('id')?.value ?? null
  if (value === null || typeof value === 'string' || value.kind !== 'integer') return undefined
  return value.value >= 0 && value.value <= largestId ? Number(value.value) : undefined
}

/** A list of keys: an array of texts, or one text with commas; undefined for anything else. */
function readKeys(members: Members, name: string): string[] | undefined {
  const value = members.get(name)?.value ?? null
  if (value === null || typeof value === 'string') return undefined
  if (value.kind === 'string') return splitKeys(value.value)
  if (value.kind !== 'json') return undefined
  const list: unknown = JSON.parse(value.value)
  if (!Array.isArray(list) || !list.every((key) => typeof key === 'string')) return undefined
  return list.filter((key) => key.trim() !== '' && isStorable(key))
}

/** What only our relaxed reading takes for JSON is written anew. */
function toStrictText({ value, text }: { value: Point | null | ValueIssue; text: string }): string {
  try {
    JSON.parse(text)
    return text
  } catch {
    return value === null || typeof value === 'string' ? 'null' : toCompatJsonText(value, true)
  }
}
