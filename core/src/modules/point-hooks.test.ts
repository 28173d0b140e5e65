// SPDX-License-Identifier: AGPL-3.0-only
import { pino } from 'pino'
import { beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../clock.ts'
import type { Clock } from '../clock.ts'
import type { Device } from '../ingest/registry.ts'
import type { Stored } from '../ingest/pipeline.ts'
import { PointHooks } from './point-hooks.ts'

let now = 0
let lines: { msg: string; module: string; times?: number }[] = []
let hooks: PointHooks
const clock: Clock = { ...systemClock, monotonic: () => now }
const stored: Stored = {
  device: { id: 'd' } as Device,
  kind: 'telemetry',
  transport: 'mqtt',
  points: [{ key: 'a', ts: 1, kind: 'double', value: 1 }],
  receivedAt: 0,
  rejectCount: 0,
}
beforeEach(() => {
  now = 0
  lines = []
  hooks = new PointHooks(clock, pino({}, { write: (line: string) => lines.push(JSON.parse(line) as (typeof lines)[number]) }))
})

describe('what modules do after a commit', () => {
  it('happens for points only, in order, until it is taken away', () => {
    const calls: string[] = []
    const remove = hooks.add('first', () => void calls.push('first'))
    hooks.add('second', () => void calls.push('second'))
    hooks.run(stored)
    hooks.run({ ...stored, kind: 'attributes' })
    hooks.run({ ...stored, points: [] })
    remove()
    hooks.run(stored)
    expect(calls).toEqual(['first', 'second', 'second'])
  })

  it('is left out for a minute after a hundred failures in a row, and told of once [MO-22]', () => {
    let calls = 0
    hooks.add('broken', () => {
      calls++
      throw new Error('no')
    })
    for (let n = 0; n < 150; n++) hooks.run(stored)
    expect(calls).toBe(100)
    expect(lines.map(({ msg }) => msg)).toEqual([
      'a module failed after a commit',
      'a module failed a hundred times in a row and is left out for a minute',
    ])
    now = 60_000
    hooks.run(stored)
    expect(calls).toBe(101)
  })

  it('may fail now and then, also later, without being left out', async () => {
    let calls = 0
    hooks.add('shaky', async () => {
      calls++
      if (calls % 2 === 0) throw new Error('no')
    })
    for (let n = 0; n < 300; n++) {
      hooks.run(stored)
      await Promise.resolve()
      await Promise.resolve()
    }
    expect(calls).toBe(300)
  })

  it('is counted when it takes more than 50 ms, and told of once a minute', () => {
    hooks.add('slow', () => {
      now += 51
    })
    for (let n = 0; n < 5; n++) hooks.run(stored)
    expect(lines).toMatchObject([{ module: 'slow', times: 1 }])
    now += 60_000
    hooks.run(stored)
    expect(lines.at(-1)).toMatchObject({ module: 'slow', times: 6 })
  })
})
