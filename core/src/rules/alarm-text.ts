// SPDX-License-Identifier: AGPL-3.0-only
import type { Language } from '../errors.ts'
import { ProblemError } from '../errors.ts'
import { fillTemplate, plainOf } from '../notifications/liquid.ts'
import type { LiveScene } from './live-scene.ts'
import { attributeScopes } from './moment.ts'
import { isObject } from './problems.ts'
import type { AlarmRule, Severity } from './schemas.ts'
import type { RuleValue } from './values.ts'

const longestTitle = 500

/** What the values were when an alarm was confirmed: those of the keys the rule reads. */
export function triggerOf({ values }: LiveScene, keys: Iterable<string>): Record<string, unknown> {
  const found: [string, unknown][] = []
  for (const key of keys) {
    const slot = values.slots.get(key)
    if (slot) found.push([key, plainValue(slot.value)])
  }
  return Object.fromEntries(found)
}

function plainValue(value: RuleValue): unknown {
  if (typeof value === 'bigint') return String(value)
  return typeof value === 'object' && value !== null ? JSON.parse(value.json) : value
}

export type TitleParts = { scene: LiveScene; severity: Severity; trigger: Record<string, unknown>; language: Language; zone: string }

/** The title of an alarm [2]: what the rule says, with its values; the rule's name where it says nothing, or a value is not there. */
export function titleOf(document: AlarmRule, { scene, severity, trigger, language, zone }: TitleParts): string {
  const { title, name } = document
  const template = title?.[language] ?? title?.zh ?? title?.en
  if (template === undefined) return name
  const level = document.levels.find((one) => one.severity === severity)
  const compared = firstComparison(level?.when)
  const { card } = scene
  const data = {
    severity,
    values: trigger,
    device: { id: card.id, name: card.name, label: card.label ?? '', product: card.product },
    rule: { name },
    value: compared && isObject(compared['left']) ? trigger[String(compared['left']['key'])] : undefined,
    threshold: compared && thresholdOf(compared['right'], scene),
  }
  try {
    const known = Object.fromEntries(Object.entries(data).filter(([, value]) => value !== undefined))
    return plainOf(fillTemplate(template, known, { language, zone })).slice(0, longestTitle) || name
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error
    return name
  }
}

/** The first comparison of a condition: what its alarm is about. */
function firstComparison(when: unknown): Record<string, unknown> | undefined {
  if (!isObject(when)) return undefined
  if ('left' in when) return when
  for (const part of [when['all'], when['any'], when['not']]) {
    for (const child of Array.isArray(part) ? (part as unknown[]) : [part]) {
      const found = firstComparison(child)
      if (found) return found
    }
  }
  return undefined
}

function thresholdOf(right: unknown, scene: LiveScene): unknown {
  if (!isObject(right)) return right
  const name = right['attr']
  if (typeof name !== 'string') return undefined
  const scope = attributeScopes.find((one) => one === right['scope']) ?? 'server'
  const value = scene.readAttribute(scope, name)
  return value === undefined ? right['default'] : plainValue(value)
}
