// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { checkBoundaries } from './boundaries.ts'

const found = (path: string, text: string) => checkBoundaries([{ path, text }]).map((one) => one.message)

describe('the boundaries', () => {
  it('let config.ts alone read the environment', () => {
    expect(found('core/src/users/a.ts', "const a = process.env['A']")).toEqual([expect.stringContaining('environment')])
    expect(found('core/src/config.ts', "const a = process.env['A']")).toEqual([])
    expect(found('core/src/users/a.test.ts', "const a = process.env['A']")).toEqual([])
    expect(found('core/src/users/testing.ts', "const a = process.env['A']")).toEqual([])
    expect(found('core/src/users/attesting.ts', "const a = process.env['A']")).toHaveLength(1)
    expect(found('core/src/users/a.ts', '// process.env is read in config.ts')).toEqual([])
  })

  it('refuse SQL that is put together from values', () => {
    expect(found('core/src/devices/a.ts', 'await client.unsafe(text)')).toHaveLength(1)
    expect(found('core/src/devices/a.ts', 'sql.raw(name)')).toHaveLength(1)
    expect(found('core/src/devices/a.ts', 'pool.query(`select ${name}`)')).toHaveLength(1)
    expect(found('core/src/devices/a.ts', 'tx.execute(sql`select ${name}`)')).toEqual([])
    expect(found('core/src/db/a.ts', 'await client.unsafe(text)')).toEqual([])
  })

  it('keep the machine out of ingest but for its adapters', () => {
    for (const text of ['Date.now()', 'performance.now()', 'Math.random()', 'setTimeout(f, 1)', 'setInterval(f, 1)', 'new Date()']) {
      expect(found('core/src/ingest/writer.ts', text), text).toHaveLength(1)
      expect(found('core/src/ingest/mqtt/endpoint.ts', text), text).toEqual([])
      expect(found('core/src/telemetry/a.ts', text), text).toEqual([])
    }
    expect(found('core/src/ingest/writer.ts', 'this.#clock.setTimeout(f, 1); new Date(ts)')).toEqual([])
  })

  it('keep sockets and the database out of ingest', () => {
    expect(found('core/src/ingest/a.ts', "import { createServer } from 'node:net'")).toHaveLength(1)
    expect(found('core/src/ingest/a.ts', "import postgres from 'postgres'")).toHaveLength(1)
    expect(found('core/src/ingest/a.ts', "import type { Socket } from 'node:net'")).toEqual([])
  })

  it('let outbound.ts alone connect to configured addresses [SC-90]', () => {
    for (const text of [
      'await fetch(url)',
      "import { connect } from 'node:net'",
      "import { isIP, connect as connectTls } from 'node:tls'",
      "import { request } from 'node:https'",
      "import { connectAsync } from 'mqtt'",
      "import { Agent } from 'undici'",
    ]) {
      expect(found('core/src/connectors/a.ts', text), text).toHaveLength(1)
      expect(found('core/src/outbound.ts', text), text).toEqual([])
    }
    for (const text of ['queue.fetch(job)', "import { createServer, isIP } from 'node:net'", "import { MqttClient } from 'mqtt'"]) {
      expect(found('core/src/connectors/a.ts', text), text).toEqual([])
    }
  })

  it('keep the names of modules out of core', () => {
    expect(found('core/src/modules/a.ts', "import { x } from '../../../enterprise/sso/src/module.ts'")).toHaveLength(1)
    expect(found('core/src/modules/a.ts', "await import('../../../verticals/retail/src/module.ts')")).toHaveLength(1)
  })

  it('let a license be checked in one way only [L-14]', () => {
    for (const text of ["import { decodeJwt } from 'jose'", 'createRemoteJWKSet(url)', "import jwt from 'fast-jwt'", 'EmbeddedJWK']) {
      expect(found('core/src/license/a.ts', text), text).toHaveLength(1)
      expect(found('license-tools/src/a.ts', text), text).toHaveLength(1)
    }
    expect(found('core/src/license/a.ts', "import { compactVerify } from 'jose'")).toEqual([])
  })

  it('refuse text that is run as code', () => {
    expect(found('core/src/rules/a.ts', "eval('1')")).toHaveLength(1)
    expect(found('core/src/rules/a.ts', 'new Function(text)')).toHaveLength(1)
  })
})
