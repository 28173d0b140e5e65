// SPDX-License-Identifier: AGPL-3.0-only
import { isUtf8 } from 'node:buffer'
import { isValidKey, maxPointsPerMessage } from '../ingest/codecs.ts'
import { JsonReader, showName } from '../ingest/json.ts'
import type { PayloadRules } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'
import type { UplinkKind } from '../ingest/uplink.ts'
import type { TypedValue } from '../telemetry/points.ts'
import type { Rule, Selection } from './schemas.ts'
import { fillTemplate, parseTemplate } from './templates.ts'
import type { Template } from './templates.ts'
import { isMatch } from '../ingest/topic-filters.ts'
import { findNode, parsePath, readTree } from './tree.ts'
import type { TreeNode } from './tree.ts'
import { castValue, readTime, readValue } from './values.ts'

export type MappedValue = TypedValue & { key: string }

/** What a message says of one device. */
export type MappedItem = {
  /** Name of the device, and of its product when it is a new one. */
  name: string
  product: string | undefined
  kind: UplinkKind
  /** ms since 1970; undefined for the time of receipt. */
  ts: number | undefined
  values: readonly MappedValue[]
  rejects: readonly Reject[]
}

/** What becomes of a message; `rule` is the index of the one that decides. */
export type Mapped =
  | { rule: number; items: readonly MappedItem[]; refused?: undefined }
  | { rule: number; items: readonly []; isIgnored: true; refused?: undefined }
  | { rule: number | undefined; refused: Reject }

export type CompiledRule = Pick<Rule, 'kind' | 'decoder' | 'flatten'> & {
  filter: readonly string[]
  name: Template
  product: Template | undefined
  key: Template
  members: readonly string[] | undefined
  omit: ReadonlySet<string>
  values: readonly (Selection & { steps: readonly string[]; key: string })[]
  time: { steps: readonly string[]; unit: NonNullable<Rule['time']>['unit'] } | undefined
}

/** Devices that one message may name. */
const maxItems = 1000

/** @returns the rules as {@link mapMessage} takes them, or what is wrong with which member */
export function compileRules(rules: readonly Rule[]): CompiledRule[] | { pointer: string; detail: string } {
  const compiled: CompiledRule[] = []
  for (const [index, rule] of rules.entries()) {
    const templates = { name: parseTemplate(rule.name), product: parseTemplate(rule.product), key: parseTemplate(rule.key) }
    for (const [member, template] of Object.entries(templates)) {
      if (typeof template === 'string') return { pointer: `/rules/${index}/${member}`, detail: template }
    }
    const { name, product, key } = templates as Record<'name' | 'product' | 'key', Template>
    if (rule.kind !== 'ignore' && name.length === 0) {
      return { pointer: `/rules/${index}/name`, detail: 'Say how the device is named, such as {topic.2} or {payload.device}.' }
    }
    compiled.push({
      kind: rule.kind,
      decoder: rule.decoder,
      flatten: rule.flatten,
      filter: rule.topic.split('/'),
      name,
      product: product.length > 0 ? product : undefined,
      key,
      members: rule.members === null ? undefined : parsePath(rule.members),
      omit: new Set(rule.omit),
      values: rule.values.map((value) => {
        const steps = parsePath(value.path)
        return { ...value, steps, key: value.key ?? steps.at(-1)! }
      }),
      time: rule.time ? { steps: parsePath(rule.time.path), unit: rule.time.unit } : undefined,
    })
  }
  return compiled
}

/**
 * What of a message is stored, for which devices. Pure: the live path and the preview both ask here, and what
 * is not known before the device is, the newest time its product takes, is looked at by {@link toPoints}.
 */
export function mapMessage(rules: readonly CompiledRule[], payloadRules: PayloadRules, topic: string, payload: Buffer): Mapped {
  const levels = topic.split('/')
  const index = rules.findIndex((rule) => isMatch(rule.filter, levels))
  const rule = rules[index]
  if (!rule) return { rule: undefined, refused: { code: 'TOPIC_UNKNOWN', detail: 'no rule of the connector is about this topic' } }
  if (rule.kind === 'ignore') return { rule: index, items: [], isIgnored: true }
  const message: Message = { rule, kind: rule.kind, payloadRules, levels, payload, points: 0 }
  const read = rule.decoder === 'json' ? readJson(message) : readSingle(message)
  if ('code' in read) return { rule: index, refused: read }
  if (message.points <= maxPointsPerMessage) return { rule: index, items: read }
  return { rule: index, refused: { code: 'TOO_MANY_POINTS', detail: `more than ${maxPointsPerMessage} values in one message` } }
}

type Message = {
  rule: CompiledRule
  kind: UplinkKind
  payloadRules: PayloadRules
  levels: readonly string[]
  payload: Buffer
  /** Values and refusals so far, in all items. */
  points: number
}

/** A payload that is one value as text: a number, or any text. */
function readSingle(message: Message): MappedItem[] | Reject {
  const { rule, payload } = message
  if (!isUtf8(payload)) return { code: 'PAYLOAD_MALFORMED', detail: 'not valid UTF-8' }
  const text = payload.toString('utf8')
  const value = castValue({ kind: 'string', value: text }, rule.decoder === 'number' ? 'number' : 'text')
  if (value === undefined) return { code: 'PAYLOAD_MALFORMED', detail: 'the payload is not a number' }
  return oneValue(message, undefined, value)
}

function readJson(message: Message): MappedItem[] | Reject {
  const { payload, payloadRules } = message
  const reader = new JsonReader(payload, payloadRules)
  const root = readTree(reader)
  const failure = reader.finish()
  if (failure) return failure
  if (root.kind === 'scalar') {
    const value = readValue(payload, root, payloadRules)
    if ('code' in value) return value
    return oneValue(message, root, value)
  }
  const roots = root.kind === 'list' ? root.items : [root]
  if (roots.length > maxItems) return { code: 'TOO_MANY_POINTS', detail: `a message may hold ${maxItems} objects` }
  const items: MappedItem[] = []
  for (const one of roots) {
    if (one.kind !== 'object') return { code: 'SHAPE_INVALID', detail: 'expected an object, or an array of objects' }
    const item = readItem(message, one)
    if ('code' in item) return item
    items.push(item)
  }
  return items
}

function oneValue(message: Message, node: TreeNode | undefined, value: TypedValue): MappedItem[] | Reject {
  const head = headOf(message, node)
  if ('code' in head) return head
  const filled = fillTemplate(message.rule.key, { levels: message.levels, payload: node })
  if ('missing' in filled) return { code: 'SHAPE_INVALID', detail: `the key needs ${filled.missing}, which the message does not have` }
  message.points++
  const key = filled.text
  if (!isValidKey(key)) return [{ ...head, ts: undefined, values: [], rejects: [wrongKey(key)] }]
  return [{ ...head, ts: undefined, values: [{ ...value, key }], rejects: [] }]
}

function readItem(message: Message, root: TreeNode): MappedItem | Reject {
  const { rule } = message
  const head = headOf(message, root)
  if ('code' in head) return head
  const found: Found = { message, values: new Map(), rejects: [] }
  const time = rule.time && findNode(root, rule.time.steps)
  const members = rule.members && findNode(root, rule.members)
  if (members?.kind === 'object') takeMembers(found, members, '', time)
  for (const selection of rule.values) takeSelection(found, root, selection)
  message.points += found.values.size + found.rejects.length
  const item = { ...head, ts: undefined, values: [...found.values.values()], rejects: found.rejects }
  if (item.values.length + item.rejects.length === 0) return { code: 'SHAPE_INVALID', detail: 'nothing in the payload that the rule picks' }
  if (!time || time.kind === 'null' || !rule.time) return item
  const ts = time.kind === 'scalar' ? readTime(time.text, rule.time.unit) : undefined
  if (ts !== undefined) return { ...item, ts }
  const refusals = item.values.map(({ key }): Reject => ({ code: 'TS_INVALID', detail: `the time is not one in ${rule.time!.unit}`, key }))
  return { ...item, values: [], rejects: [...item.rejects, ...refusals] }
}

function headOf({ rule, kind, levels }: Message, payload: TreeNode | undefined): Pick<MappedItem, 'name' | 'product' | 'kind'> | Reject {
  const name = fillTemplate(rule.name, { levels, payload })
  if ('missing' in name) return { code: 'SHAPE_INVALID', detail: `the device name needs ${name.missing}, which the message does not have` }
  if (!isDeviceName(name.text)) return { code: 'SHAPE_INVALID', detail: 'the device name has 1–255 characters, none of them a control' }
  const product = rule.product && fillTemplate(rule.product, { levels, payload })
  // A product that the message does not tell is the default one; a name nobody could use is, too.
  const isGiven = product !== undefined && 'text' in product && isDeviceName(product.text)
  return { name: name.text, product: isGiven ? product.text : undefined, kind }
}

/** Devices and products alike. */
function isDeviceName(name: string): boolean {
  return name.length >= 1 && name.length <= 255 && name.isWellFormed() && !/\p{Cc}/u.test(name)
}

type Found = { message: Message; values: Map<string, MappedValue>; rejects: Reject[] }

function takeMembers(found: Found, node: Extract<TreeNode, { kind: 'object' }>, prefix: string, time: TreeNode | undefined): void {
  const { rule } = found.message
  for (const [name, member] of node.members) {
    const key = prefix + name
    if (member === time || rule.omit.has(key)) continue
    if (rule.flatten && member.kind === 'object') takeMembers(found, member, `${key}.`, time)
    else if (member.kind !== 'null') takeValue(found, member, { key })
  }
}

function takeSelection(found: Found, root: TreeNode, selection: CompiledRule['values'][number]): void {
  const node = findNode(root, selection.steps)
  // What a device does not send this time is no mistake.
  if (node && node.kind !== 'null') takeValue(found, node, selection)
}

function takeValue({ message, values, rejects }: Found, node: TreeNode, wanted: Partial<Selection> & { key: string }): void {
  const { key, as, scale, offset } = wanted
  if (!isValidKey(key)) return void rejects.push(wrongKey(key))
  const read = readValue(
    message.payload,
    node,
    as === 'text' ? { ...message.payloadRules, castNumericStrings: false } : message.payloadRules,
  )
  if ('code' in read) return void rejects.push({ ...read, key })
  const value = as === undefined ? read : castValue(read, as)
  if (value === undefined) return void rejects.push({ code: 'SHAPE_INVALID', detail: `the value is no ${as}`, key })
  if (scale === undefined && offset === undefined) return void values.set(key, { ...value, key })
  if (value.kind !== 'double' && value.kind !== 'integer') {
    return void rejects.push({ code: 'SHAPE_INVALID', detail: 'only a number can be scaled', key })
  }
  const scaled = Number(value.value) * (scale ?? 1) + (offset ?? 0)
  if (!Number.isFinite(scaled)) return void rejects.push({ code: 'VALUE_NOT_FINITE', detail: 'scaled, it is too large for a double', key })
  values.set(key, { kind: 'double', value: scaled, key })
}

function wrongKey(key: string): Reject {
  return { code: 'KEY_INVALID', detail: 'a key has 1–255 characters, none of them a control or a lone surrogate', key: showName(key) }
}
