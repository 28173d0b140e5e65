// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tenantOf } from './event.ts'
import type { Draft } from './event.ts'
import { verifyStored } from './live.ts'
import { appendEvents, deleteOldestSegment, findChain, listCheckpoints, makeCheckpoint, readEntries, segmentSize } from './log.ts'
import { searchEvents } from './search.ts'
import type { EventFilter } from './search.ts'
import { createAuditContext, draftOf } from './testing-log.ts'
import type { AuditContext } from './testing-log.ts'
import { publicKeyHex, signer } from './testing.ts'
import { trustKeys } from './verify.mjs'

let context: AuditContext
beforeAll(async () => {
  context = await createAuditContext()
})
afterAll(() => context.close())

const work: AuditContext['work'] = (run) => context.work(run)
const append: AuditContext['append'] = (stream, ...drafts) => context.append(stream, ...drafts)
const newStream = () => context.newStream()

const keys = trustKeys([], [publicKeyHex])
const verify = (stream: string) => work((tx) => verifyStored(tx, stream, { keys }))

describe('the stored chain', () => {
  it('is numbered without a hole and verifies offline, with all its text', async () => {
    const stream = newStream()
    await append(stream, draftOf('a\n"\\\u001b😀'), draftOf('二'))
    await append(stream, { ...draftOf('three'), changes: [{ path: '/limit', from: 36.5, to: 1e-7 }] })
    const checkpoint = await work((tx) => makeCheckpoint(tx, context.rootTenant, stream, signer))
    expect(checkpoint?.body).toMatchObject({ log: 'audit', size: 3, tenant: tenantOf(stream) })
    expect(await verify(stream)).toEqual({ ok: true, findings: [], lastSeq: 3, anchoredTo: 3, unanchored: 0 })
    const [second] = await work((tx) => readEntries(tx, stream, 2, 2))
    expect(second?.payload).toMatchObject({ seq: 2, stream, data: { target: { name: '二' } } })
    expect(Math.abs(Date.parse(second!.payload.ts) - Date.now())).toBeLessThan(600_000)
  })

  it('signs checkpoints that follow one another, and none when nothing is new [AU-40]', async () => {
    const stream = newStream()
    const sign = () => work((tx) => makeCheckpoint(tx, context.rootTenant, stream, signer))
    expect(await sign()).toBeUndefined()
    for (let n = 1; n <= 3; n++) {
      await append(stream, draftOf(String(n)))
      expect((await sign())?.body.size).toBe(n)
      expect(await sign()).toBeUndefined()
    }
    expect(await verify(stream)).toMatchObject({ ok: true, anchoredTo: 3 })
  })

  it('has no hole and no lost event when many write at once and some roll back [§11.3]', { timeout: 120_000 }, async () => {
    const stream = newStream()
    const [writers, changes] = [50, 20]
    let committed = 0
    const write = async (writer: number) => {
      for (let n = 0; n < changes; n++) {
        const isRolledBack = (writer + n) % 5 === 0
        const attempt = work(async (tx) => {
          await appendEvents(tx, context.rootTenant, new Map([[stream, [draftOf(`${writer}-${n}`)]]]))
          if (isRolledBack) throw new Error('rolled back')
        })
        if (isRolledBack) await expect(attempt).rejects.toThrow('rolled back')
        else await attempt.then(() => committed++)
      }
    }
    await Promise.all(Array.from({ length: writers }, (_, writer) => write(writer)))
    await work((tx) => makeCheckpoint(tx, context.rootTenant, stream, signer))
    expect(committed).toBe((writers * changes * 4) / 5)
    expect(await verify(stream)).toEqual({ ok: true, findings: [], lastSeq: committed, anchoredTo: committed, unanchored: 0 })
  })

  it('lets two writers of the same chains pass, whatever order they name them in [AU-30]', { timeout: 60_000 }, async () => {
    const [a, b] = [newStream(), newStream()]
    const write = (streams: string[]) =>
      work((tx) => appendEvents(tx, context.rootTenant, new Map(streams.map((stream) => [stream, [draftOf('x')]]))))
    await Promise.all(Array.from({ length: 40 }, (_, n) => write(n % 2 === 0 ? [a, b] : [b, a])))
    for (const stream of [a, b]) expect(await verify(stream)).toMatchObject({ ok: true, lastSeq: 40 })
  })

  it('commits neither the change nor its event when one of them fails [AU-1] [AU-32]', async () => {
    const stream = newStream()
    const change = (fault: () => void, draft: Draft) =>
      work(async (tx) => {
        await tx.execute(sql`insert into public.audited_change (tenant_id, name) values (${context.rootTenant.tenantId}, ${stream})`)
        fault()
        return appendEvents(tx, context.rootTenant, new Map([[stream, [draft]]]))
      })
    const countChanges = async () => (await context.owner`select name from public.audited_change where name = ${stream}`).length
    const fail = () => {
      throw new Error('between change and event')
    }
    await expect(change(fail, draftOf('x'))).rejects.toThrow('between change and event')
    const refused = change(() => {}, { ...draftOf('x'), outcome: 'perhaps' as 'success' })
    await expect(refused).rejects.toMatchObject({ cause: { code: '23514' } })
    expect([await countChanges(), await work((tx) => findChain(tx, stream))]).toEqual([0, undefined])
    await change(() => {}, draftOf('x'))
    expect([await countChanges(), (await verify(stream)).lastSeq]).toEqual([1, 1])
  })

  it('shows nothing of one tenant to another', async () => {
    const stream = newStream()
    await append(stream, draftOf('mine'))
    const other = { ...context.rootTenant, tenantId: '01931c00-0000-7000-8000-0000000000ff' }
    const seen = await context.db.withTenant(other, async (tx) => [await findChain(tx, stream), await readEntries(tx, stream, 1, 9)])
    expect(seen).toEqual([undefined, []])
    await expect(
      context.db.withTenant(other, (tx) => appendEvents(tx, context.rootTenant, new Map([[stream, [draftOf('forged')]]]))),
    ).rejects.toThrow()
  })

  it.each(['events', 'checkpoints'])(
    'has %s that the application can neither change nor delete, and the owner not change [AU-31]',
    async (table) => {
      const stream = newStream()
      await append(stream, draftOf('x'))
      await work((tx) => makeCheckpoint(tx, context.rootTenant, stream, signer))
      const name = sql.raw(`audit.${table}`)
      for (const statement of [sql`update ${name} set stream = 'x'`, sql`delete from ${name}`, sql`truncate ${name}`]) {
        await expect(work((tx) => tx.execute(statement))).rejects.toMatchObject({ cause: { code: '42501' } })
      }
      const asOwner = (statement: string) =>
        context.owner.begin(async (tx) => {
          await tx.unsafe('set local role pms_owner')
          await tx.unsafe(statement)
        })
      await expect(asOwner(`update audit.${table} set stream = 'x'`)).rejects.toThrow('not changed')
      await expect(asOwner(`truncate audit.${table}`)).rejects.toThrow('not changed')
      expect(await verify(stream)).toMatchObject({ ok: true, lastSeq: 1, anchoredTo: 1 })
    },
  )
})

/** What somebody with all rights over the database can do, past triggers and policies. */
const tamper = (statement: string, ...values: (string | number)[]) =>
  context.owner.begin(async (tx) => {
    await tx.unsafe('set local session_replication_role = replica')
    const { count: changed } = await tx.unsafe(statement, values)
    expect(changed).toBeGreaterThan(0)
  })

describe('a database that was tampered with', () => {
  const fill = async () => {
    const stream = newStream()
    await append(stream, ...['a', 'b', 'c', 'd'].map(draftOf))
    await work((tx) => makeCheckpoint(tx, context.rootTenant, stream, signer))
    return { stream, outside: await work((tx) => listCheckpoints(tx, stream)) }
  }
  const codes = async (stream: string, outside: Awaited<ReturnType<typeof fill>>['outside'] = []) =>
    (await work((tx) => verifyStored(tx, stream, { keys, outside }))).findings.map(({ code, seq }) => `${code} ${seq}`)

  it('is found when an event was changed, removed or moved [AU-2]', async () => {
    const { stream } = await fill()
    await tamper(`update audit.events set payload = replace(payload, 'device:b', 'device:x') where stream = $1 and seq = 2`, stream)
    expect(await codes(stream)).toEqual(['AUDIT_HASH_MISMATCH 2'])
    await tamper('delete from audit.events where stream = $1 and seq = 2', stream)
    // The hash before is not stored twice: what follows a hole no longer fits its own.
    expect(await codes(stream)).toEqual(['AUDIT_SEQ_GAP 2', 'AUDIT_HASH_MISMATCH 3', 'AUDIT_CHECKPOINT_ROOT 4'])
  })

  it('is found when its newest events and checkpoints were cut off, by what is outside [AU-2] [AU-41]', async () => {
    const { stream, outside } = await fill()
    await tamper('delete from audit.events where stream = $1 and seq > 2', stream)
    expect(await codes(stream)).toEqual(['AUDIT_TAIL_TRUNCATED 3'])
    await tamper('delete from audit.checkpoints where stream = $1', stream)
    await tamper(
      `update audit.chains c set head_seq = 2, head_hash = e.hash from audit.events e where c.stream = $1 and e.stream = $1 and e.seq = 2`,
      stream,
    )
    expect(await codes(stream)).toEqual([])
    expect(await codes(stream, outside)).toEqual(['AUDIT_TAIL_TRUNCATED 3'])
    await tamper('delete from audit.chains where stream = $1', stream)
    expect(await codes(stream, outside)).toEqual(['AUDIT_TAIL_TRUNCATED 1'])
  })

  it('is found when the beginning was cut off without tombstones', async () => {
    const { stream } = await fill()
    await tamper('delete from audit.events where stream = $1 and seq = 1', stream)
    await tamper(
      `update audit.chains c set first_seq = 2, first_prev = $2::text::bytea, first_left = '[]' where c.stream = $1`,
      stream,
      `\\x${'ab'.repeat(32)}`,
    )
    expect(await codes(stream)).toEqual(expect.arrayContaining(['AUDIT_TOMBSTONE 1', 'AUDIT_HASH_MISMATCH 2']))
  })
})

describe('search', () => {
  it('finds by every filter, newest first, page by page', async () => {
    const stream = newStream()
    const at = { ip: '203.0.113.7', requestId: 'request-1' }
    await append(
      stream,
      { ...draftOf('pump_1'), actorName: '王芳', context: at },
      { ...draftOf('pump%1'), type: 'device.delete', actor: 'user:7' },
      { ...draftOf('x'), type: 'auth.login', outcome: 'failure', reason: 'INVALID_CREDENTIALS' },
      { ...draftOf('y'), type: 'devices.other' },
    )
    const find = async (filter: EventFilter, page = { limit: 10 } as { limit: number; before?: number }) =>
      (await work((tx) => searchEvents(tx, stream, filter, page))).map(({ seq }) => seq)
    expect(await find({})).toEqual([4, 3, 2, 1])
    expect(await find({}, { limit: 2 })).toEqual([4, 3])
    expect(await find({}, { limit: 2, before: 3 })).toEqual([2, 1])
    expect(await find({ type: 'device.' })).toEqual([2, 1])
    expect(await find({ type: 'device' })).toEqual([])
    expect(await find({ type: 'device.delete' })).toEqual([2])
    expect(await find({ actor: 'user:7' })).toEqual([2])
    expect(await find({ subject: 'device:x' })).toEqual([3])
    expect(await find({ outcome: 'failure' })).toEqual([3])
    expect(await find({ q: '王' })).toEqual([1])
    expect(await find({ q: 'invalid_cred' })).toEqual([3])
    // Signs of patterns are looked for as they are.
    expect(await find({ q: 'pump%1' })).toEqual([2])
    expect(await find({ q: 'pump_1' })).toEqual([1])
    expect(await find({ q: '\\' })).toEqual([])
    expect(await find({ ip: at.ip })).toEqual([1])
    expect(await find({ requestId: at.requestId, ip: '203.0.113.8' })).toEqual([])
    expect(await find({ from: new Date(Date.now() + 86_400_000) })).toEqual([])
    expect(await find({ from: new Date(0), to: new Date(Date.now() + 86_400_000) })).toEqual([4, 3, 2, 1])
    const [newest] = await work((tx) => searchEvents(tx, stream, {}, { limit: 1 }))
    expect(newest).toMatchObject({ seq: 4, hash: expect.stringMatching(/^[0-9a-f]{64}$/), type: 'devices.other' })
  })
})

describe('retention', () => {
  const future = new Date(Date.now() + 86_400_000)
  const policy = { olderThan: future, policy: '1095 days' }

  it('deletes whole covered segments and leaves a log that verifies [§11.7]', { timeout: 180_000 }, async () => {
    const stream = newStream()
    const remove = (limit = policy, deliveredTo = Number.MAX_SAFE_INTEGER) =>
      work((tx) => deleteOldestSegment(tx, context.rootTenant, stream, limit, deliveredTo))
    const sign = () => work((tx) => makeCheckpoint(tx, context.rootTenant, stream, signer))
    for (let n = 0; n < segmentSize * 2; n += 128) {
      await append(stream, ...Array.from({ length: 128 }, (_, index) => draftOf(`${n + index}`)))
    }
    // Nothing covers them yet; then nothing outside has the checkpoint; then they are too young.
    expect(await remove()).toBeUndefined()
    await sign()
    expect(await remove(policy, segmentSize)).toBeUndefined()
    expect(await remove({ ...policy, olderThan: new Date(Date.now() - 86_400_000) })).toBeUndefined()
    expect(await remove()).toBe(1)
    // The next one is the newest but for one event, the deletion's own.
    expect(await remove()).toBe(2)
    expect(await remove()).toBeUndefined()
    await sign()
    const chain = await work((tx) => findChain(tx, stream))
    expect(chain?.first.seq).toBe(segmentSize * 2 + 1)
    expect(chain?.first.left.map(({ size }) => size)).toEqual([segmentSize * 2])
    expect(await verify(stream)).toMatchObject({ ok: true, lastSeq: segmentSize * 2 + 2, anchoredTo: segmentSize * 2 + 2 })
    const events = await work((tx) => readEntries(tx, stream, segmentSize * 2 + 1, segmentSize * 2 + 2))
    expect(events.map(({ payload }) => [payload.type, payload.subject])).toEqual([
      ['audit.segment.delete', 'segment:1'],
      ['audit.segment.delete', 'segment:2'],
    ])
  })

  it('deletes nothing without its tombstone, whoever asks [AU-31]', async () => {
    const stream = newStream()
    await append(stream, draftOf('x'))
    await expect(work((tx) => tx.execute(sql`select audit.delete_segment(${stream}, 1)`))).rejects.toMatchObject({
      cause: { code: '42501' },
    })
  })
})
