// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { Inbox } from './inbox.ts'

/** A promise and what ends it; the pages' language level has no `Promise.withResolvers`. */
function defer(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let resolve = () => {}
  let reject: (error: Error) => void = () => {}
  const promise = new Promise<void>((...ends) => ([resolve, reject] = ends))
  return { promise, resolve, reject }
}

describe('the inbox of a page', () => {
  it('delivers what came in one go', async () => {
    const batches: number[][] = []
    const inbox = new Inbox<number>((items) => batches.push(items))
    inbox.push([1])
    inbox.push([2, 3])
    expect(batches).toEqual([])
    await expect.poll(() => batches).toEqual([[1, 2, 3]])
  })

  it('holds items back until the last fetch has ended, whether it succeeds or not', async () => {
    const batches: number[][] = []
    const inbox = new Inbox<number>((items) => batches.push(items))
    const first = defer()
    const second = defer()
    const held = [inbox.holdFor(first.promise), inbox.holdFor(second.promise)]
    inbox.push([1])
    first.resolve()
    await held[0]
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(batches).toEqual([])
    second.reject(new Error('the server is gone'))
    await held[1]
    expect(batches).toEqual([[1]])
  })

  it('forgets what waits when the page follows something else', async () => {
    const batches: number[][] = []
    const inbox = new Inbox<number>((items) => batches.push(items))
    inbox.push([1])
    inbox.clear()
    inbox.push([2])
    await expect.poll(() => batches).toEqual([[2]])
  })
})
