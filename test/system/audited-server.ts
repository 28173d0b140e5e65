// SPDX-License-Identifier: AGPL-3.0-only
import { createPublicKey } from 'node:crypto'
import { readConfig } from '../../core/src/config.ts'
import { createLog } from '../../core/src/log.ts'
import { startPlatform } from '../../core/src/start.ts'

/** What a server in a process of its own is told of its vendor and its module. */
export type AuditedServer = { kid: string; publicKey: string; module: string }

/** For tests that kill it: `node audited-server.ts <JSON>`; a line with its port says that it is ready. */
if (import.meta.main) {
  const { kid, publicKey, module } = JSON.parse(process.argv[2]!) as AuditedServer
  const key = { kid, purpose: 'license' as const, key: createPublicKey(publicKey) }
  const platform = await startPlatform(readConfig(), createLog('error'), {
    licenseKeys: new Map([[kid, key]]),
    moduleFolders: [module],
  })
  process.stdout.write(`port ${platform.ports.http}\n`)
}
