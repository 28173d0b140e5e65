// SPDX-License-Identifier: AGPL-3.0-only

/**
 * Whether `actual` is what a case expects: an object matches when every given member does, arrays
 * element by element; `$exact`, `$re`, `$type`, `$absent`, `$any`, `$gte` and `$json` say more.
 */
export function isMatch(expected: unknown, actual: unknown): boolean {
  if (typeof expected !== 'object' || expected === null) return Object.is(expected, actual)
  if (Array.isArray(expected)) {
    return Array.isArray(actual) && actual.length === expected.length && expected.every((one, i) => isMatch(one, actual[i]))
  }
  const members = expected as Record<string, unknown>
  if ('$re' in members) return typeof actual === 'string' && new RegExp(String(members['$re'])).test(actual)
  if ('$type' in members) {
    return (
      String(members['$type']).split('|').includes(typeOf(actual)) ||
      (String(members['$type']).includes('number') && typeof actual === 'number')
    )
  }
  if ('$any' in members) return (members['$any'] as unknown[]).some((one) => isMatch(one, actual))
  if ('$gte' in members) return typeof actual === 'number' && actual >= Number(members['$gte'])
  if ('$json' in members) return typeof actual === 'string' && isMatch(members['$json'], JSON.parse(actual))
  if (typeof actual !== 'object' || actual === null || Array.isArray(actual)) return false
  const given = actual as Record<string, unknown>
  if ('$exact' in members) {
    const exact = members['$exact'] as Record<string, unknown>
    return Object.keys(given).length === Object.keys(exact).length && isMatch(exact, given)
  }
  return Object.entries(members).every(([name, one]) => (isAbsent(one) ? !(name in given) : name in given && isMatch(one, given[name])))
}

function isAbsent(expected: unknown): boolean {
  return typeof expected === 'object' && expected !== null && '$absent' in expected
}

function typeOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  return Number.isInteger(value) ? 'integer' : typeof value
}
