// SPDX-License-Identifier: AGPL-3.0-only
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { runInit } from './init.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'iot-pms-init-'))
  mkdirSync(join(folder, 's'))
  mkdirSync(join(folder, 'd'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const read = (name: string) => readFileSync(join(folder, name), 'utf8').trim()
const modeOf = (name: string) => (statSync(join(folder, name)).mode & 0o777).toString(8)
const init = () => runInit(['--secrets', join(folder, 's'), '--database-secrets', join(folder, 'd')])

describe('iot-pms init', () => {
  it('makes a key, two logins and nothing else, each for those who need it [DP-10]', () => {
    init()
    expect(readdirSync(join(folder, 's')).sort()).toEqual(['database_url', 'secret_key'])
    expect(readdirSync(join(folder, 'd')).sort()).toEqual(['admin_password', 'migrate_url'])
    expect(Buffer.from(read('s/secret_key'), 'base64url')).toHaveLength(32)
    expect(new URL(read('s/database_url'))).toMatchObject({ username: 'iot_pms', host: 'database:5432', pathname: '/iot_pms' })
    expect(new URL(read('d/migrate_url'))).toMatchObject({ username: 'iot_pms_admin', password: read('d/admin_password') })
    expect(read('s/database_url')).not.toContain(read('d/admin_password'))
    expect(['s/database_url', 's/secret_key', 'd/migrate_url'].map(modeOf)).toEqual(['400', '400', '400'])
    // The database's container reads it as another user.
    expect(modeOf('d/admin_password')).toBe('444')
  })

  it('never replaces what is there, and completes what is missing', () => {
    writeFileSync(join(folder, 'd/admin_password'), 'chosen\n')
    init()
    const before = ['s/secret_key', 's/database_url', 'd/migrate_url'].map(read)
    expect(new URL(read('d/migrate_url')).password).toBe('chosen')
    init()
    expect(['s/secret_key', 's/database_url', 'd/migrate_url'].map(read)).toEqual(before)
  })

  it('says which folder it could not write to, and what it wants', () => {
    rmSync(join(folder, 'd'), { recursive: true })
    expect(init).toThrow(expect.objectContaining({ code: 'SECRETS_DIR', exitCode: 73 }))
    expect(() => runInit(['--secrets', folder])).toThrow(expect.objectContaining({ code: 'USAGE', exitCode: 64 }))
    expect(() => runInit(['--secret', folder])).toThrow(expect.objectContaining({ code: 'USAGE', exitCode: 64 }))
  })
})
