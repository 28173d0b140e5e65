// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createVendor, passphrase } from './testing.ts'
import type { Vendor } from './testing.ts'

/** Runs a program at a terminal of its own: waits for each prompt, then types. Prints what was seen and the exit code. */
const typist = `
import json, os, pty, select, sys
prompts, command = json.loads(sys.argv[1]), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
seen, done = b'', 0
while True:
    ready, _, _ = select.select([fd], [], [], 60)
    if not ready:
        break
    try:
        chunk = os.read(fd, 4096)
    except OSError:
        break
    if not chunk:
        break
    seen += chunk
    if prompts and prompts[0][0].encode() in seen[done:]:
        done = len(seen)
        os.write(fd, prompts.pop(0)[1].encode())
_, status = os.waitpid(pid, 0)
print(json.dumps({'seen': seen.decode(), 'code': os.waitstatus_to_exitcode(status)}))
`
const launcher = fileURLToPath(new URL('../bin/license-tools.mjs', import.meta.url))

let vendor: Vendor
beforeAll(async () => {
  vendor = await createVendor({ purposes: ['crl'] })
})
afterAll(() => vendor.close())

function type(prompts: readonly [string, string][], ...args: string[]): Promise<{ seen: string; code: number }> {
  const child = spawn('python3', ['-c', typist, JSON.stringify(prompts), process.execPath, launcher, ...args, '--lang', 'en'], {
    cwd: vendor.folder,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  return new Promise((resolve) => child.once('close', () => resolve(JSON.parse(output) as { seen: string; code: number })))
}

test('a passphrase is asked for at the terminal and not shown; a typing error can be taken back [T-4]', async () => {
  const { seen, code } = await type([[': ', `${passphrase}x\u007f\r`]], 'key', 'test', vendor.kids.crl)
  expect([code, seen]).toEqual([0, expect.stringContaining('works')])
  expect(seen).not.toContain(passphrase)
})

test('a new passphrase is asked for twice [T-12]', async () => {
  const { seen, code } = await type(
    [
      ['key: ', 'one long passphrase\r'],
      ['more: ', 'another long passphrase\r'],
    ],
    'key',
    'create',
    '--purpose',
    'license',
  )
  expect([code, seen]).toEqual([8, expect.stringContaining('differ')])
})

test('Ctrl-C at a prompt ends with 130', async () => {
  expect(await type([[': ', '\u0003']], 'key', 'test', vendor.kids.crl)).toMatchObject({ code: 130 })
})

test('a question is answered with y, anything else does nothing', async () => {
  const retire = (answer: string) => type([['[y/N] ', answer]], 'key', 'retire', vendor.kids.crl, '--reason', 'no longer needed')
  expect(await retire('n\r')).toMatchObject({ code: 2, seen: expect.stringContaining('nothing was done') })
  expect(vendor.open().getKey(vendor.kids.crl).status).toBe('active')
  expect(await retire('y\r')).toMatchObject({ code: 0 })
  expect(vendor.open().getKey(vendor.kids.crl).status).toBe('retired')
})
