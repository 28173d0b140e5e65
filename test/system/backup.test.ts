// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Installation } from '../faults/installation.ts'
import type { LoadedDevice } from '../faults/installation.ts'

const root = join(import.meta.dirname, '../..')
/** Time of the first sample of every device, one ms apart. */
const base = Date.now() - 3_600_000

type Outcome = { code: number | null; stdout: string; stderr: string; error: string | undefined }

/** The program as a user calls it, on this data folder. */
function cli(
  dataDir: string,
  args: string[],
  more: { out?: string; kill?: (child: ReturnType<typeof spawn>) => void } = {},
): Promise<Outcome> {
  const output = more.out === undefined ? undefined : openSync(more.out, 'w')
  const child = spawn(process.execPath, [join(root, 'core/src/main.ts'), ...args], {
    env: { PATH: process.env['PATH'], IOT_PMS_DATA_DIR: dataDir },
    stdio: ['ignore', output ?? 'pipe', 'pipe'],
  })
  let [stdout, stderr] = ['', '']
  child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  more.kill?.(child)
  return new Promise((resolve) => {
    child.once('close', (code) => {
      if (output !== undefined) closeSync(output)
      const last = stderr.trim().split('\n').at(-1) ?? ''
      resolve({ code, stdout, stderr, error: last.startsWith('{') ? (JSON.parse(last) as { code?: string }).code : undefined })
    })
  })
}

/** One message after the other per device; `acked` and `sent` count them. */
class Load {
  readonly acked = new Map<string, number>()
  readonly sent = new Map<string, number>()
  readonly #installation: Installation
  readonly #devices: readonly LoadedDevice[]
  #isOver = false
  #running: Promise<unknown> = Promise.resolve()

  constructor(installation: Installation, devices: readonly LoadedDevice[]) {
    this.#installation = installation
    this.#devices = devices
  }

  start(): void {
    this.#running = Promise.all(this.#devices.map((device) => this.#send(device)))
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#running
  }

  get total(): number {
    return [...this.acked.values()].reduce((sum, count) => sum + count, 0)
  }

  async #send({ id, token }: LoadedDevice): Promise<void> {
    for (let n = 1; !this.#isOver; n++) {
      this.sent.set(id, n)
      const answer = await fetch(`http://127.0.0.1:${this.#installation.ports.http}/api/v1/${token}/telemetry`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ ts: base + n, values: { counter: n, text: `样本 ${n}` } }),
      })
      await answer.arrayBuffer()
      if (!answer.ok) throw new Error(`a point was answered with ${answer.status}`)
      this.acked.set(id, n)
    }
  }
}

async function readCounters(installation: Installation, id: string): Promise<number[]> {
  const path = `/api/plugins/telemetry/DEVICE/${id}/values/timeseries?keys=counter&startTs=${base}&endTs=${base + 10_000_000}&limit=100000&orderBy=ASC`
  const { counter = [] } = (await installation.call('GET', path)) as { counter?: { value: string }[] }
  return counter.map(({ value }) => Number(value))
}

describe('a backup', { timeout: 300_000 }, () => {
  const server = new Installation({ name: 'backup' })
  const other = new Installation({ name: 'restored' })
  const third = new Installation({ name: 'again' })
  const file = join(server.folder, 'full.tar')
  const passphrase = join(server.folder, 'passphrase')
  let devices: LoadedDevice[]
  /** What was acknowledged when the backup began, and what was sent when it had ended. */
  let ackedBefore: ReadonlyMap<string, number>
  let sentAfter: ReadonlyMap<string, number>

  beforeAll(async () => {
    writeFileSync(passphrase, 'a long passphrase for the tests\n', { mode: 0o600 })
    await server.start()
    await server.openApi()
    devices = await server.createDevices(8)
  }, 120_000)
  afterAll(async () => {
    for (const one of [server, other, third]) await one.dispose(false)
  })

  it('is one file of one moment, made while points are stored all the time [RE-95] [RE-96]', async () => {
    const load = new Load(server, devices)
    load.start()
    await vi.waitFor(() => expect(load.total).toBeGreaterThan(400), { timeout: 60_000 })
    ackedBefore = new Map(load.acked)
    const before = load.total
    const made = await cli(server.dataDir, ['backup', '--out', file, '--passphrase-file', passphrase, '--json'])
    expect([made.code, made.stderr]).toEqual([0, ''])
    sentAfter = new Map(load.sent)
    await vi.waitFor(() => expect(load.total).toBeGreaterThan(before), { timeout: 30_000 })
    await load.stop()
    const said = JSON.parse(made.stdout) as { kind: string; rows: number; bytes: number; hasKey: boolean }
    expect(said).toMatchObject({ kind: 'full', hasKey: true, bytes: statSync(file).size })
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(existsSync(`${file}.partial`)).toBe(false)
    const text = readFileSync(file, 'latin1')
    expect(text).not.toContain(readFileSync(join(server.dataDir, 'secret.key'), 'utf8').trim())
    console.log(`${said.rows} rows in ${said.bytes} bytes, ${load.total - before} points acknowledged meanwhile`)
  })

  it('goes to a pipe, and the tools of every system read it', async () => {
    const piped = join(server.folder, 'piped.tar')
    const made = await cli(server.dataDir, ['backup', '--out', '-', '--kind', 'config'], { out: piped })
    expect(made.code, made.stderr).toBe(0)
    const list = spawn('tar', ['-tf', piped])
    let names = ''
    list.stdout.on('data', (chunk: Buffer) => (names += chunk.toString()))
    expect(await new Promise((resolve) => list.once('close', resolve))).toBe(0)
    expect(names.split('\n')).toEqual(expect.arrayContaining(['manifest.json', 'public.devices.copy.zst', 'tables.json', 'SHA256SUMS']))
    expect(names).not.toContain('telemetry')
    expect((await cli(server.dataDir, ['restore', piped, '--check'])).code).toBe(0)
  })

  it('brings back on an empty machine each device with all that was acknowledged before it, and no hole [RE-97] [F27]', async () => {
    const refused = await cli(other.dataDir, ['restore', file])
    expect([refused.code, refused.error]).toEqual([78, 'SECRET_KEY_MISMATCH'])
    const restored = await cli(other.dataDir, ['restore', file, '--passphrase-file', passphrase])
    expect(restored.code, restored.stderr).toBe(0)
    await other.start()
    await other.openApi()
    for (const { id, token } of devices) {
      const found = await readCounters(other, id)
      expect(found).toEqual(Array.from({ length: found.length }, (_, index) => index + 1))
      expect(found.length).toBeGreaterThanOrEqual(ackedBefore.get(id) ?? 0)
      expect(found.length).toBeLessThanOrEqual(sentAfter.get(id)!)
      // Its token is still good, and what it sends now is stored beside what was there.
      const answer = await fetch(`http://127.0.0.1:${other.ports.http}/api/v1/${token}/telemetry`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ ts: base + found.length + 1, values: { counter: found.length + 1 } }),
      })
      expect(answer.status).toBe(200)
      expect((await readCounters(other, id)).length).toBe(found.length + 1)
      const shown = (await other.call('GET', `/api/v1/devices/${id}/credentials`, undefined, await other.login())) as { token: string }
      expect(shown.token).toBe(token)
    }
    const made = (await other.createDevices(1, 'new'))[0]!
    expect(devices.map(({ id }) => id)).not.toContain(made.id)
    await other.stop()
  })

  it('replaces a database only when told so, and keeps what was there', async () => {
    const refused = await cli(other.dataDir, ['restore', file])
    expect([refused.code, refused.error]).toEqual([64, 'TARGET_NOT_EMPTY'])
    const restored = await cli(other.dataDir, ['restore', file, '--yes'])
    expect(restored.code, restored.stderr).toBe(0)
    expect(restored.stdout).toMatch(/kept for 7 days as iot_pms_before_\d{14}/)
    await other.start()
    const { items } = (await other.call('GET', '/api/v1/devices?limit=100', undefined, await other.login())) as {
      items: { name: string }[]
    }
    expect(items.map(({ name }) => name)).not.toContain('new-0')
    expect(items).toHaveLength(devices.length)
    await other.stop()
    expect((await cli(other.dataDir, ['restore', '--discard-old'])).stdout).toMatch(/^Removed iot_pms_before_\d{14}/)
  })

  it('refuses a file that was cut or changed anywhere, and touches nothing [RE-97]', async () => {
    const bytes = readFileSync(file)
    const damaged = join(server.folder, 'damaged.tar')
    const before = listFiles(third.dataDir)
    for (let n = 0; n < 4; n++) {
      const at = Math.floor(((n + 0.5) * bytes.length) / 4)
      for (const change of ['cut', 'edit'] as const) {
        const copy = change === 'cut' ? bytes.subarray(0, at) : Buffer.from(bytes)
        if (change === 'edit') copy[at]! ^= 1
        writeFileSync(damaged, copy)
        const refused = await cli(third.dataDir, ['restore', damaged, '--yes'])
        expect([refused.code, refused.error], `${change} at ${at}`).toEqual([65, 'BACKUP_DAMAGED'])
      }
    }
    expect(listFiles(third.dataDir)).toEqual(before)
  })

  it('leaves the state of before when the restore is killed at any moment, and succeeds when it is tried again', async () => {
    mkdirSync(third.dataDir, { recursive: true })
    copyFileSync(join(server.dataDir, 'secret.key'), join(third.dataDir, 'secret.key'))
    await third.start()
    await third.openApi()
    await third.createDevices(1, 'mine')
    await third.stop()
    for (const delayMs of [600, 1200, 1800, 2400]) {
      const kill = (child: ReturnType<typeof spawn>) => setTimeout(() => child.kill('SIGKILL'), delayMs)
      const outcome = await cli(third.dataDir, ['restore', file, '--yes'], { kill })
      // A quick machine may have been done.
      if (outcome.code === 0) break
      await third.start()
      const { items } = (await third.call('GET', '/api/v1/devices', undefined, await third.login())) as { items: { name: string }[] }
      expect(items.map(({ name }) => name)).toEqual(['mine-0'])
      await third.stop()
    }
    const restored = await cli(third.dataDir, ['restore', file, '--yes'])
    expect(restored.code, restored.stderr).toBe(0)
    await third.start()
    const { items } = (await third.call('GET', '/api/v1/devices?limit=100', undefined, await third.login())) as { items: unknown[] }
    expect(items).toHaveLength(devices.length)
  })

  it('does not replace the database of a server that runs', async () => {
    const refused = await cli(third.dataDir, ['restore', file, '--yes'])
    expect([refused.code, refused.error]).toEqual([75, 'ANOTHER_INSTANCE'])
  })
})

function listFiles(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).sort() : []
}
