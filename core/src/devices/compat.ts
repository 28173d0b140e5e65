// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import type { Actor } from '../http/actor.ts'
import { CompatPage, EntityId, GivenId, compatPageQuery, entityId, noCustomerId, toCompatPage } from '../http/compat.ts'
import { IdParams, Nullable } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { ensureProduct } from '../products/products.ts'
import { originOf } from '../users/security-events.ts'
import { CompatCredentials, formatCredentials, parseCredentials } from './compat-credentials.ts'
import type { Devices } from './devices.ts'
import { Token } from './schemas.ts'

/** Largest stored `additionalInfo` as JSON text (device API §16.3). */
const maxAdditionalInfoBytes = 32_768
/** Longest description that has a column of its own. */
const maxDescription = 2000

const AdditionalInfo = Nullable(Type.Record(Type.String(), Type.Unknown()))

/** What clients send; other members are ignored [TB-4]. */
const DeviceBody = Type.Object({
  id: Type.Optional(Nullable(GivenId)),
  name: Type.String({ minLength: 1, maxLength: 255, pattern: '\\S' }),
  type: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
  label: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
  deviceProfileId: Type.Optional(Nullable(GivenId)),
  additionalInfo: Type.Optional(AdditionalInfo),
  version: Type.Optional(Nullable(Type.Integer())),
})
type DeviceBody = Static<typeof DeviceBody>

const CompatDevice = Type.Object({
  id: EntityId,
  createdTime: Type.Integer(),
  tenantId: EntityId,
  customerId: EntityId,
  name: Type.String(),
  type: Type.String(),
  label: Nullable(Type.String()),
  deviceProfileId: EntityId,
  firmwareId: Type.Null(),
  softwareId: Type.Null(),
  version: Type.Integer(),
  additionalInfo: Type.Record(Type.String(), Type.Unknown()),
})
type CompatDevice = Static<typeof CompatDevice>

const ListQuery = Type.Partial(
  Type.Object({ ...compatPageQuery, type: Type.String({ maxLength: 255 }), deviceName: Type.String({ maxLength: 255 }) }),
)
type ListQuery = Static<typeof ListQuery>

type DeviceRow = {
  id: string
  createdTime: number
  customerId: string | null
  name: string
  type: string
  label: string | null
  productId: string
  version: number
  description: string | null
  isGateway: boolean
  gatewayId: string | null
  additionalInfo: Record<string, unknown>
}

const tags = ['compat']

/** Devices as ThingsBoard's clients manage them (device API §16.3). */
export function registerCompatDeviceRoutes(app: App, context: Context, { devices }: { devices: Devices }): void {
  app.post(
    '/api/device',
    {
      config: { permission: 'device.write', compat: true },
      schema: {
        tags,
        summary: 'Create or change a device',
        querystring: Type.Object({ accessToken: Type.Optional(Token) }),
        body: DeviceBody,
        response: { 200: CompatDevice },
      },
    },
    async (request) => {
      const actor = actorOf(request)
      const id = await saveDevice(context, devices, actor, request.body, request.query.accessToken)
      return getCompatDevice(context, actor.scope, id)
    },
  )
  app.get(
    '/api/device/:id',
    {
      config: { permission: 'device.read', compat: true },
      schema: { tags, summary: 'Read a device', params: IdParams, response: { 200: CompatDevice } },
    },
    (request) => getCompatDevice(context, actorOf(request).scope, request.params.id),
  )
  app.delete(
    '/api/device/:id',
    { config: { permission: 'device.write', compat: true }, schema: { tags, summary: 'Move a device to the bin', params: IdParams } },
    async (request, reply) => {
      await devices.delete(actorOf(request), request.params.id)
      return reply.code(200).send()
    },
  )
  app.get(
    '/api/tenant/devices',
    {
      config: { permission: 'device.read', compat: true },
      schema: {
        tags,
        summary: 'List devices, or find one by its name',
        querystring: ListQuery,
        response: { 200: Type.Union([CompatPage(CompatDevice), CompatDevice]) },
      },
    },
    (request) => {
      const { scope } = actorOf(request)
      const { deviceName } = request.query
      return deviceName === undefined ? listDevices(context, scope, request.query) : getDevice(context, scope, sql`d.name = ${deviceName}`)
    },
  )
  app.get(
    '/api/device/types',
    {
      config: { permission: 'device.read', compat: true },
      schema: {
        tags,
        summary: 'Types of the devices there are: the names of their products',
        response: { 200: Type.Array(Type.Object({ tenantId: EntityId, entityType: Type.Literal('DEVICE'), type: Type.String() })) },
      },
    },
    (request) => listTypes(context, actorOf(request).scope),
  )
  app.get(
    '/api/device/:id/credentials',
    {
      config: { permission: 'device.credentials.read', compat: true },
      schema: { tags, summary: 'Show the credentials of a device', params: IdParams, response: { 200: CompatCredentials } },
    },
    async (request) => {
      const actor = actorOf(request)
      const credentials = await devices.showCredentials(actor, originOf(request), request.params.id)
      return formatCredentials(context, actor.scope, request.params.id, credentials)
    },
  )
  app.post(
    '/api/device/credentials',
    {
      config: { permission: 'device.write', compat: true },
      schema: {
        tags,
        summary: 'Replace the credentials of a device',
        body: Type.Object({
          deviceId: GivenId,
          credentialsType: Type.String(),
          credentialsId: Type.Optional(Nullable(Type.String())),
          credentialsValue: Type.Optional(Nullable(Type.String())),
        }),
        response: { 200: CompatCredentials },
      },
    },
    async (request) => {
      const actor = actorOf(request)
      const deviceId = request.body.deviceId.id
      const stored = await devices.changeCredentials(actor, originOf(request), deviceId, parseCredentials(request.body))
      return formatCredentials(context, actor.scope, deviceId, stored)
    },
  )
}

/** Creates the device, or changes the one of `body.id`; @returns its id. */
async function saveDevice(
  context: Context,
  devices: Devices,
  actor: Actor,
  body: DeviceBody,
  accessToken: string | undefined,
): Promise<string> {
  const productId = body.deviceProfileId?.id ?? (body.type?.trim() ? await ensureProduct(context, actor.scope, body.type) : undefined)
  const info = body.additionalInfo === undefined ? undefined : splitInfo(body.additionalInfo ?? {})
  const common = { name: body.name, ...(productId ? { productId } : {}), ...(info ? { additionalInfo: info.rest } : {}) }
  if (!body.id) {
    const created = await devices.create(
      actor,
      {
        ...common,
        ...(body.label ? { label: body.label } : {}),
        ...(info?.description ? { description: info.description } : {}),
        gateway: info?.isGateway ?? false,
      },
      accessToken === undefined ? undefined : { type: 'access_token', token: accessToken },
    )
    return created.id
  }
  const change = {
    ...common,
    ...(body.label === undefined ? {} : { label: body.label }),
    ...(info ? { description: info.description ?? null, isGateway: info.isGateway } : {}),
  }
  const { device } = await devices.update(actor, body.id.id, change, body.version ?? undefined)
  return device.id
}

/** Takes out of `additionalInfo` what devices have fields for; the rest is kept as it was given. */
function splitInfo(info: Record<string, unknown>): { isGateway: boolean; description: string | undefined; rest: Record<string, unknown> } {
  const text = JSON.stringify(info)
  // JSON.stringify escapes U+0000 and lone surrogates, which jsonb cannot hold; an escaped backslash before is none.
  const isStorable = !/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/.test(text)
  if (Buffer.byteLength(text) > maxAdditionalInfoBytes || !isStorable) {
    throw new ProblemError('VALIDATION_FAILED', {
      errors: [
        {
          pointer: '/additionalInfo',
          detail: isStorable
            ? `additionalInfo is larger than ${maxAdditionalInfoBytes} bytes.`
            : 'additionalInfo holds text that is not valid Unicode.',
        },
      ],
    })
  }
  const rest = new Map(Object.entries(info))
  const { description, gateway } = info
  const hasField = typeof description === 'string' && description.length <= maxDescription
  if (hasField) rest.delete('description')
  if (typeof gateway === 'boolean') rest.delete('gateway')
  return { isGateway: gateway === true, description: hasField ? description : undefined, rest: Object.fromEntries(rest) }
}

const columns = sql`d.id, floor(extract(epoch from d.created_at) * 1000)::float8 as "createdTime", d.customer_id as "customerId", d.name, p.name as type, d.label,
  d.product_id as "productId", d.version, d.description, d.is_gateway as "isGateway", d.gateway_id as "gatewayId", d.additional_info as "additionalInfo"`
const tables = sql`devices d join products p on p.tenant_id = d.tenant_id and p.id = d.product_id`

/** A device in ThingsBoard's form. @throws {ProblemError} `NOT_FOUND` */
export function getCompatDevice(context: Context, scope: Scope, id: string): Promise<CompatDevice> {
  return getDevice(context, scope, sql`d.id = ${id}`)
}

/** @throws {ProblemError} `NOT_FOUND` */
async function getDevice(context: Context, scope: Scope, where: SQL): Promise<CompatDevice> {
  const [row] = await context.db.withTenant(scope, (tx) =>
    tx.execute<DeviceRow>(sql`select ${columns} from ${tables} where d.deleted_at is null and ${where}`),
  )
  if (!row) throw new ProblemError('NOT_FOUND')
  return toCompatDevice(scope, row)
}

const sortColumns: Record<string, SQL> = { createdTime: sql`d.created_at`, name: sql`d.name`, type: sql`p.name`, label: sql`d.label` }

async function listDevices(context: Context, scope: Scope, query: ListQuery) {
  const { pageSize, page, textSearch, type, sortProperty = 'createdTime', sortOrder = 'ASC' } = query
  if (pageSize === undefined || page === undefined) {
    const missing = pageSize === undefined ? 'pageSize' : 'page'
    throw new ProblemError('VALIDATION_FAILED', {
      errors: [{ pointer: `?${missing}`, detail: `Required request parameter '${missing}' is not present.` }],
    })
  }
  const parts = [sql`d.deleted_at is null`]
  if (type) parts.push(sql`p.name = ${type}`)
  if (textSearch) {
    const pattern = `%${textSearch.replace(/[\\%_]/g, '\\$&')}%`
    parts.push(sql`(d.name ilike ${pattern} or d.label ilike ${pattern} or p.name ilike ${pattern})`)
  }
  const where = sql.join(parts, sql` and `)
  const direction = sortOrder === 'DESC' ? sql`desc nulls last` : sql`asc nulls first`
  const { rows, total } = await context.db.withTenant(scope, async (tx: Tx) => ({
    rows: await tx.execute<DeviceRow>(sql`select ${columns} from ${tables} where ${where}
      order by ${sortColumns[sortProperty] ?? sql`d.created_at`} ${direction}, d.number limit ${pageSize} offset ${pageSize * page}`),
    total: await tx.execute<{ count: number }>(sql`select count(*)::float8 as count from ${tables} where ${where}`),
  }))
  return toCompatPage(
    rows.map((row) => toCompatDevice(scope, row)),
    total[0]?.count ?? 0,
    pageSize,
    page,
  )
}

async function listTypes(context: Context, scope: Scope) {
  const rows = await context.db.withTenant(scope, (tx) =>
    tx.execute<{ type: string }>(sql`select distinct p.name as type from ${tables} where d.deleted_at is null order by 1`),
  )
  return rows.map(({ type }) => ({ tenantId: entityId('TENANT', scope.tenantId), entityType: 'DEVICE' as const, type }))
}

function toCompatDevice(scope: Scope, row: DeviceRow): CompatDevice {
  const { id, createdTime, name, type, label, version } = row
  return {
    id: entityId('DEVICE', id),
    createdTime,
    tenantId: entityId('TENANT', scope.tenantId),
    customerId: entityId('CUSTOMER', row.customerId ?? noCustomerId),
    name,
    type,
    label,
    deviceProfileId: entityId('DEVICE_PROFILE', row.productId),
    firmwareId: null,
    softwareId: null,
    version,
    additionalInfo: {
      gateway: row.isGateway,
      description: row.description ?? '',
      ...row.additionalInfo,
      ...(row.gatewayId === null ? {} : { lastConnectedGateway: row.gatewayId }),
    },
  }
}
