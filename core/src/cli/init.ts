// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, fsyncSync, linkSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { StartError, exitCodes } from '../errors.ts'

type Folders = { secrets: string; databaseSecrets: string; database: string }

/**
 * `iot-pms init --secrets DIR --database-secrets DIR [--database HOST:PORT/NAME]`: makes what containers need
 * before their first start and nobody should have to think up. What is there stays as it is [DP-10].
 *
 * The first folder is the server's alone. The second one is mounted into the database's container too, which reads
 * the administrator's password as a user of its own; the server's container never gets to see it.
 */
export function runInit(args: string[]): undefined {
  const { secrets, databaseSecrets, database } = parseFolders(args)
  keep(join(secrets, 'secret_key'), 0o400, () => randomBytes(32).toString('base64url'))
  const databaseUrl = keep(join(secrets, 'database_url'), 0o400, () => `postgres://iot_pms:${newPassword()}@${database}`)
  const password = keep(join(databaseSecrets, 'admin_password'), 0o444, newPassword)
  // Only the container that migrates reads it, as the server's user.
  keep(join(databaseSecrets, 'migrate_url'), 0o400, () => `postgres://iot_pms_admin:${password}@${new URL(databaseUrl).host}/iot_pms`)
}

function parseFolders(args: string[]): Folders {
  const usage = 'iot-pms init --secrets DIR --database-secrets DIR [--database HOST:PORT/NAME]'
  try {
    const options = { secrets: { type: 'string' }, 'database-secrets': { type: 'string' }, database: { type: 'string' } } as const
    const { values } = parseArgs({ args, options, strict: true })
    if (!values.secrets || !values['database-secrets']) throw new Error('Two folders are needed.')
    return { secrets: values.secrets, databaseSecrets: values['database-secrets'], database: values.database ?? 'database:5432/iot_pms' }
  } catch (error) {
    throw new StartError('USAGE', exitCodes.usage, (error as Error).message, usage, error)
  }
}

/** Enough for any attack on a stolen hash; letters that need no escaping in an address. */
function newPassword(): string {
  return randomBytes(32).toString('base64url')
}

/** The content of a file, which is made when it is missing: whole and on the disk, or not at all. */
function keep(file: string, mode: number, make: () => string): string {
  if (existsSync(file)) return readFileSync(file, 'utf8').trim()
  const next = `${file}.${process.pid}.new`
  try {
    rmSync(next, { force: true })
    const content = make()
    const handle = openSync(next, 'wx', mode)
    try {
      writeSync(handle, `${content}\n`)
      fsyncSync(handle)
    } finally {
      closeSync(handle)
    }
    // Unlike a rename it fails when somebody else was faster.
    linkSync(next, file)
    rmSync(next)
    process.stdout.write(`made ${file}\n`)
    return content
  } catch (error) {
    rmSync(next, { force: true })
    throw new StartError(
      'SECRETS_DIR',
      exitCodes.notWritable,
      `${file} cannot be made: ${(error as Error).message}.`,
      'Both folders must exist and belong to the user that runs this.',
      error,
    )
  }
}
