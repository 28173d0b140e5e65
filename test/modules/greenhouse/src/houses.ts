// SPDX-License-Identifier: AGPL-3.0-only
import { Id, Nullable, ProblemError, actorOf, problems } from '@iot-pms/core'
import type { App, Device, ModuleContext, Point, Scope } from '@iot-pms/core'
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'

const House = Type.Object(
  { id: Id, name: Type.String(), deviceId: Nullable(Id), warmest: Nullable(Type.Number()) },
  { $id: 'Greenhouse.House' },
)
const HouseRef = Type.Unsafe<{ id: string; name: string; deviceId: string | null; warmest: number | null }>({ $ref: 'Greenhouse.House#' })
type Row = { id: string; name: string; deviceId: string | null; warmest: number | null }

/** Routes below /api/v1/greenhouse. */
export function registerHouses(context: ModuleContext): (app: App) => void {
  return (app) => {
    app.addSchema(House)
    app.get(
      '/houses',
      {
        config: { permission: 'greenhouse.house.read' },
        schema: {
          tags: ['greenhouse'],
          operationId: 'greenhouseListHouses',
          summary: 'List houses',
          response: { 200: Type.Object({ items: Type.Array(HouseRef) }), ...problems(400, 401, 403) },
        },
      },
      async (request) => {
        const rows = await context.db.withTenant(actorOf(request).scope, (tx) =>
          tx.execute<Row>(sql`select id, name, device_id as "deviceId", warmest from greenhouse.houses order by name`),
        )
        return { items: [...rows] }
      },
    )
    app.post(
      '/houses',
      {
        config: { permission: 'greenhouse.house.write' },
        schema: {
          tags: ['greenhouse'],
          operationId: 'greenhouseCreateHouse',
          summary: 'Create a house',
          body: Type.Object(
            { name: Type.String({ minLength: 1, maxLength: 100 }), deviceId: Type.Optional(Id) },
            { additionalProperties: false },
          ),
          response: { 201: HouseRef, ...problems(400, 401, 403, 409, 422) },
        },
      },
      async (request, reply) => {
        const house = await createHouse(context, actorOf(request).scope, request.body)
        return reply.code(201).send(house)
      },
    )
    app.delete(
      '/houses/:id',
      {
        config: { permission: 'greenhouse.house.write' },
        schema: {
          tags: ['greenhouse'],
          operationId: 'greenhouseDeleteHouse',
          summary: 'Delete a house',
          params: Type.Object({ id: Id }),
          response: { 204: Type.Null(), ...problems(400, 401, 403, 404) },
        },
      },
      async (request, reply) => {
        const deleted = await context.db.withTenant(actorOf(request).scope, (tx) =>
          tx.execute(sql`delete from greenhouse.houses where id = ${request.params.id} returning id`),
        )
        if (deleted.length === 0) throw new ProblemError('NOT_FOUND')
        return reply.code(204).send(null)
      },
    )
  }
}

async function createHouse(context: ModuleContext, scope: Scope, wanted: { name: string; deviceId?: string }): Promise<Row> {
  const max = Number(context.config['IOT_PMS_GREENHOUSE_MAX_HOUSES'])
  return context.db.withTenant(scope, async (tx) => {
    const [held] = await tx.execute<{ count: number }>(sql`select count(*)::int as count from greenhouse.houses`)
    if (held!.count >= max) throw new ProblemError('UNPROCESSABLE')
    const [row] = await tx.execute<Row>(sql`insert into greenhouse.houses (tenant_id, name, device_id)
      values (${scope.tenantId}, ${wanted.name}, ${wanted.deviceId ?? null}) on conflict do nothing
      returning id, name, device_id as "deviceId", warmest`)
    if (!row) throw new ProblemError('NAME_TAKEN', { params: { name: wanted.name } })
    return row
  })
}

/** After the commit of points: the warmest a house has been. */
export async function noteWarmest(context: ModuleContext, device: Device, points: readonly Point[]): Promise<void> {
  const warmest = Math.max(...points.flatMap((point) => (point.key === 'temperature' && point.kind === 'double' ? [point.value] : [])))
  if (!Number.isFinite(warmest)) return
  await context.db.withTenant({ tenantId: device.tenantId, tenantNo: device.tenantNo }, (tx) =>
    tx.execute(sql`update greenhouse.houses set warmest = greatest(warmest, ${warmest}) where device_id = ${device.id}`),
  )
}

/** The hourly job: a house that is called cold goes. */
export async function removeColdHouses(context: ModuleContext, tenant: Scope): Promise<void> {
  await context.db.withTenant(tenant, (tx) => tx.execute(sql`delete from greenhouse.houses where name = 'cold'`))
}
