// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { createHmac } from 'node:crypto'
import { canonical } from './canonical.ts'

/** [AU-21] Members that are secret under any of these names, in any case and at any depth. */
const secretNames = ['password', 'secret', 'token', 'privateKey', 'clientSecret', 'bindPassword', 'license', 'apiKey']

/** One changed value; the path is a JSON pointer. */
export type Change = { path: string; from: unknown; to: unknown }

/** The part of a JSON schema that masking reads. */
export type SecretSchema = { 'x-secret'?: unknown; properties?: Record<string, SecretSchema>; items?: SecretSchema }

export type Masking = { key: string | Uint8Array; schema?: SecretSchema | undefined; names?: readonly string[] | undefined }

/** Shows whether a value changed without showing it; null stays null. */
export function maskValue(value: unknown, key: string | Uint8Array): unknown {
  if (value === null || value === undefined) return null
  const text = typeof value === 'string' ? value : canonical(value)
  return `hmac:${createHmac('sha256', key).update(text, 'utf8').digest('hex').slice(0, 16)}`
}

/**
 * What differs between two values, leaf by leaf, secrets masked. A member that is only in one of them has null on the
 * other side; lists of different length are one change.
 */
export function listChanges(from: unknown, to: unknown, masking: Masking): Change[] {
  const names = new Set([...secretNames, ...(masking.names ?? [])].map((name) => name.toLowerCase()))
  return compare(from ?? null, to ?? null, '', masking.schema, { key: masking.key, names })
}

type Rules = { key: string | Uint8Array; names: ReadonlySet<string> }

function compare(from: unknown, to: unknown, path: string, schema: SecretSchema | undefined, rules: Rules): Change[] {
  if (isSecret(path, schema, rules)) {
    const [before, after] = [maskValue(from, rules.key), maskValue(to, rules.key)]
    return before === after ? [] : [{ path, from: before, to: after }]
  }
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
  if (Array.isArray(from) && Array.isArray(to) && from.length === to.length) {
    return from.flatMap((one, index) => compare(one ?? null, to[index] ?? null, `${path}/${index}`, schema?.items, rules))
  }
  // A whole object that came or went is told member by member: a secret may be one of them.
  if ((isObject(from) || isObject(to)) && (from === null || isObject(from)) && (to === null || isObject(to))) {
    const [before, after] = [from ?? {}, to ?? {}]
    const members = [...new Set([...Object.keys(before), ...Object.keys(after)])]
    return members.flatMap((name) =>
      compare(before[name] ?? null, after[name] ?? null, `${path}/${escapePointer(name)}`, schema?.properties?.[name], rules),
    )
  }
  const [before, after] = [maskWithin(from, path, schema, rules), maskWithin(to, path, schema, rules)]
  return canonical(before) === canonical(after) ? [] : [{ path, from: before, to: after }]
}

/** A value that is shown whole, with the secrets inside it masked. */
function maskWithin(value: unknown, path: string, schema: SecretSchema | undefined, rules: Rules): unknown {
  if (isSecret(path, schema, rules)) return maskValue(value, rules.key)
  if (Array.isArray(value)) return value.map((one, index) => maskWithin(one ?? null, `${path}/${index}`, schema?.items, rules))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [
      name,
      maskWithin(one ?? null, `${path}/${escapePointer(name)}`, schema?.properties?.[name], rules),
    ]),
  )
}

function isSecret(path: string, schema: SecretSchema | undefined, { names }: Rules): boolean {
  return Boolean(schema?.['x-secret']) || names.has(path.slice(path.lastIndexOf('/') + 1).toLowerCase())
}

/** RFC 6901 */
function escapePointer(name: string): string {
  return name.replaceAll('~', '~0').replaceAll('/', '~1')
}
