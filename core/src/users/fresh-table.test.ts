// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import type { Clock } from '../clock.ts'
import { FreshTable } from './fresh-table.ts'

function useTable(load: (key: string) => Promise<string | undefined>) {
  let now = 0
  const loads: string[] = []
  const clock: Clock = { now: () => now, monotonic: () => now, after: () => () => {} }
  const table = new FreshTable<string>(clock, (key) => {
    loads.push(key)
    return load(key)
  })
  return { table, loads, advance: (ms: number) => void (now += ms) }
}

describe('rows kept for a second', () => {
  it('are loaded once for all who ask at the same time, and again after a second', async () => {
    const { table, loads, advance } = useTable(async (key) => key.toUpperCase())
    expect(await Promise.all([table.get('a'), table.get('a'), table.get('a')])).toEqual(['A', 'A', 'A'])
    advance(999)
    await table.get('a')
    expect(loads).toHaveLength(1)
    advance(1)
    await table.get('a')
    expect(loads).toHaveLength(2)
  })

  it('are asked for again after a change, even when the load from before it ends later', async () => {
    const answers: ((value: string) => void)[] = []
    const { table } = useTable(() => new Promise((resolve) => answers.push(resolve)))
    const early = table.get('a')
    table.forget('a')
    const late = table.get('a')
    answers[1]!('new')
    answers[0]!('old')
    expect([await early, await late, await table.get('a')]).toEqual(['old', 'new', 'new'])
  })

  it('do not remember a failed load', async () => {
    let isDown = true
    const { table } = useTable(async () => {
      if (isDown) throw new Error('down')
      return 'A'
    })
    await expect(table.get('a')).rejects.toThrow('down')
    isDown = false
    expect(await table.get('a')).toBe('A')
  })

  it('remember absence, and stay bounded', async () => {
    const { table, loads } = useTable(async () => undefined)
    await table.get('first')
    await table.get('first')
    expect(loads).toHaveLength(1)
    for (let i = 0; i < 20_000; i++) await table.get(`k${i}`)
    await table.get('first')
    expect(loads.filter((key) => key === 'first')).toHaveLength(2)
  })
})
