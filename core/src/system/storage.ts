// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { Instant, Nullable, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { StoreStats, TelemetryStore } from '../telemetry/store.ts'
import { readDatabaseBytes } from './disk-guard.ts'
import type { DiskGuard } from './disk-guard.ts'

export type StorageParts = { disk: DiskGuard; store: TelemetryStore }

const tags = ['system']
/** The heads of all chunks are counted for it, so many who look at once get one answer. */
const statsFreshMs = 60_000

const Level = Type.Union([Type.Literal('ok'), Type.Literal('warn'), Type.Literal('high'), Type.Literal('critical')])
const DiskState = Type.Object({ level: Level, forecastDays: Nullable(Type.Number()) })
const TelemetryStats = Type.Object({
  segments: Type.Object({
    active: Type.Integer(),
    sealed: Type.Integer(),
    waitingRows: Type.Integer(),
    oldestSealedAt: Nullable(Instant),
  }),
  chunks: Type.Integer(),
  points: Type.Integer(),
  bytes: Type.Object({ segments: Type.Integer(), chunks: Type.Integer(), indexes: Type.Integer() }),
  bytesPerPoint: Nullable(Type.Number()),
  damaged: Type.Integer(),
  firstStoreBytes: Type.Integer(),
})
const Storage = Type.Object({
  level: Level,
  /** Null where nobody can know: an external database without a quota. */
  freeBytes: Nullable(Type.Number()),
  totalBytes: Nullable(Type.Number()),
  growthBytesPerDay: Nullable(Type.Number()),
  forecastDays: Nullable(Type.Number()),
  database: Type.Object({ bytes: Type.Number() }),
  /** Null when it could not be counted in time. */
  telemetry: Nullable(TelemetryStats),
})

/** What takes room and can wait [RE §10]: refused from level `high` on. */
const heavyRoutes: ReadonlySet<string> = new Set([
  'GET /api/v1/devices/:id/telemetry/export',
  'POST /api/v1/telemetry/export',
  'POST /api/v1/demo',
  'PUT /api/v1/ota-packages/:id/content',
])

/** Before the routes are registered. Who may not call one hears that first. */
export function refuseHeavyWork(app: App, disk: DiskGuard): void {
  app.addHook('preHandler', async ({ method, routeOptions }) => {
    if (heavyRoutes.has(`${method} ${routeOptions.url}`)) disk.assertDiskHasRoom()
  })
}

/** How full the disk is: in full for administrators, as far as the banner needs it for everybody. */
export function registerStorageRoutes(app: App, context: Context, { disk, store }: StorageParts): void {
  const readStats = remember(context, () => store.stats())
  app.get(
    '/api/v1/system/storage',
    {
      config: { permission: 'system.read' },
      schema: {
        tags,
        summary: 'Room left for the database and what takes it',
        response: { 200: Storage, ...problems(400, 401, 403, 503) },
      },
    },
    async () => {
      const [bytes, telemetry] = await Promise.all([
        readDatabaseBytes(context),
        readStats().catch((error: unknown) => {
          context.log.warn({ err: error }, 'what telemetry takes could not be counted')
          return null
        }),
      ])
      return { ...disk.status, database: { bytes }, telemetry }
    },
  )
  app.get(
    '/api/v1/system/disk',
    {
      config: { permission: 'session' },
      schema: { tags, summary: 'Whether the disk is filling up', response: { 200: DiskState, ...problems(400, 401) } },
    },
    () => {
      const { level, forecastDays } = disk.status
      return { level, forecastDays }
    },
  )
}

function remember({ clock }: Context, read: () => Promise<StoreStats>): () => Promise<StoreStats> {
  let found: { at: number; stats: Promise<StoreStats> } | undefined
  return () => {
    const now = clock.monotonic()
    if (found && now - found.at < statsFreshMs) return found.stats
    const stats = read()
    found = { at: now, stats }
    // A failure is not worth keeping.
    stats.catch(() => (found = undefined))
    return stats
  }
}
