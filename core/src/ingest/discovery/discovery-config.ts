// SPDX-License-Identifier: AGPL-3.0-only
import type { Reject } from '../rejects.ts'

/** What a device has announced of one value: where it comes, how to read it, and how people see it. */
export type Hint = {
  key: string
  /** Which announcement it is: its topic between the first word and the last. */
  id: string
  /** Topic of its states. */
  topic: string
  /** Members that lead to the value inside a JSON state; empty: the state itself. */
  path: string[]
  /** Texts that mean true and false. */
  on?: string
  off?: string
  title?: string
  unit?: string
}

/** `homeassistant/<component>/[<node>/]<object>/config` */
export type ConfigTopic = { id: string; component: string; object: string }

const namePattern = /^[A-Za-z0-9_-]{1,64}$/
/** Components whose state is one of two texts. */
const switching: ReadonlySet<string> = new Set(['binary_sensor', 'switch'])
const template = /^\{\{\s*value(_json(?:\.[A-Za-z_]\w*|\[(?:'[^']+'|"[^"]+")\])+)?\s*(?:\|[^{}]*)?\}\}$/
const step = /\.([A-Za-z_]\w*)|\['([^']+)'\]|\["([^"]+)"\]/g
const maxTemplate = 200

export function parseConfigTopic(topic: string): ConfigTopic | undefined {
  const [root, component = '', ...rest] = topic.split('/')
  if (root !== 'homeassistant' || rest.pop() !== 'config' || rest.length < 1 || rest.length > 2) return undefined
  const object = rest.pop()!
  const node = rest.pop()
  if (![component, object, ...(node === undefined ? [] : [node])].every((name) => namePattern.test(name))) return undefined
  const id = [component, ...(node === undefined ? [] : [node]), object].join('/')
  return { id, component, object }
}

const wrongTemplate: Reject = {
  code: 'SHAPE_INVALID',
  detail: 'a value_template is {{ value }} or {{ value_json.name }}, with filters or without',
}

/** @returns undefined for an entity without states, such as a button */
export function parseConfig(payload: Buffer, { id, component, object }: ConfigTopic): Hint | Reject | undefined {
  const config = parseObject(payload.toString())
  if (!config) return { code: 'PAYLOAD_MALFORMED', detail: 'the announcement is no JSON object' }
  const text = (...names: string[]) =>
    names.map((name) => config[name]).find((value): value is string => typeof value === 'string' && value !== '')
  const given = text('state_topic', 'stat_t')
  if (given === undefined) return undefined
  const base = text('~') ?? ''
  const topic = given.startsWith('~') ? base + given.slice(1) : given.endsWith('~') ? given.slice(0, -1) + base : given
  const path = parseTemplate(text('value_template', 'val_tpl') ?? '{{ value }}')
  if (!path) return wrongTemplate
  const title = text('name')
  const unit = text('unit_of_measurement', 'unit_of_meas')
  return {
    key: object,
    id,
    topic,
    path,
    ...(switching.has(component) ? { on: text('payload_on', 'pl_on') ?? 'ON', off: text('payload_off', 'pl_off') ?? 'OFF' } : {}),
    ...(title === undefined ? {} : { title: title.toWellFormed().slice(0, 255) }),
    ...(unit === undefined ? {} : { unit: unit.toWellFormed().slice(0, 32) }),
  }
}

/** The members a template names; what its filters do (rounding, a default) is left to whoever looks at the value. */
function parseTemplate(text: string): string[] | undefined {
  const match = text.length > maxTemplate ? null : template.exec(text.trim())
  if (!match) return undefined
  return [...(match[1] ?? '').matchAll(step)].map(([, dotted, single, double]) => dotted ?? single ?? double!)
}

/** As a client attribute keeps it: the form of a key in a product's model, with what is needed to read its states. */
export function formatHint({ id, topic, path, on, off, title, unit }: Hint): string {
  return JSON.stringify({
    title: title === undefined ? undefined : { zh: title, en: title },
    unit,
    id,
    topic,
    path,
    on,
    off,
  })
}

/** Reads {@link formatHint}; anything else is none, since a device may write its attributes as it likes. */
export function parseHint(key: string, text: string): Hint | undefined {
  const stored = parseObject(text)
  const { id, topic, path, on, off } = stored ?? {}
  const isPath = Array.isArray(path) && path.every((name) => typeof name === 'string')
  if (typeof id !== 'string' || typeof topic !== 'string' || !isPath) return undefined
  return { key, id, topic, path, ...(typeof on === 'string' && typeof off === 'string' ? { on, off } : {}) }
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}
