// SPDX-License-Identifier: AGPL-3.0-only
import type { Channel, ChannelType } from '../../api/types.ts'

/** How a member of a configuration is typed in. */
export type FieldKind = 'text' | 'number' | 'choice' | 'lines' | 'pairs'
export type ChannelField = {
  name: string
  kind: FieldKind
  isSecret: boolean
  isRequired: boolean
  choices: string[]
  fallback: string
}
/** What stands in the fields, by their names. */
export type ChannelValues = Record<string, string>

type Property = { type?: string; anyOf?: { const?: unknown }[]; default?: unknown }

/** Set by rotating the secret, not by hand. */
const notTyped = new Set(['oldSecret', 'oldSecretUntil'])

const kindOf = ({ type, anyOf }: Property): FieldKind => {
  if (anyOf) return 'choice'
  if (type === 'integer' || type === 'number') return 'number'
  if (type === 'array') return 'lines'
  return type === 'object' ? 'pairs' : 'text'
}

/** The fields of a kind of channel, as its schema describes them: what is required first. */
export function readFields({ schema, secrets }: Pick<ChannelType, 'schema' | 'secrets'>): ChannelField[] {
  const { properties = {}, required = [] } = schema as { properties?: Record<string, Property>; required?: string[] }
  return Object.entries(properties)
    .filter(([name]) => !notTyped.has(name))
    .map(([name, property]) => ({
      name,
      kind: kindOf(property),
      isSecret: secrets.includes(name),
      isRequired: required.includes(name),
      choices: (property.anyOf ?? []).map((one) => String(one.const)),
      fallback: property.default === undefined ? '' : String(property.default),
    }))
    .sort((a, b) => Number(b.isRequired) - Number(a.isRequired))
}

function toText(value: unknown): string {
  if (value === undefined || value === null) return ''
  if (Array.isArray(value)) return value.join('\n')
  if (typeof value === 'object') {
    return Object.entries(value)
      .map(([name, one]) => `${name}: ${String(one)}`)
      .join('\n')
  }
  return String(value)
}

/** Secrets are never read back: their fields begin empty. */
export function toValues(fields: readonly ChannelField[], config: Channel['config'] | undefined): ChannelValues {
  return Object.fromEntries(
    fields.map(({ name, isSecret, fallback, choices, isRequired }) => {
      if (isSecret) return [name, '']
      const stored = toText(config?.[name])
      return [name, stored || (config ? '' : fallback || (isRequired ? (choices[0] ?? '') : ''))]
    }),
  )
}

const readLines = (text: string): string[] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)

function fromText(text: string, kind: FieldKind): unknown {
  if (kind === 'number') return Number(text)
  if (kind === 'lines') return readLines(text)
  if (kind !== 'pairs') return text.trim()
  const pairs = readLines(text).map((line) => {
    const at = line.indexOf(':')
    return at === -1 ? [line, ''] : [line.slice(0, at).trim(), line.slice(at + 1).trim()]
  })
  return Object.fromEntries(pairs) as Record<string, string>
}

/**
 * What is sent. Of a stored channel an emptied field is taken away by null, and an empty secret stays as it is;
 * a pasted address replaces what it says, so the members it is made of go unless they are typed anew.
 */
export function toConfig(
  fields: readonly ChannelField[],
  values: ChannelValues,
  { isStored, address = '' }: { isStored: boolean; address?: string },
): Record<string, unknown> {
  const config: Record<string, unknown> = address.trim() === '' ? {} : { url: address.trim() }
  for (const { name, kind, isSecret, isRequired } of fields) {
    const text = values[name] ?? ''
    if (text.trim() !== '') config[name] = fromText(text, kind)
    else if (isStored && (isSecret ? 'url' in config && isRequired : true)) config[name] = null
  }
  return config
}
