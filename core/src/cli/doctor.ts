// SPDX-License-Identifier: AGPL-3.0-only
import { parseArgs } from 'node:util'
import { readConfig } from '../config.ts'
import type { Config } from '../config.ts'
import type { OpenDatabase } from '../db/open.ts'
import { examineDatabase, hasDatabase } from '../doctor/database.ts'
import { attempt, fail, ok } from '../doctor/finding.ts'
import type { Finding } from '../doctor/finding.ts'
import { examineHost } from '../doctor/host.ts'
import { StartError, exitCodes } from '../errors.ts'
import { withDatabase } from './admin.ts'

/** `iot-pms doctor [--json]`: ends with 0 where all is well, 1 with a warning, 2 where something must be mended. */
export async function runDoctor(args: string[]): Promise<number> {
  const isJson = parseOptions(args)
  const findings = await examine()
  const code = findings.some(({ status }) => status === 'FAIL') ? 2 : findings.some(({ status }) => status === 'WARN') ? 1 : 0
  process.stdout.write(isJson ? `${JSON.stringify({ code, findings })}\n` : findings.map(format).join(''))
  return code
}

async function examine(): Promise<Finding[]> {
  let config: Config
  try {
    config = readConfig()
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    return [fail('settings', error.message, error.hint)]
  }
  const findings = [ok('settings', 'are understood'), ...(await examineHost(config, Date.now()))]
  if (!hasDatabase(config)) return [...findings, ok('database', 'is made at the first start')]
  const ofDatabase = await attempt('database', 'Check DATABASE_URL, and that the database runs.', async () => {
    let found: Finding[] = []
    const look = async (database: OpenDatabase) => {
      found = await examineDatabase(config, database)
    }
    await withDatabase(config, look, 'silent')
    return found
  })
  return [...findings, ...ofDatabase]
}

function format({ name, status, finding, fix }: Finding): string {
  return `${status.padEnd(4)} ${name}: ${finding}.${fix ? ` ${fix}` : ''}\n`
}

function parseOptions(args: string[]): boolean {
  try {
    return parseArgs({ args, options: { json: { type: 'boolean', default: false } }, strict: true }).values.json
  } catch (error) {
    throw new StartError('USAGE', exitCodes.usage, (error as Error).message, 'iot-pms doctor [--json]', error)
  }
}
