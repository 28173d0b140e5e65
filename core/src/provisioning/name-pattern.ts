// SPDX-License-Identifier: AGPL-3.0-only

/** A common name has at most 64 characters (X.520, ub-common-name). */
const maxNameLength = 64
const maxPatternLength = 256
/** So few of each, and none inside another, that matching a name takes a bounded number of steps. */
const mostRepetitions = 3
const mostAlternatives = 3

/** Why a pattern is refused, by what pages call it. */
export const patternProblems = {
  long: `A pattern has at most ${maxPatternLength} characters.`,
  reference: 'A pattern holds no references to its groups.',
  lookaround: 'A pattern does not look around, and its groups have no names.',
  noGroup: 'A pattern has a group that is the name of the device.',
  repeatedGroup: 'A group is not repeated.',
  repetitions: `A pattern repeats at most ${mostRepetitions} times.`,
  alternatives: `A pattern has at most ${mostAlternatives} alternatives.`,
  syntax: 'This is no regular expression.',
} as const
export type PatternProblem = keyof typeof patternProblems

/**
 * Why a regular expression may not take the name of a device out of a common name; undefined when it may.
 * What makes engines go back again and again is refused: repeated groups, references and looking around.
 */
export function namePatternProblem(pattern: string): PatternProblem | undefined {
  if (pattern.length > maxPatternLength) return 'long'
  // Escapes and classes count as one plain character each; references are no escapes.
  if (/\\[1-9k]/.test(pattern.replaceAll('\\\\', ''))) return 'reference'
  const plain = pattern.replaceAll(/\\[\s\S]/g, 'x').replaceAll(/\[[^\]]*\]/g, 'x')
  if (/\(\?(?!:)/.test(plain)) return 'lookaround'
  if (!/\((?!\?)/.test(plain)) return 'noGroup'
  if (/\)[*+?{]/.test(plain)) return 'repeatedGroup'
  if ((plain.match(/[*+{]|(?<![*+}(])\?/g) ?? []).length > mostRepetitions) return 'repetitions'
  if (plain.split('|').length - 1 > mostAlternatives) return 'alternatives'
  try {
    RegExp(pattern, 'u')
    return undefined
  } catch {
    return 'syntax'
  }
}

/** The first group of the pattern in a common name: the name of the device. */
export function matchName(pattern: string, commonName: string): string | undefined {
  if (commonName.length > maxNameLength || namePatternProblem(pattern)) return undefined
  return RegExp(pattern, 'u').exec(commonName)?.[1]?.trim() || undefined
}
