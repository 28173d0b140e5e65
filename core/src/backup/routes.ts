// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { Instant, Nullable, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { DailyBackup } from './daily-backup.ts'

const tags = ['system']
const Backup = Type.Object({
  name: Type.String(),
  kind: Type.Union([Type.Literal('full'), Type.Literal('config')]),
  createdAt: Instant,
  sizeBytes: Type.Integer(),
})
const Backups = Type.Object({
  /** Folder on the server. */
  folder: Type.String(),
  items: Type.Array(Backup),
  /** When the next one of the configuration is made; null when it is due, or made elsewhere. */
  nextAt: Nullable(Instant),
})

/** What lies in the folder of backups; restoring is for the console of a stopped server. */
export function registerBackupRoutes(app: App, backups: DailyBackup): void {
  app.get(
    '/api/v1/system/backups',
    {
      config: { permission: 'system.read' },
      schema: { tags, summary: 'Backups in the data folder, the newest first', response: { 200: Backups, ...problems(400, 401, 403) } },
    },
    () => backups.list(),
  )
  app.post(
    '/api/v1/system/backups',
    {
      config: { permission: 'settings.write' },
      schema: {
        tags,
        summary: 'Make a backup of the configuration now; answers when it is on the disk',
        response: { 201: Backup, ...problems(400, 401, 403, 409, 507) },
      },
    },
    async (_, reply) => reply.code(201).send(await backups.make()),
  )
}
