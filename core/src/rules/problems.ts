// SPDX-License-Identifier: AGPL-3.0-only

/** One thing that is wrong with a rule; `pointer` is a JSON pointer into the document. */
export type RuleProblem = { pointer: string; code: string; detail: string }

/** Where in a document we are, and what was found so far. */
export class Findings {
  readonly problems: RuleProblem[] = []

  add(pointer: string, code: string, detail: string): undefined {
    this.problems.push({ pointer, code, detail })
    return undefined
  }

  /** Members nobody knows are no slip to pass over: a misspelt `forMs` would be a rule without a dwell. */
  checkMembers(pointer: string, value: Readonly<Record<string, unknown>>, known: readonly string[]): void {
    for (const name of Object.keys(value)) {
      if (!known.includes(name)) this.add(member(pointer, name), 'unknown_property', `there is no member "${name}" here`)
    }
  }
}

export function member(pointer: string, name: string | number): string {
  return `${pointer}/${String(name).replaceAll('~', '~0').replaceAll('/', '~1')}`
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
