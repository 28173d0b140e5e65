// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { AuditRecord, AuditSink, Scope, Tx } from '@iot-pms/core'
import { streamOf } from './event.ts'
import type { Draft } from './event.ts'
import { appendEvents } from './log.ts'
import { listChanges } from './mask.ts'
import type { Masking } from './mask.ts'
import type { Settings } from './settings.ts'

/** Writes what core tells into the chains, as the last statements of the transaction it is told in [AU-30]. */
export class Recorder implements AuditSink {
  readonly #settings: Settings

  constructor(settings: Settings) {
    this.#settings = settings
  }

  async append(tx: Tx, scope: Scope, records: readonly AuditRecord[]): Promise<void> {
    const masking = await this.#settings.getMasking(tx, scope)
    const streams = Map.groupBy(records, ({ isPlatform }) => streamOf(isPlatform ? undefined : scope.tenantId))
    const drafts = [...streams].map(([stream, some]): [string, Draft[]] => [stream, some.map((record) => toDraft(record, masking))])
    await appendEvents(tx, scope, new Map(drafts))
  }
}

/** Secrets are masked here, before there is an event [AU-21]. */
export function toDraft({ type, outcome, reason, subject, targetName, changes, actor, context }: AuditRecord, masking: Masking): Draft {
  const schema = changes?.schema
  return {
    type,
    outcome,
    reason,
    subject,
    targetName,
    changes: changes ? listChanges(changes.from, changes.to, { ...masking, schema }) : [],
    actor: actor.id,
    actorName: actor.name,
    session: actor.session,
    auth: actor.auth,
    context,
  }
}
