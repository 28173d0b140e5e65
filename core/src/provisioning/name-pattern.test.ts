// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { matchName, namePatternProblem } from './name-pattern.ts'

describe('the pattern of device names in certificates', () => {
  it.each([
    ['(.+)', 'pump-1', 'pump-1'],
    ['^device-([0-9a-f]{12})$', 'device-0123456789ab', '0123456789ab'],
    ['^(\\w+)\\.(?:plant|site)\\.example$', 'pump.plant.example', 'pump'],
    ['([^@]+)@', '冷库@example', '冷库'],
    ['x([+*?(|{)]+)', 'x+*?(', '+*?('],
    ['(a+?)b', 'aab', 'aa'],
    ['^a\\\\(b)$', 'a\\b', 'b'],
  ])('%s takes a name out of %s', (pattern, commonName, name) => {
    expect(namePatternProblem(pattern)).toBeUndefined()
    expect(matchName(pattern, commonName)).toBe(name)
  })

  it('gives no name where it does not match, or the common name is longer than one may be', () => {
    expect(matchName('^device-(.+)$', 'pump')).toBeUndefined()
    expect(matchName('( *)', '   ')).toBeUndefined()
    expect(matchName('(.+)', 'x'.repeat(65))).toBeUndefined()
  })

  it.each([
    ['(a+)+$', 'repeatedGroup'],
    ['(?:a|a)*(b)', 'repeatedGroup'],
    ['(a)\\1', 'reference'],
    ['(?=x)(a)', 'lookaround'],
    ['(?<n>a)', 'lookaround'],
    ['a.*', 'noGroup'],
    ['.*.*.*.*(x)', 'repetitions'],
    ['(a|b)|(c|d)|(e|f)', 'alternatives'],
    ['(', 'syntax'],
    [`(${'x'.repeat(300)})`, 'long'],
  ])('%s is refused: it may cost too much, or gives no name', (pattern, problem) => {
    expect(namePatternProblem(pattern)).toBe(problem)
  })
})
