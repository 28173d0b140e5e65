// SPDX-License-Identifier: AGPL-3.0-only

/** A rule that is one sentence: when a value of some devices is so for so long, raise an alarm. */
export const conditions = ['compare', 'offline', 'noData'] as const
export const numberOps = ['gt', 'ge', 'lt', 'le', 'eq', 'ne'] as const
export const scopes = ['all', 'products', 'devices', 'tags'] as const
export const modes = ['on', 'dryRun', 'off'] as const
export const ruleSeverities = ['critical', 'major', 'minor', 'warning'] as const

type Op = (typeof numberOps)[number]
export type RuleForm = {
  name: string
  mode: (typeof modes)[number]
  scope: (typeof scopes)[number]
  productIds: string[]
  deviceIds: string[]
  tags: string
  condition: (typeof conditions)[number]
  key: string
  op: Op
  value: string
  hysteresis: string
  /** Of a dwell, and of silence for `noData`. */
  forMs: number
  severity: (typeof ruleSeverities)[number]
  clearForMs: number
  notifies: boolean
}
type Json = Record<string, unknown>

export const blankRule: RuleForm = {
  name: '',
  mode: 'on',
  scope: 'all',
  productIds: [],
  deviceIds: [],
  tags: '',
  condition: 'compare',
  key: '',
  op: 'gt',
  value: '',
  hysteresis: '',
  forMs: 300_000,
  severity: 'major',
  clearForMs: 0,
  notifies: true,
}

const notify = { on: ['raised', 'cleared'], type: 'notify' }
const isJson = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

/** `80` is a number, `true` a boolean, anything else a text; quotes make a text of what looks like another. */
export function readConstant(text: string): number | boolean | string {
  const trimmed = text.trim()
  if (/^".*"$/.test(trimmed)) return trimmed.slice(1, -1)
  if (trimmed === 'true' || trimmed === 'false') return trimmed === 'true'
  return trimmed !== '' && Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed
}
function writeConstant(value: unknown): string {
  const text = String(value)
  return typeof value === 'string' && typeof readConstant(text) !== 'string' ? `"${text}"` : text
}
const readTags = (text: string) => [
  ...new Set(
    text
      .split(/[,，]/)
      .map((one) => one.trim())
      .filter(Boolean),
  ),
]

function targetOf({ scope, productIds, deviceIds, tags }: RuleForm): Json {
  if (scope === 'products') return { productIds: [...productIds] }
  if (scope === 'devices') return { deviceIds: [...deviceIds] }
  return scope === 'tags' ? { tags: readTags(tags) } : { all: true }
}

function whenOf({ condition, key, op, value, hysteresis, forMs }: RuleForm): Json {
  if (condition === 'offline') return { connection: 'offline' }
  if (condition === 'noData') return { noData: { ...(key.trim() ? { key: key.trim() } : {}), forMs } }
  const moves = hysteresis.trim() === '' || op === 'eq' || op === 'ne' ? {} : { hysteresis: Number(hysteresis) }
  return { left: { key: key.trim() }, op, right: readConstant(value), ...moves }
}

/** The document of a sentence. What the sentence does not speak of is kept from `base`. */
export function toRule(form: RuleForm, base: Json = {}): Json {
  const { clear: _, actions: __, ...rest } = base
  const dwell = form.condition === 'noData' || form.forMs === 0 ? {} : { forMs: form.forMs }
  return {
    ...rest,
    kind: 'alarm',
    name: form.name.trim(),
    mode: form.mode,
    target: targetOf(form),
    levels: [{ severity: form.severity, when: whenOf(form), ...dwell }],
    ...(form.clearForMs > 0 ? { clear: { forMs: form.clearForMs } } : {}),
    ...(form.notifies ? { actions: [notify] } : {}),
  }
}

/** @returns undefined for what is more than a sentence: that is edited as JSON */
export function fromRule(rule: Json): RuleForm | undefined {
  const { target, levels, clear, actions } = rule
  const [level, ...others] = Array.isArray(levels) ? (levels as unknown[]) : []
  if (!isJson(target) || !isJson(level) || others.length > 0) return undefined
  const when = readWhen(level)
  const where = readTarget(target)
  if (!when || !where) return undefined
  const form: RuleForm = {
    ...blankRule,
    ...where,
    ...when,
    name: String(rule['name'] ?? ''),
    mode: modes.find((one) => one === rule['mode']) ?? 'on',
    severity: ruleSeverities.find((one) => one === level['severity']) ?? 'critical',
    clearForMs: isJson(clear) && typeof clear['forMs'] === 'number' ? clear['forMs'] : 0,
    notifies: Array.isArray(actions) && actions.length > 0,
  }
  // Only what comes out of the form as it went in may be edited by it.
  return canonical(toRule(form, rule)) === canonical(dropDefaults(rule)) ? form : undefined
}

function readTarget(target: Json): Partial<RuleForm> | undefined {
  if (target['all'] === true) return { scope: 'all' }
  const lists = Object.entries(target).filter(([, value]) => Array.isArray(value) && value.length > 0)
  const [only, ...more] = lists
  if (!only || more.length > 0) return undefined
  const ids = (only[1] as unknown[]).map(String)
  if (only[0] === 'productIds') return { scope: 'products', productIds: ids }
  if (only[0] === 'deviceIds') return { scope: 'devices', deviceIds: ids }
  return only[0] === 'tags' ? { scope: 'tags', tags: ids.join(', ') } : undefined
}

function readWhen({ when, forMs }: Json): Partial<RuleForm> | undefined {
  if (!isJson(when)) return undefined
  const dwell = { forMs: typeof forMs === 'number' ? forMs : 0 }
  if (when['connection'] === 'offline') return { condition: 'offline', ...dwell }
  const { noData, left, op, right, hysteresis } = when
  if (isJson(noData)) return { condition: 'noData', key: String(noData['key'] ?? ''), forMs: Number(noData['forMs'] ?? 0) }
  const known = numberOps.find((one) => one === op)
  if (!isJson(left) || typeof left['key'] !== 'string' || !known || right === undefined || typeof right === 'object') return undefined
  return {
    condition: 'compare',
    key: left['key'],
    op: known,
    value: writeConstant(right),
    hysteresis: hysteresis === undefined ? '' : String(hysteresis),
    ...dwell,
  }
}

/** What says no more than its absence: empty lists, nulls, a dwell of nothing, the identity the server adds. */
function dropDefaults(rule: Json): Json {
  const clean = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(clean)
    if (!isJson(value)) return value
    const kept = Object.entries(value).flatMap(([name, one]): [string, unknown][] => {
      const next = clean(one)
      const isNothing = next === null || (Array.isArray(next) && next.length === 0) || (isJson(next) && Object.keys(next).length === 0)
      const isDefault = isNothing || (name === 'forMs' && next === 0) || (name === 'all' && next === false)
      return isDefault ? [] : [[name, next]]
    })
    return Object.fromEntries(kept)
  }
  return clean({ mode: 'on', ...rule }) as Json
}

function canonical(value: unknown): string {
  const sorted = (one: unknown): unknown =>
    Array.isArray(one)
      ? one.map(sorted)
      : isJson(one)
        ? Object.fromEntries(
            Object.entries(one)
              .sort(([a], [b]) => (a < b ? -1 : 1))
              .map(([name, inner]) => [name, sorted(inner)]),
          )
        : one
  return JSON.stringify(sorted(dropDefaults(value as Json)))
}

/** Whether there is enough to save. */
export function isComplete(form: RuleForm): boolean {
  const hasTarget =
    form.scope === 'all' ||
    (form.scope === 'products' && form.productIds.length > 0) ||
    (form.scope === 'devices' && form.deviceIds.length > 0) ||
    (form.scope === 'tags' && readTags(form.tags).length > 0)
  const hasCondition = form.condition !== 'compare' || (form.key.trim() !== '' && form.value.trim() !== '')
  return form.name.trim() !== '' && hasTarget && hasCondition
}
