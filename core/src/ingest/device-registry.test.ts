// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { DeviceRegistry } from './device-registry.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

describe('changes of devices', () => {
  it('that come while others are read are read together, and none is missed', async () => {
    const { context } = platform
    const scope = context.rootTenant
    const registry = new DeviceRegistry(context)
    await registry.start()
    const ids: string[] = []
    for (let no = 0; no < 40; no++) ids.push((await platform.createDevice()).id)
    const asked = vi.spyOn(context.db, 'withTenant')
    const rename = (name: string, id: string) =>
      context.db.withTenant(scope, (tx) => tx.execute(sql`update devices set name = ${name} where id = ${id}`))
    // As gateways do that bring many children at a time: each asks for its own.
    const first = ids.map((id) => registry.refresh(scope, id))
    await rename('renamed while it was read', ids[0]!)
    const again = registry.refresh(scope, ids[0]!)
    await Promise.all([...first, again])
    expect(ids.map((id) => registry.get(id)?.id)).toEqual(ids)
    expect(registry.get(ids[0]!)?.name).toBe('renamed while it was read')
    // 41 were asked for; the server's own work on its tables counts too.
    expect(asked.mock.calls.length).toBeLessThan(20)
    asked.mockRestore()
    await context.db.withTenant(scope, (tx) => tx.execute(sql`update devices set deleted_at = now() where id = ${ids[1]!}`))
    await registry.refresh(scope, ids[1]!)
    expect(registry.get(ids[1]!)).toBeUndefined()
  })
})
