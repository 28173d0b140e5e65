// SPDX-License-Identifier: AGPL-3.0-only
import { Audit } from '../audit.ts'
import { ensureRestorePoint } from '../backup/restore-point.ts'
import { systemClock } from '../clock.ts'
import type { Config } from '../config.ts'
import type { Context } from '../context.ts'
import { Db } from '../db/client.ts'
import { findRunningDatabase } from '../db/embedded.ts'
import { loadInstallation, loadRootTenant } from '../db/installation.ts'
import { migrate } from '../db/migrate.ts'
import { ensureDataDir, openDatabase } from '../db/open.ts'
import type { OpenDatabase } from '../db/open.ts'
import { StartError, exitCodes } from '../errors.ts'
import { EventBus } from '../events.ts'
import { Jobs } from '../jobs/jobs.ts'
import { communityLicense } from '../license/snapshot.ts'
import { createLog } from '../log.ts'
import { createSecretKey, loadSecretKey } from '../secrets.ts'
import { createConsoleResetLink, createConsoleSetupLink } from '../users/admin.ts'

/** `iot-pms migrate [--no-restore-point]` */
export async function runMigrate(config: Config, args: readonly string[] = []): Promise<undefined> {
  await withDatabase(config, async (database) => {
    if (!args.includes('--no-restore-point')) await ensureRestorePoint(config, database.adminUrl, createLog('info'))
    await migrate(database.adminUrl, database.appUrl, createLog('info'))
    process.stdout.write('The database is up to date.\n')
  })
}

/** `iot-pms admin setup-link` */
export async function runSetupLink(config: Config): Promise<undefined> {
  await withContext(config, async (context) => {
    const { link } = await createConsoleSetupLink(context)
    process.stdout.write(`${link}\n`)
  })
}

/** `iot-pms admin reset-password EMAIL` */
export async function runResetPassword(config: Config, email: string | undefined): Promise<undefined> {
  if (!email) {
    throw new StartError('USAGE', exitCodes.usage, 'Whose password? An e-mail is missing.', 'iot-pms admin reset-password you@example.com')
  }
  await withContext(config, async (context) => {
    const { link } = await createConsoleResetLink(context, email)
    process.stdout.write(`${link}\n`)
  })
}

/**
 * The database of a running server when there is one, else started for the time of the command.
 *
 * @param level of what is logged on standard output meanwhile: `silent` where that is the answer of the command
 */
export async function withDatabase(
  config: Config,
  work: (database: OpenDatabase) => Promise<void>,
  level: 'warn' | 'silent' = 'warn',
): Promise<void> {
  ensureDataDir(config.dataDir)
  const running = config.database.url ? undefined : await findRunningDatabase(config.dataDir)
  const database = running ? { ...running, stop: async () => {} } : await openDatabase(config, createLog(level))
  try {
    await work(database)
  } finally {
    await database.stop()
  }
}

/** What commands work with; limits and features are the server's business. */
export async function withContext(config: Config, work: (context: Context) => Promise<void>): Promise<void> {
  await withDatabase(config, async (database) => {
    const log = createLog('warn')
    await migrate(database.adminUrl, database.appUrl, log)
    const db = new Db(database.appUrl)
    try {
      const installation = await loadInstallation(db)
      const rootTenant = await loadRootTenant(db)
      const secrets = loadSecretKey(config.secretKey, config.oldSecretKeys, config.dataDir) ?? createSecretKey(config.dataDir)
      const context = {
        config,
        log,
        clock: systemClock,
        db,
        secrets,
        events: new EventBus(log),
        installId: installation.installId,
        rootTenant,
        license: communityLicense,
        audit: new Audit({ db, rootTenant, clock: systemClock, log }),
      }
      // Never started: no command sends jobs.
      await work({ ...context, jobs: new Jobs(context) })
    } finally {
      await db.stop()
    }
  })
}
