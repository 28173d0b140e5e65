// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Config } from '../config.ts'
import { ProblemError, StartError, exitCodes } from '../errors.ts'
import { createLicense } from '../license/create.ts'
import { installCrl, installLicense, removeLicense } from '../license/install.ts'
import type { LicenseService } from '../license/license.ts'
import { machineModes } from '../license/machine.ts'
import type { MachineMode } from '../license/machine.ts'
import { releaseLicense, requestFileName } from '../license/routes.ts'
import { readCounts } from '../license/rows.ts'
import type { LicenseView } from '../license/schemas.ts'
import { viewLicense } from '../license/view.ts'
import { discoverModules } from '../modules/discovery.ts'
import { withContext } from './admin.ts'

const usage =
  'iot-pms license show [--json] | request [-o FILE] [--mode host|instance|cluster] [--note TEXT] | install FILE [--acknowledge] | crl FILE | remove --acknowledge | release --acknowledge'
const options = {
  json: { type: 'boolean', default: false },
  acknowledge: { type: 'boolean', default: false },
  output: { type: 'string', short: 'o' },
  mode: { type: 'string' },
  note: { type: 'string' },
} as const
const consoleActor = { id: 'console', name: 'console' }

type Act = (license: LicenseService, call: ReturnType<typeof parseCall>) => Promise<void>

/** What `iot-pms license …` does, on the database itself: a running server follows by itself, a stopped one needs none. */
const acts: Record<string, Act> = {
  async show(license, { values }) {
    const { db, rootTenant } = license.context
    const { devices } = await db.withTenant(rootTenant, readCounts)
    const present = discoverModules().modules.map((block) => ({ ...block, status: 'locked' as const }))
    const view = viewLicense(license, { present, refusals: [], devices })
    write(values.json ? `${JSON.stringify(view, null, 2)}\n` : formatView(view))
  },
  async request(license, { values }) {
    if (values.mode !== undefined && !Object.hasOwn(machineModes, values.mode)) throw usageError('--mode is host, instance or cluster.')
    const wanted = { ...(values.mode ? { mode: values.mode as MachineMode } : {}), ...(values.note ? { note: values.note } : {}) }
    const request = await license.makeRequest({ ...wanted, present: listPresent(), actor: consoleActor.id })
    const file = values.output ?? requestFileName(license, request.createdAt)
    writeFileSync(file, `${JSON.stringify(request, null, 2)}\n`)
    write(`${file}\nshort code ${request.shortCode}, strength ${request.strength}\n`)
  },
  async install(license, { values, file }) {
    const wish = { text: readText(file), actor: consoleActor, source: 'upload', acknowledge: values.acknowledge } as const
    const { result, changes } = await installLicense(license, wish)
    write(`${result}\n${changes.map((change) => `${JSON.stringify(change)}\n`).join('')}`)
  },
  async crl(license, { file }) {
    const { result, seq } = await installCrl(license, consoleActor, readText(file))
    write(`${result}, sequence ${seq}\n`)
  },
  async remove(license, { values }) {
    await removeLicense(license, consoleActor, values.acknowledge)
    write('removed\n')
  },
  async release(license, { values }) {
    write(`${JSON.stringify(await releaseLicense(license, consoleActor, values.acknowledge), null, 2)}\n`)
  },
}

/** `iot-pms license show|request|install|crl|remove|release`; ends with 1 and the code where a license is refused. */
export async function runLicense(config: Config, act: string, args: string[]): Promise<number | undefined> {
  const call = parseCall(args)
  if ((act === 'install' || act === 'crl') && !call.file) throw usageError('Which file? `-` reads standard input.')
  let code: number | undefined
  await withContext(config, async (context) => {
    const license = createLicense(context)
    await license.open()
    try {
      await acts[act]!(license, call)
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error
      process.stderr.write(`${error.message}\n${JSON.stringify({ code: error.code, ...error.members('en') })}\n`)
      code = 1
    } finally {
      license.stop()
    }
  })
  return code
}

/** Commercial modules of this build, for the vendor to see what is asked for. */
function listPresent(): string[] {
  return discoverModules().modules.map(({ name }) => name)
}

function parseCall(args: string[]) {
  try {
    const { values, positionals } = parseArgs({ args, options, strict: true, allowPositionals: true })
    return { values, file: positionals[0] }
  } catch (error) {
    throw usageError((error as Error).message, error)
  }
}

function usageError(message: string, cause?: unknown): StartError {
  return new StartError('USAGE', exitCodes.usage, message, usage, cause)
}

function readText(file: string | undefined): string {
  try {
    return readFileSync(file === '-' ? 0 : file!, 'utf8')
  } catch (error) {
    throw new StartError('FILE_UNREADABLE', exitCodes.usage, `${file} cannot be read.`, usage, error)
  }
}

function write(text: string): void {
  process.stdout.write(text)
}

/** A line for each thing an administrator asks first. */
export function formatView(view: LicenseView): string {
  const { license, machine, limits, conditions } = view
  const lines: [string, string][] = [['State', `${view.state}${conditions.length > 0 ? ` (${conditions.join(', ')})` : ''}`]]
  lines.push(['Edition', view.edition])
  if (license) {
    lines.push(['Customer', `${license.customer ?? license.sub}, license ${license.jti}, number ${license.seq}`])
    lines.push(['Term', `${license.notBefore} … ${license.expiresAt}, read-only from ${license.graceEndsAt}`])
  }
  lines.push(['Features', view.features.flatMap(({ id, granted }) => (granted ? [id] : [])).join(', ') || 'none'])
  const { limit, hard, used } = limits.devices
  lines.push(['Devices', limit === -1 ? `${used}, no limit` : `${used} of ${limit}, none above ${hard}`])
  if (machine) lines.push(['Machine', `${machine.mode}, ${machine.matched} of ${machine.total} match, at least ${machine.min}`])
  lines.push(['Installation', `${view.instance.installId}…, key ${view.instance.keyThumbprint}`])
  return lines.map(([name, text]) => `${name.padEnd(14)}${text}\n`).join('')
}
