// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { describe, expect, it } from 'vitest'
import { canonical } from './canonical.ts'
import { appendEntries, emptyHead } from './chain.ts'
import { buildEvent, streamOf, tenantOf } from './event.ts'
import type { Draft, EventPayload } from './event.ts'
import fixture from './fixture.json' with { type: 'json' }
import { csvColumns, severityOf, toCef, toCsvRow, toJsonLine, toOcsf } from './formats.ts'
import { listChanges, maskValue } from './mask.ts'
import { fixtureLog } from './testing.ts'

const place = { id: 'an-id', stream: streamOf(undefined), seq: 1, ts: new Date('2026-11-20T08:00:00.000Z') }
const draft: Draft = { type: 'device.update', outcome: 'success', subject: 'device:1', actor: 'system' }
const build = (change: Partial<Draft> = {}): EventPayload => buildEvent({ ...draft, ...change }, place)
const entryOf = (change: Partial<Draft>) => appendEntries(emptyHead, [() => build(change)]).entries[0]!

describe('an event', () => {
  it('has all members, unknown ones null [AU-20]', () => {
    expect(build()).toEqual({
      v: 1,
      stream: 'audit:log:platform',
      seq: 1,
      ts: '2026-11-20T08:00:00.000Z',
      type: 'device.update',
      actor: 'system',
      subject: 'device:1',
      data: {
        id: 'an-id',
        outcome: 'success',
        reason: null,
        actor: { name: null, session: null, auth: 'none', onBehalfOf: null },
        target: { name: null },
        changes: [],
        context: { ip: null, userAgent: null, requestId: null, node: null, route: null },
      },
    })
    expect(tenantOf(streamOf('01931c00-0000-7000-8000-000000000011'))).toBe('01931c00-0000-7000-8000-000000000011')
  })

  it('keeps line feeds and escapes, and loses only what cannot be stored [AU-20]', () => {
    const { name } = build({ targetName: 'a\n\u001b[31m\u0000b\ud83dc\u202e😀' }).data.target
    expect(name).toBe('a\n\u001b[31m\ufffdb\ufffdc\u202e😀')
    expect(() => canonical(build({ changes: [{ path: '/\ud83d', from: '\u0000', to: ['\udc00'] }] }))).not.toThrow()
  })

  it('lists 50 changes and says how many more there are', () => {
    const changes = Array.from({ length: 73 }, (_, n) => ({ path: `/${n}`, from: null, to: n }))
    const built = build({ changes }).data.changes
    expect(built).toHaveLength(51)
    expect(built.at(-1)).toEqual({ path: '…', from: null, to: '23 more' })
  })

  it('cuts long values by characters, never through a pair of surrogates', () => {
    const [change] = build({ changes: [{ path: '/x', from: '😀'.repeat(1001), to: { list: 'y'.repeat(2000) } }] }).data.changes
    expect(change!.from).toBe(`${'😀'.repeat(1000)}…`)
    expect([...String(change!.to)]).toHaveLength(1001)
    expect(build({ changes: [{ path: '/x', from: 'y'.repeat(1000), to: { a: 1 } }] }).data.changes[0]).toEqual({
      path: '/x',
      from: 'y'.repeat(1000),
      to: { a: 1 },
    })
    expect(build({ context: { userAgent: 'z'.repeat(300) } }).data.context.userAgent).toBe('z'.repeat(200))
  })
})

describe('masking [AU-21]', () => {
  const masking = { key: fixture.maskKey }

  it.each(fixture.masks)('masks "$value"', ({ value, masked }) => {
    expect(maskValue(value, fixture.maskKey)).toBe(masked)
  })

  it('leaves null null, so that "none before" can be seen', () => {
    expect(maskValue(null, fixture.maskKey)).toBeNull()
  })

  it.each(['password', 'secret', 'token', 'privateKey', 'clientSecret', 'bindPassword', 'license', 'apiKey', 'PASSWORD', 'ApiKey'])(
    'masks a member named %s at any depth',
    (name) => {
      const changes = listChanges(
        { a: [{ [name]: 'old-secret' }] },
        { a: [{ [name]: 'new-secret' }], b: { [name]: { deep: 'hidden' } } },
        masking,
      )
      expect(changes.map((change) => change.path)).toEqual([`/a/0/${name}`, `/b/${name}`])
      expect(JSON.stringify(changes)).not.toMatch(/old-secret|new-secret|hidden/)
      expect(changes[0]!.from).not.toBe(changes[0]!.to)
    },
  )

  it('masks what a schema marks, and names that were added', () => {
    const schema = { properties: { pin: { 'x-secret': true }, list: { items: { properties: { code: { 'x-secret': true } } } } } }
    const before = { pin: '1234', list: [{ code: 'abcd', name: 'n' }], serial: 'SN-1' }
    const after = { pin: '4321', list: [{ code: 'efgh', name: 'm' }], serial: 'SN-2' }
    const changes = listChanges(before, after, { ...masking, schema, names: ['Serial'] })
    expect(JSON.stringify(changes)).not.toMatch(/1234|4321|abcd|efgh|SN-/)
    expect(changes.map((change) => change.path)).toEqual(['/pin', '/list/0/code', '/list/0/name', '/serial'])
  })

  it('masks secrets inside values that are told whole', () => {
    const changes = listChanges({ keys: [{ token: 'tok-1' }] }, { keys: [{ token: 'tok-1' }, { token: 'tok-2' }] }, masking)
    expect(changes).toHaveLength(1)
    expect(JSON.stringify(changes)).not.toContain('tok-')
  })

  it('tells nothing about what did not change', () => {
    expect(listChanges({ a: 1, token: 't', list: [1, { b: 2 }] }, { list: [1, { b: 2 }], token: 't', a: 1 }, masking)).toEqual([])
  })

  it('writes paths as JSON pointers', () => {
    expect(listChanges({}, { 'a/b': { 'c~d': 1 } }, masking)).toEqual([{ path: '/a~1b/c~0d', from: null, to: 1 }])
  })
})

describe('formats', () => {
  const { entries } = fixtureLog()

  it('writes JSON Lines in canonical form', () => {
    expect(toJsonLine(entries[0]!)).toBe(`${canonical(entries[0])}\n`)
  })

  it.each(fixture.cef.map((line, index) => [index + 1, line] as const))('writes event %i as CEF', (seq, line) => {
    expect(toCef(entries[seq - 1]!, '0.1.0')).toBe(line)
  })

  it('escapes what would break a CEF line [AU-60]', () => {
    const odd = structuredClone(entries[2]!)
    odd.payload.data.target.name = fixture.oddName
    expect(toCef(odd, '0.1.0')).toBe(fixture.oddCef)
  })

  it.each(['bob\n2026-11-20 success root', 'a|b=c\\d', '\u001b[31m', 'x'.repeat(10_000), '\u202eevil', 'a\u2028b\u2029c\u0085d'])(
    'writes one line for a name such as %j',
    (name) => {
      const entry = entryOf({ targetName: name, actorName: name, type: 'device.update' })
      for (const line of [toCef(entry, '0.1.0'), toJsonLine(entry).trimEnd()]) {
        expect([line.split(/[\n\r]/).length, line.includes('\u001b')]).toEqual([1, false])
      }
      expect(toCef(entry, '0.1.0')).not.toMatch(/[\p{Cc}\u2028\u2029]/u)
    },
  )

  it.each(fixture.ocsf.map((one) => [one.metadata.sequence, one] as const))('writes event %i as OCSF', (seq, expected) => {
    expect(toOcsf(entries[seq - 1]!, '0.1.0')).toEqual(expected)
  })

  it.each<[string, Draft['outcome'], number]>([
    ['device.update', 'denied', 7],
    ['auth.login', 'failure', 5],
    ['device.delete', 'success', 6],
    ['telemetry.purge', 'success', 6],
    ['audit.read', 'success', 6],
    ['license.install', 'success', 6],
    ['device.credentials.read', 'success', 6],
    ['role.create', 'success', 6],
    ['session.revoke', 'success', 6],
    ['alarm_rule.update', 'success', 3],
    ['auth.login', 'success', 3],
  ])('gives %s with %s severity %i [AU-61]', (type, outcome, severity) => {
    expect(severityOf(build({ type, outcome }))).toBe(severity)
  })

  it('writes CSV that no spreadsheet runs', () => {
    const row = toCsvRow(entryOf({ targetName: '=cmd|"x"', actorName: 'a,b\nc' }))
    expect(row).toContain(`"'=cmd|""x"""`)
    expect(row).toContain('"a,b\nc"')
    expect(row.endsWith('\r\n')).toBe(true)
    expect(toCsvRow(entries[0]!).split(',')).toHaveLength(csvColumns.length)
  })
})
