// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { Ledger } from './ledger.ts'
import { createInstance } from './testing.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'vendor-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

/** Shell commands of the guide, block by block. */
const blocks = Array.from(
  readFileSync(join(root, 'docs/how-to/vendor.md'), 'utf8').matchAll(/^```sh\n([\s\S]*?)^```$/gm),
  (match) => match[1]!,
)

/** All blocks in one shell, as somebody types them; a marker after each says that it ended well. */
function runShell(onBlock: (index: number) => void): Promise<{ code: number | null; output: string }> {
  const shell = spawn('bash', ['-eu', '-o', 'pipefail'], {
    cwd: root,
    env: { HOME: home, LANG: 'en_US.UTF-8', PATH: [dirname(process.execPath), process.env.PATH].join(delimiter) },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  let output = ''
  let done = 0
  const send = () => {
    onBlock(done)
    // Standard input is the shell's own: a command must not read the rest of the script.
    if (done < blocks.length) shell.stdin.write(`{\n${blocks[done]}\n} </dev/null\necho "block ${done} done"\n`)
    else shell.stdin.end()
  }
  for (const stream of [shell.stdout, shell.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString()
      if (!output.includes(`block ${done} done`)) return
      done++
      send()
    })
  }
  send()
  return new Promise((resolve) => shell.once('close', (code) => resolve({ code, output })))
}

test('the guide for vendors holds, command by command', { timeout: 240_000 }, async () => {
  expect(blocks.length).toBeGreaterThan(8)
  const [before, after] = [createInstance(), createInstance('instance', ['install', 'machine-id', 'disk', 'url'])]
  const inbox = join(home, 'vendor/inbox')
  mkdirSync(inbox, { recursive: true })
  const put = (name: string, value: object) => writeFileSync(join(inbox, name), JSON.stringify(value))
  put('acme.req.json', before.request())
  put('acme-new.req.json', after.request())
  const { code, output } = await runShell((index) => {
    // What the customer sends back, once there is a license to let go.
    if (!blocks[index]?.includes('acme-release.json')) return
    const { claims } = [...Ledger.open(join(home, 'vendor/ledger')).records.tokens.values()].findLast(
      (token) => token.claims.sub === 'acme',
    )!
    put('acme-release.json', before.release(claims))
  })
  expect([code, output]).toEqual([0, expect.stringContaining(`block ${blocks.length - 1} done`)])
  expect(output).toContain('The ledger is in order.')
  expect(output).toContain('2 rows: 2 issued')
  expect(output).toContain('2 rows: 0 issued, 2 issued before')
})
