// SPDX-License-Identifier: AGPL-3.0-only

/** A common name has at most 64 characters (X.520, ub-common-name). */
const maxNameLength = 64
const maxPatternLength = 256
/** So few of each, and none inside another, that matching a name takes a bounded number of steps. */
const mostRepetitions = 3
const mostAlternatives = 3

/**
 * Why a regular expression may not take the name of a device out of a common name; undefined when it may.
 * What makes engines go back again and again is refused: repeated groups, references and looking around.
 */
export function namePatternProblem(pattern: string): string | undefined {
  if (pattern.length > maxPatternLength) return `A pattern has at most ${maxPatternLength} characters.`
  // Escapes and classes count as one plain character each; references are no escapes.
  if (/\\[1-9k]/.test(pattern.replaceAll('\\\\', ''))) return 'A pattern holds no references to its groups.'
  const plain = pattern.replaceAll(/\\[\s\S]/g, 'x').replaceAll(/\[[^\]]*\]/g, 'x')
  if (/\(\?(?!:)/.test(plain)) return 'A pattern does not look around, and its groups have no names.'
  if (!/\((?!\?)/.test(plain)) return 'A pattern has a group that is the name of the device.'
  if (/\)[*+?{]/.test(plain)) return 'A group is not repeated.'
  if ((plain.match(/[*+{]|(?<![*+}(])\?/g) ?? []).length > mostRepetitions) return `A pattern repeats at most ${mostRepetitions} times.`
  if (plain.split('|').length - 1 > mostAlternatives) return `A pattern has at most ${mostAlternatives} alternatives.`
  try {
    RegExp(pattern, 'u')
    return undefined
  } catch {
    return 'This is no regular expression.'
  }
}

/** The first group of the pattern in a common name: the name of the device. */
export function matchName(pattern: string, commonName: string): string | undefined {
  if (commonName.length > maxNameLength || namePatternProblem(pattern)) return undefined
  return RegExp(pattern, 'u').exec(commonName)?.[1]?.trim() || undefined
}
