// SPDX-License-Identifier: AGPL-3.0-only
import { Ajv } from 'ajv'
import type { TObject } from 'typebox'

/**
 * Reads the settings of a module by its schema: texts become numbers and booleans, defaults are filled in.
 *
 * @returns the values, or every problem at once; values themselves are not named, they may be secrets
 */
export function readSettings(
  schema: TObject | undefined,
  given: Readonly<Record<string, string>>,
): { values: Readonly<Record<string, unknown>> } | { problems: string[] } {
  const known = Object.keys(schema?.properties ?? {})
  const problems = Object.keys(given)
    .filter((name) => !known.includes(name))
    .map((name) => `${name} is not a setting`)
  const values: Record<string, unknown> = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ''))
  if (schema) {
    const validate = new Ajv({ coerceTypes: true, useDefaults: true, allErrors: true, strict: false }).compile(schema)
    if (!validate(values)) {
      for (const { instancePath, params, message } of validate.errors ?? []) {
        const name = instancePath.slice(1) || String(params['missingProperty'] ?? '')
        problems.push(`${name} ${message ?? 'is not valid'}`)
      }
    }
  }
  return problems.length > 0 ? { problems } : { values }
}
