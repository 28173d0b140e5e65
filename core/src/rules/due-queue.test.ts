// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DueQueue } from './due-queue.ts'

describe('a queue of what is due', () => {
  it('gives the items in the order of their instants, wherever they were moved or taken out before', () => {
    const change = fc.tuple(fc.nat(20), fc.oneof(fc.nat(100), fc.constant(Number.POSITIVE_INFINITY)))
    fc.assert(
      fc.property(fc.array(change, { maxLength: 100 }), fc.nat(100), (changes, now) => {
        const queue = new DueQueue<number>()
        const model = new Map<number, number>()
        for (const [item, at] of changes) {
          queue.set(item, at)
          if (at === Number.POSITIVE_INFINITY) model.delete(item)
          else model.set(item, at)
        }
        expect(queue.size).toBe(model.size)
        const due = [...model].filter(([, at]) => at <= now)
        const instants: number[] = []
        for (;;) {
          const at = queue.nextAt
          const item = queue.take(now)
          if (item === undefined) break
          expect(model.get(item)).toBe(at)
          instants.push(at)
        }
        expect(instants).toEqual(due.map(([, at]) => at).sort((one, other) => one - other))
        expect(queue.size).toBe(model.size - due.length)
      }),
    )
  })

  it('waits for nothing when it is empty', () => {
    expect(new DueQueue<string>().nextAt).toBe(Number.POSITIVE_INFINITY)
    expect(new DueQueue<string>().take(1)).toBeUndefined()
  })
})
