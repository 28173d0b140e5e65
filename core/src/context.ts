// SPDX-License-Identifier: AGPL-3.0-only
import type { Audit } from './audit.ts'
import type { Clock } from './clock.ts'
import type { Config } from './config.ts'
import type { Db, Scope } from './db/client.ts'
import type { EventBus } from './events.ts'
import type { Jobs } from './jobs/jobs.ts'
import type { License } from './license/snapshot.ts'
import type { Log } from './log.ts'
import type { Secrets } from './secrets.ts'

/** What every part of the server receives. Made once in start.ts. */
export type Context = {
  config: Config
  log: Log
  clock: Clock
  db: Db
  secrets: Secrets
  events: EventBus
  jobs: Jobs
  /** Who did what, for whom it may concern in the same transaction. */
  audit: Audit
  /** Id of this installation: the audience of access tokens. */
  installId: string
  /** The one tenant of the community edition; a module may resolve others from a credential. */
  rootTenant: Scope
  /** What is granted and limited; asked without waiting. */
  license: License
}
