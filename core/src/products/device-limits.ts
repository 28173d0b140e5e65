// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Db, Tx } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { ScopeRates } from '../ingest/rate-limits.ts'
import { DeviceRates, DeviceRatesPatch } from './schemas.ts'
import type { Rates } from './schemas.ts'
import { checkLimits, completeRates, mergePatch } from './settings.ts'

type StoredRates = { device?: Partial<Rates>; gateway?: Partial<Rates>; gatewayDevice?: Partial<Rates> }

/** Rate limits of the installation, for what products leave open. */
export async function loadDeviceLimits(db: Db): Promise<ScopeRates> {
  return completeScopes(await db.withRole('pms_jobs', (tx) => readStored(tx, sql``)))
}

/** @throws {ProblemError} `RATE_LIMIT_SYNTAX` */
async function changeDeviceLimits(db: Db, patch: DeviceRatesPatch): Promise<ScopeRates> {
  return db.withRole('pms_jobs', async (tx) => {
    const before = await readStored(tx, sql`for update`)
    const merged = mergePatch(before, patch) as StoredRates
    checkLimits(merged, '')
    await tx.execute(sql`update installation set device_limits = ${JSON.stringify(merged)}::jsonb`)
    recordAudit(tx, { type: 'settings.update', subject: 'settings:device-limits', changes: { from: before, to: merged } })
    return completeScopes(merged)
  })
}

async function readStored(tx: Tx, lock: ReturnType<typeof sql>): Promise<StoredRates> {
  const rows = await tx.execute<{ limits: StoredRates }>(sql`select device_limits as limits from installation ${lock}`)
  return rows[0]?.limits ?? {}
}

function completeScopes({ device, gateway, gatewayDevice }: StoredRates): ScopeRates {
  return { device: completeRates(device), gateway: completeRates(gateway), gatewayDevice: completeRates(gatewayDevice) }
}

/** @param apply brings a change to the devices in memory */
export function registerDeviceLimitRoutes(app: App, context: Context, apply: (rates: ScopeRates) => void): void {
  const path = '/api/v1/settings/device-limits'
  // The limits are the installation's: tenants have theirs by a module.
  const assertRoot = (tenantId: string) => {
    if (tenantId !== context.rootTenant.tenantId) throw new ProblemError('NOT_FOUND')
  }
  app.get(
    path,
    {
      config: { permission: 'settings.read' },
      schema: { tags: ['settings'], summary: 'Rate limits of devices', response: { 200: DeviceRates, ...problems(400, 401, 403, 404) } },
    },
    (request) => {
      assertRoot(actorOf(request).scope.tenantId)
      return loadDeviceLimits(context.db)
    },
  )
  app.patch(
    path,
    {
      config: { permission: 'settings.write' },
      schema: {
        tags: ['settings'],
        summary: 'Change the rate limits of devices',
        body: DeviceRatesPatch,
        response: { 200: DeviceRates, ...problems(400, 401, 403, 404, 422) },
      },
    },
    async (request) => {
      const actor = actorOf(request)
      assertRoot(actor.scope.tenantId)
      const rates = await changeDeviceLimits(context.db, request.body)
      apply(rates)
      request.log.info({ by: actor.userId, rates }, 'the rate limits of devices were changed')
      return rates
    },
  )
}
