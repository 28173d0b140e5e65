// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { effectScope, nextTick, ref } from 'vue'
import { ApiError } from '../api/errors.ts'
import { useList } from './use-list.ts'

type Row = { id: string }
type Asked = {
  query: string
  cursor: string | undefined
  signal: AbortSignal
  answer: (items: string[], next: string | null) => Promise<void>
  fail: (error: Error) => Promise<void>
}

/** A list whose answers come when the test says so. */
function open() {
  const query = ref('a')
  const asked: Asked[] = []
  const settled = () => new Promise((resolve) => setTimeout(resolve))
  const list = effectScope().run(() =>
    useList<Row, string>(
      () => query.value,
      (now, cursor, signal) =>
        new Promise((resolve, reject) => {
          asked.push({
            query: now,
            cursor,
            signal,
            async answer(items, nextCursor) {
              resolve({ items: items.map((id) => ({ id })), nextCursor, total: 9 })
              await settled()
            },
            async fail(error) {
              reject(error)
              await settled()
            },
          })
        }),
    ),
  )!
  return { list, query, asked, ids: () => list.items.value.map((row) => row.id) }
}

describe('a list paged by the server', () => {
  it('loads page after page until there is none', async () => {
    const { list, asked, ids } = open()
    expect(list.state.value).toBe('loading')
    await asked[0]!.answer(['1', '2'], 'next')
    expect([list.state.value, list.total.value, list.hasNext.value]).toEqual(['ready', 9, true])
    void list.loadNext()
    void list.loadNext()
    expect(asked).toHaveLength(2)
    await asked[1]!.answer(['3'], null)
    expect([ids(), list.hasNext.value, asked[1]!.cursor]).toEqual([['1', '2', '3'], false, 'next'])
    await list.loadNext()
    expect(asked).toHaveLength(2)
  })

  it('drops the answer to an older question', async () => {
    const { list, query, asked, ids } = open()
    query.value = 'b'
    await nextTick()
    expect([asked[0]!.signal.aborted, asked[1]!.query]).toEqual([true, 'b'])
    await asked[1]!.answer(['new'], null)
    await asked[0]!.answer(['old'], null)
    expect(ids()).toEqual(['new'])
    expect(list.isLoading.value).toBe(false)
  })

  it('tells a failed first page, and keeps what it has when a later one fails', async () => {
    const failure = new ApiError({ status: 503, code: 'OVERLOADED', detail: 'busy' })
    const first = open()
    await first.asked[0]!.fail(failure)
    expect([first.list.state.value, first.list.error.value?.code]).toEqual(['error', 'OVERLOADED'])
    const later = open()
    await later.asked[0]!.answer(['1'], 'next')
    void later.list.loadNext()
    await later.asked[1]!.fail(failure)
    expect([later.list.state.value, later.ids()]).toEqual(['ready', ['1']])
  })

  it('changes, removes and adds rows in place', async () => {
    const { list, asked, ids } = open()
    await asked[0]!.answer(['1', '2', '3'], null)
    list.patch((row) => (row.id === '2' ? undefined : { id: `${row.id}!` }))
    list.prepend({ id: '0' })
    expect(ids()).toEqual(['0', '1!', '3!'])
  })

  it('is empty when the server has nothing', async () => {
    const { list, asked } = open()
    await asked[0]!.answer([], null)
    expect(list.state.value).toBe('empty')
  })
})
