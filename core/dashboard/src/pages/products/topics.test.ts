// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { readTopics, topicProblem } from './topics.ts'

describe('own topics of a product', () => {
  it('are written one a line', () => {
    expect(readTopics(' a/b \n\nc/+/d\na/b')).toEqual(['a/b', 'c/+/d'])
  })

  it.each([
    ['v1/devices/me', 'fixed'],
    ['$share/x', 'fixed'],
    ['a/#/b', 'wildcard'],
    ['a/b+', 'wildcard'],
    ['é'.repeat(300), 'long'],
  ] as const)('of the form %j are refused as %s [A-7]', (topic, problem) => {
    expect(topicProblem([topic], 'filter')).toEqual({ problem, topic })
  })

  it('take wildcards as filters, and none where something is sent', () => {
    expect(topicProblem(['plant/+/data', 'line/#', '#'], 'filter')).toBeUndefined()
    expect(topicProblem(['plant/+/push'], 'topic')).toEqual({ problem: 'noWildcard', topic: 'plant/+/push' })
    expect(topicProblem(['1', '2', '3', '4', '5', '6', '7', '8', '9'], 'filter')).toEqual({ problem: 'many', topic: '9' })
  })
})
