#!/usr/bin/env node
// SPDX-License-Identifier: AGPL-3.0-only
import { enableCompileCache } from 'node:module'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { readConfig } from './config.ts'
import { StartError, exitCodes } from './errors.ts'
import { version } from './version.ts'

// Compiling takes a third of a start. What was compiled is kept beside the packages: whoever may write there could change
// the code itself. Where that folder cannot be written, as in an image, nothing is kept.
enableCompileCache(join(import.meta.dirname, '../../node_modules/.cache/compile'))

const usage = `IoT PMS ${version}

iot-pms start [--demo]                    run the server; --demo loads living example data
iot-pms migrate [--no-restore-point]      bring the database to this version and end
iot-pms init --secrets DIR …              what containers need before their first start: keys and logins
iot-pms admin setup-link                  a new link for the first administrator
iot-pms admin reset-password EMAIL        a link that sets a new password
iot-pms device simulate [options]         send example data over real MQTT; --help lists the options
iot-pms telemetry stats [--json]          what the telemetry store holds, and what it takes
iot-pms doctor [--json]                   looks at settings, database, disk, clock, keys, and says what to mend
iot-pms backup [--out FILE|-] [options]   one file with everything; the server may run; --kind, --passphrase-file
iot-pms restore FILE [options]            put a backup in the place of the database; --check, --yes, --into
iot-pms license show [--json]             state, term, limits and machine of the license
iot-pms license request [-o FILE]         a request file for a license; --mode, --note
iot-pms license install FILE|-            install a license; --acknowledge accepts what it takes away
iot-pms license crl FILE|-                install a revocation list
iot-pms license remove --acknowledge      take the license away; all data stays
iot-pms license release --acknowledge     the same for good, with a receipt for the vendor
iot-pms <module> <command>                a script of a module of this build, such as: audit verify FILE
iot-pms version                           print the version

All settings come from the environment: docs/reference/config.md
`

/** The commands by their words; each is imported only when it is called, so that a start stays quick. */
const commands: Record<string, (args: string[]) => Promise<number | undefined>> = {
  start: async (args) => (await import('./cli/start.ts')).runStart(args),
  migrate: async (args) => (await import('./cli/admin.ts')).runMigrate(readConfig(), args),
  init: async (args) => (await import('./cli/init.ts')).runInit(args),
  'admin setup-link': async () => (await import('./cli/admin.ts')).runSetupLink(readConfig()),
  'admin reset-password': async (args) => (await import('./cli/admin.ts')).runResetPassword(readConfig(), args[0]),
  'telemetry stats': async (args) => (await import('./cli/telemetry.ts')).runTelemetryStats(readConfig(), args),
  doctor: async (args) => (await import('./cli/doctor.ts')).runDoctor(args),
  backup: async (args) => (await import('./cli/backup.ts')).runBackup(readConfig(), args),
  restore: async (args) => (await import('./cli/restore.ts')).runRestore(readConfig(), args),
  ...Object.fromEntries(
    ['show', 'request', 'install', 'crl', 'remove', 'release'].map((act) => [
      `license ${act}`,
      async (args: string[]) => (await import('./cli/license.ts')).runLicense(readConfig(), act, args),
    ]),
  ),
  'device simulate': async (args) => (await import('./simulate/cli.ts')).runSimulate(args),
  version: async () => print(`${version}\n`),
  help: async () => print(usage),
}

function print(text: string): undefined {
  process.stdout.write(text)
}

async function run(args: string[]): Promise<number | undefined> {
  const { positionals } = parseArgs({ args, allowPositionals: true, strict: false })
  const name = [positionals.slice(0, 2).join(' '), positionals[0] ?? 'help'].find((one) => commands[one])
  if (!name) {
    const { runModuleCommand } = await import('./modules/commands.ts')
    const code = await runModuleCommand(args)
    if (code !== undefined) return code
    throw new StartError('USAGE', exitCodes.usage, `There is no command "${positionals.join(' ')}".`, 'See: iot-pms help')
  }
  const words = name.split(' ')
  return commands[name]!(args.filter((arg, index) => index >= words.length || arg !== words[index]))
}

/** The last line of standard error is one JSON object for scripts [RE-70]; the sentence before it is for people. */
function fail(error: unknown): never {
  const known =
    error instanceof StartError
      ? error
      : new StartError(
          'INTERNAL',
          exitCodes.internal,
          error instanceof Error ? (error.stack ?? error.message) : String(error),
          'This is a bug: please report it with the lines above.',
        )
  process.stderr.write(`\n${known.message}\n→ ${known.hint}\n`)
  process.stderr.write(`${JSON.stringify({ code: known.code, message: known.message, hint: known.hint })}\n`)
  process.exit(known.exitCode)
}

run(process.argv.slice(2)).then((code) => {
  if (code !== undefined) process.exitCode = code
}, fail)
