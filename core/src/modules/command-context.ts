// SPDX-License-Identifier: AGPL-3.0-only
import { join } from 'node:path'
import { readConfig } from '../config.ts'
import type { ModuleContext } from './manifest.ts'

/** What a command of a module works with: the database of a running or a stopped server, and no license. */
export type CommandContext = Pick<ModuleContext, 'db' | 'folder' | 'listTenants' | 'rootTenant'> & {
  evidence: Pick<ModuleContext['evidence'], 'publicKeys'>
}

/** For a script of `iot-pms <module> <command>` that reads what its module has stored; the settings are the server's. */
export async function withCommandContext<T>(module: string, work: (context: CommandContext) => Promise<T>): Promise<T> {
  // A command that needs no database does not wait for all this to be loaded.
  const [{ withContext }, { EvidenceKeys }, { listTenants }] = await Promise.all([
    import('../cli/admin.ts'),
    import('../evidence/evidence-keys.ts'),
    import('../db/installation.ts'),
  ])
  const config = readConfig()
  const results: T[] = []
  await withContext(config, async (context) => {
    const { db, rootTenant } = context
    const evidence = new EvidenceKeys(context)
    results.push(await work({ db, rootTenant, evidence, folder: join(config.dataDir, module), listTenants: () => listTenants(db) }))
  })
  return results[0]!
}
