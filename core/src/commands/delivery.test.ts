// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { commandTools, patienceMs } from './testing.ts'

let platform: TestPlatform
let tools: ReturnType<typeof commandTools>
beforeAll(async () => {
  platform = await startTestPlatform()
  tools = commandTools(platform)
})
afterAll(async () => {
  tools.end()
  await platform.close()
})

describe('acknowledgements', () => {
  it('that do not come have a command sent again with its number, until it has failed [R-8]', async () => {
    const device = await tools.createDevice({ ackTimeoutMs: 500, retries: 2 })
    const session = await tools.listen(device)
    const { id } = await tools.queue(device.id)
    expect([(await session.next(false)).no, (await session.next(false)).no, (await session.next(false)).no]).toEqual([1, 1, 1])
    const failed = await tools.reach(device.id, id, 'FAILED')
    expect(tools.states(failed)).toEqual(['QUEUED', 'SENT', 'TIMEOUT', 'SENT', 'TIMEOUT', 'SENT', 'FAILED'])
    await session.client.ping()
  })

  it('that come late for the first copy count [R-8]', async () => {
    const device = await tools.createDevice({ ackTimeoutMs: 500 })
    const session = await tools.listen(device)
    const { id } = await tools.queue(device.id, { kind: 'oneway' })
    const first = await session.next(false)
    await session.next(false)
    session.client.put({ cmd: 'puback', messageId: first.packetId! })
    expect(tools.states(await tools.reach(device.id, id, 'DELIVERED')).slice(0, 4)).toEqual(['QUEUED', 'SENT', 'TIMEOUT', 'SENT'])
  })

  it('that do not come end the session where the product wants that, and the command waits again [R-8]', async () => {
    const device = await tools.createDevice({ ackTimeoutMs: 500, closeOnAckTimeout: true })
    const session = await tools.connect(device.token, { protocolVersion: 5 })
    await session.subscribe()
    const { id } = await tools.queue(device.id, { kind: 'oneway' })
    await session.next(false)
    expect(await session.client.next('disconnect', patienceMs)).toMatchObject({ reasonCode: 0x98 })
    expect(tools.states(await tools.reach(device.id, id, 'QUEUED'))).toEqual(['QUEUED', 'SENT', 'QUEUED'])
    const again = await tools.listen(device)
    expect((await again.next()).no).toBe(1)
    await tools.reach(device.id, id, 'DELIVERED')
  })
})

describe('the end of a session', () => {
  it('has what was not acknowledged sent again, and nothing that was [R-9]', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const stored = [await tools.queue(device.id), await tools.queue(device.id), await tools.queue(device.id)]
    const numbers = [(await session.next()).no, (await session.next(false)).no, (await session.next(false)).no]
    expect(numbers).toEqual([1, 2, 3])
    await tools.reach(device.id, stored[0]!.id, 'DELIVERED')
    session.client.end()
    for (const { id } of stored.slice(1)) {
      expect(tools.states(await tools.reach(device.id, id, 'QUEUED'))).toEqual(['QUEUED', 'SENT', 'QUEUED'])
    }
    const again = await tools.listen(device)
    expect([(await again.next()).no, (await again.next()).no]).toEqual([2, 3])
    await again.answer(1, '"late, but in time"')
    await tools.reach(device.id, stored[0]!.id, 'SUCCESSFUL')
    await again.client.ping()
    expect(again.client.packets.filter((packet) => packet.cmd === 'publish')).toEqual([])
  })

  it('by a take-over is the same [M-17]', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    const { id } = await tools.queue(device.id, { kind: 'oneway' })
    await session.next(false)
    const newer = await tools.listen(device)
    expect((await newer.next()).no).toBe(1)
    await tools.reach(device.id, id, 'DELIVERED')
  })
})

describe('who takes back', () => {
  it('and the device that acknowledges at the same time both get their way, and the time line says so', async () => {
    const device = await platform.createDevice()
    const session = await tools.listen(device)
    for (let count = 0; count < 15; count++) {
      const { id } = await tools.queue(device.id)
      const { packetId, no } = await session.next(false)
      const removed = platform.call('DELETE', `/api/v1/devices/${device.id}/commands/${id}`)
      session.client.put({ cmd: 'puback', messageId: packetId! })
      const answered = count % 2 === 0 ? session.answer(no, '1') : session.client.ping()
      const [{ status }] = await Promise.all([removed, answered])
      expect(status).toBe(204)
      const { state, moves } = await tools.get(device.id, id)
      expect(['DELETED', 'SUCCESSFUL']).toContain(state)
      expect(moves.at(-1)!.state).toBe(state)
    }
  })
})

describe('the order of sending [R-7]', () => {
  it('sequential-ack: the next one after the acknowledgement', async () => {
    const device = await tools.createDevice({ submit: 'sequential-ack' })
    for (let count = 0; count < 3; count++) await tools.queue(device.id)
    const session = await tools.listen(device)
    for (const no of [1, 2, 3]) {
      const command = await session.next(false)
      expect(command.no).toBe(no)
      await session.client.ping()
      expect(session.client.packets, 'nothing before the acknowledgement').toEqual([])
      session.client.put({ cmd: 'puback', messageId: command.packetId! })
    }
  })

  it('sequential-response: the next one after the answer, or when that takes too long', async () => {
    const device = await tools.createDevice({ submit: 'sequential-response', responseTimeoutMs: 2000 })
    const stored = [await tools.queue(device.id), await tools.queue(device.id), await tools.queue(device.id, { kind: 'oneway' })]
    const session = await tools.listen(device)
    expect((await session.next()).no).toBe(1)
    await tools.reach(device.id, stored[0]!.id, 'DELIVERED')
    await session.client.ping()
    expect(session.client.packets).toEqual([])
    await session.answer(1, '1')
    expect((await session.next()).no).toBe(2)
    const start = performance.now()
    expect((await session.next()).no, 'although the second was never answered').toBe(3)
    expect(performance.now() - start).toBeGreaterThan(1500)
    expect((await tools.get(device.id, stored[1]!.id)).state).toBe('DELIVERED')
  })

  it('goes on after a command that expired or was taken back', async () => {
    const device = await tools.createDevice({ submit: 'sequential-response', responseTimeoutMs: 300_000 })
    const session = await tools.listen(device)
    const first = await tools.queue(device.id)
    await tools.queue(device.id, { expiresAt: Date.now() + 3000 })
    await tools.queue(device.id)
    expect((await session.next()).no).toBe(1)
    await platform.call('DELETE', `/api/v1/devices/${device.id}/commands/${first.id}`)
    const next = await session.next()
    expect([2, 3]).toContain(next.no)
    if (next.no === 2) expect((await session.next()).no).toBe(3)
  })
})
