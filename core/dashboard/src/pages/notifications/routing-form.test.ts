// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { countUses, freeName, isRouting, listRoutes, moveUp, readLabels, renameReceiver, setOrDrop } from './routing-form.ts'
import type { Route, Routing } from './routing-form.ts'

const draft = (): Routing => ({
  route: { receiver: '默认', routes: [{ receiver: '值班' }, { matchers: ['a="b"'], routes: [{ receiver: '值班' }] }] },
  receivers: [
    { name: '默认', targets: [] },
    { name: '值班', targets: [{ channelId: 'c' }] },
  ],
})

it('names nodes as the server does', () => {
  expect(listRoutes(draft().route).map(({ path }) => path)).toEqual(['0', '0.0', '0.1', '0.1.0'])
})

it('renames a receiver wherever it is named', () => {
  const routing = draft()
  expect(countUses(routing, '值班')).toBe(2)
  renameReceiver(routing, '值班', '夜班')
  expect(countUses(routing, '夜班')).toBe(2)
  expect(routing.receivers[1]?.name).toBe('夜班')
  expect(freeName(routing, '夜班')).toBe('夜班 2')
})

it('drops what is emptied, so that it is inherited again', () => {
  const route: Route = { groupBy: ['a'], groupWaitMs: 0 }
  setOrDrop(route, 'groupBy', [])
  setOrDrop(route, 'groupWaitMs', 0)
  expect(route).toEqual({ groupWaitMs: 0 })
})

it('reads labels as they are typed', () => {
  expect(readLabels('severity = critical\ngroup="冷库=1"\n\nnonsense\n=x')).toEqual({ severity: 'critical', group: '冷库=1' })
})

it('moves a node up and leaves the first one', () => {
  const list = [1, 2, 3]
  moveUp(list, 2)
  moveUp(list, 0)
  expect(list).toEqual([1, 3, 2])
})

it('knows a document from other JSON', () => {
  expect([isRouting(draft()), isRouting({ route: {} }), isRouting(null), isRouting([])]).toEqual([true, false, false, false])
})
