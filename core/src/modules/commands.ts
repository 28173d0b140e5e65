// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { discoverModules } from './discovery.ts'

/**
 * `iot-pms <module> <command> …`: a script of a module's package.json, in a process of its own. It gets what follows the
 * two words; it needs neither a license nor a running server, so it can check what a server has written.
 *
 * @returns its exit code; undefined when no module of this build has such a command
 */
export async function runModuleCommand([name, word, ...args]: readonly string[]): Promise<number | undefined> {
  const script = discoverModules()
    .modules.find((block) => block.name === name)
    ?.commands.get(word ?? '')
  if (script === undefined) return undefined
  const child = spawn(process.execPath, [script, ...args], { stdio: 'inherit' })
  const [code] = (await once(child, 'close')) as [number | null]
  return code ?? 1
}
