// SPDX-License-Identifier: AGPL-3.0-only
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { afterEach, describe, expect, it } from 'vitest'
import { createLog } from '../log.ts'
import { EmbeddedPostgres } from './embedded.ts'
import { ensureDataDir } from './open.ts'
import { choosePlace } from './place.ts'

const log = createLog('error')
const folders: string[] = []
const usualMask = process.umask(0o022)
process.umask(usualMask)
afterEach(() => {
  process.umask(usualMask)
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

/** A folder that every user may pass through. */
function makeFolder(): string {
  const folder = mkdtempSync('/tmp/iot-pms-place-')
  folders.push(folder)
  chmodSync(folder, 0o711)
  return folder
}

const passwordOf = (dataDir: string) =>
  (JSON.parse(readFileSync(join(dataDir, 'database.json'), 'utf8')) as { adminPassword: string }).adminPassword

// The masks of hardened systems and of some service managers. This file has a process of its own.
describe.skipIf(process.getuid?.() !== 0).each([
  ['077', 0o077],
  ['027', 0o027],
])('as root with the umask %s', (_, mask) => {
  it('the database starts in a data folder that the start makes, with its parents', async () => {
    const dataDir = join(makeFolder(), 'parent/data')
    process.umask(mask)
    ensureDataDir(dataDir)
    expect([statSync(dataDir).mode & 0o777, statSync(join(dataDir, '..')).mode & 0o777]).toEqual([0o711, 0o711])
    const server = new EmbeddedPostgres({ dataDir, user: undefined, log })
    await server.start()
    const sql = postgres(server.adminUrl, { max: 1, onnotice: () => {} })
    expect((await sql`select 1 as one`)[0]).toEqual({ one: 1 })
    await sql.end()
    await server.stop()
  })

  it('the copy for a user who cannot reach the checkout can be run by that user', { timeout: 180_000 }, async () => {
    const [closed, openFolder] = [makeFolder(), join(makeFolder(), 'lib/iot-pms')]
    chmodSync(closed, 0o700)
    process.umask(mask)
    const run = async (args: (clusterDir: string) => string[]) => {
      const place = await choosePlace(closed, undefined, log, openFolder)
      expect(place.initdb).toContain(openFolder)
      const { status, error, stderr } = spawnSync(place.initdb, args(place.clusterDir), { ...place.identity, cwd: '/' })
      return [status, error, String(stderr)]
    }
    expect(await run((folder) => ['-D', folder, '-U', 'someone', '--auth=trust', '--no-sync'])).toEqual([0, undefined, expect.any(String)])
    // One that was left closed by an earlier version.
    chmodSync(openFolder, 0o700)
    for (const name of readdirSync(openFolder)) {
      if (name.startsWith('postgresql-')) spawnSync('chmod', ['-R', 'go=', join(openFolder, name)])
    }
    expect(await run(() => ['--version'])).toEqual([0, undefined, expect.any(String)])
  })
})

describe('the password file of a new cluster', () => {
  it('that a killed start has left is removed by the next one, whether a cluster is made or there', async () => {
    const dataDir = makeFolder()
    const left = join(dataDir, 'postgres.pw')
    const start = async () => {
      writeFileSync(left, 'left behind', { mode: 0o600 })
      const server = new EmbeddedPostgres({ dataDir, user: undefined, log })
      await server.start()
      await server.stop()
      expect(existsSync(left)).toBe(false)
      const password = passwordOf(dataDir)
      const holders = readdirSync(dataDir).filter(
        (name) => statSync(join(dataDir, name)).isFile() && readFileSync(join(dataDir, name), 'utf8').includes(password),
      )
      expect(holders).toEqual(['database.json'])
    }
    await start()
    await start()
  })
})
