// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import { exactMember } from '../http/body-text.ts'
import { actorOf } from '../http/actor.ts'
import { CompatPage, EntityId, compatPageQuery, compatProblem, entityId, toCompatPage } from '../http/compat.ts'
import { IdParams, Nullable } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { commandColumns } from './command-table.ts'
import type { CommandRow } from './command-table.ts'
import type { Commands } from './commands.ts'
import { maxCommandBytes } from './routes.ts'
import { State, parseExact } from './schemas.ts'

const tags = ['compat']
const mostRetries = 20
const WholeNumber = Type.Integer({ minimum: 0, maximum: 8.64e15 })

/** What clients send; other members are ignored [TB-4]. */
const RpcBody = Type.Object({
  method: Type.String({ minLength: 1, maxLength: 255 }),
  params: Type.Optional(Type.Unknown()),
  timeout: Type.Optional(Nullable(WholeNumber)),
  expirationTime: Type.Optional(Nullable(WholeNumber)),
  persistent: Type.Optional(Nullable(Type.Boolean())),
  retries: Type.Optional(Nullable(Type.Integer({ minimum: 0 }))),
  additionalInfo: Type.Optional(Type.Unknown()),
})
type RpcBody = Static<typeof RpcBody>

const CompatRpc = Type.Object({
  id: EntityId,
  createdTime: Type.Integer(),
  tenantId: EntityId,
  deviceId: EntityId,
  expirationTime: Type.Integer(),
  request: Type.Object({
    id: Type.String(),
    oneway: Type.Boolean(),
    persisted: Type.Boolean(),
    body: Type.Object({ method: Type.String(), params: Type.String() }),
  }),
  response: Type.Unknown(),
  status: Type.String(),
  additionalInfo: Type.Unknown(),
})

const ListQuery = Type.Partial(
  Type.Object({
    ...compatPageQuery,
    sortProperty: Type.Union(['createdTime', 'expirationTime', 'status'].map((name) => Type.Literal(name))),
    rpcStatus: State,
  }),
)
type ListQuery = Static<typeof ListQuery>

/** Commands as ThingsBoard's clients send them (device API §16.5). */
export function registerCompatCommandRoutes(app: App, context: Context, { commands }: { commands: Commands }): void {
  for (const kind of ['oneway', 'twoway'] as const) {
    app.post(
      `/api/rpc/${kind}/:id`,
      {
        config: { permission: 'device.write', compat: true, waits: true },
        bodyLimit: maxCommandBytes,
        schema: { tags, summary: `Send a ${kind} command`, params: IdParams, body: RpcBody },
      },
      (request, reply) => sendCommand(commands, request, reply, { oneway: kind === 'oneway', waitsForDevice: true }),
    )
    app.post(
      `/api/plugins/rpc/${kind}/:id`,
      {
        config: { permission: 'device.write', compat: true, waits: true },
        bodyLimit: maxCommandBytes,
        schema: { tags, summary: `Send a ${kind} command to a device that is there`, params: IdParams, body: RpcBody },
      },
      (request, reply) => sendOldCommand(commands, request, reply, kind === 'oneway'),
    )
  }
  app.get(
    '/api/rpc/persistent/:id',
    {
      config: { permission: 'device.read', compat: true },
      schema: { tags, summary: 'Read a persistent command', params: IdParams, response: { 200: CompatRpc } },
    },
    async (request) => {
      const { scope } = actorOf(request)
      return toCompatRpc(scope, await commands.get(scope, request.params.id))
    },
  )
  app.get(
    '/api/rpc/persistent/device/:id',
    {
      config: { permission: 'device.read', compat: true },
      schema: {
        tags,
        summary: 'List the persistent commands of a device',
        params: IdParams,
        querystring: ListQuery,
        response: { 200: CompatPage(CompatRpc) },
      },
    },
    (request) => listCommands(context, actorOf(request).scope, request.params.id, request.query),
  )
  app.delete(
    '/api/rpc/persistent/:id',
    {
      config: { permission: 'device.write', compat: true },
      schema: { tags, summary: 'Take a persistent command back', params: IdParams },
    },
    async (request, reply) => {
      const { scope, name } = actorOf(request)
      await commands.cancel(scope, request.params.id, name)
      return reply.code(200).send()
    },
  )
}

type RpcRequest = FastifyRequest<{ Params: { id: string }; Body: RpcBody }>

type CallForm = { oneway: boolean; waitsForDevice: boolean }

async function sendCommand(commands: Commands, request: RpcRequest, reply: FastifyReply, form: CallForm): Promise<FastifyReply> {
  const answer = await runCommand(commands, request, form).catch((error: unknown) => {
    if (error instanceof ProblemError && error.code === 'NOT_FOUND') return null
    throw error
  })
  if (answer === null) return reply.code(404).type('text/plain').send("Device with requested id wasn't found!")
  return answer === undefined ? reply.code(200).send() : reply.type('application/json').send(answer)
}

/** Statuses of the older paths, where these differ. */
const oldStatuses = new Map([
  ['DEVICE_OFFLINE', 409],
  ['COMMAND_TIMEOUT', 408],
])

/** As the older paths have it: refused at once while the device is away. */
async function sendOldCommand(commands: Commands, request: RpcRequest, reply: FastifyReply, oneway: boolean): Promise<FastifyReply> {
  try {
    return await sendCommand(commands, request, reply, { oneway, waitsForDevice: false })
  } catch (error) {
    const status = error instanceof ProblemError ? oldStatuses.get(error.code) : undefined
    if (status === undefined) throw error
    return reply.code(status).send({ ...compatProblem(error as ProblemError).body, status })
  }
}

/** @returns JSON text: the id of a persistent command, or the answer of the device; undefined for a one-way command */
async function runCommand(commands: Commands, request: RpcRequest, { oneway, waitsForDevice }: CallForm): Promise<string | undefined> {
  const { scope, name } = actorOf(request)
  const { method, timeout, expirationTime, persistent, retries, additionalInfo } = request.body
  const wish = {
    method,
    params: exactMember(request, 'params'),
    oneway,
    timeoutMs: timeout ?? undefined,
    expiresAt: expirationTime ?? undefined,
  }
  if (!persistent) return (await commands.call(scope, request.params.id, wish, waitsForDevice)).response
  const { id } = await commands.queue(scope, request.params.id, {
    ...wish,
    retries: typeof retries === 'number' ? Math.min(retries, mostRetries) : undefined,
    additionalInfo: additionalInfo === undefined ? undefined : JSON.stringify(additionalInfo),
    createdBy: name,
  })
  return JSON.stringify({ rpcId: id })
}

const sortColumns: Record<string, SQL> = { createdTime: sql`c.id`, expirationTime: sql`c.expires_at`, status: sql`c.state` }

async function listCommands(context: Context, scope: Scope, deviceId: string, query: ListQuery) {
  const { pageSize, page } = query
  const { rows, total } = await context.db.withTenant(scope, async (tx) => {
    const known = await tx.execute(sql`select 1 from devices d where d.id = ${deviceId} and d.deleted_at is null`)
    if (known.length === 0) throw new ProblemError('NOT_FOUND')
    // Whether there is such a device is told before what is wrong with the request.
    if (pageSize === undefined || page === undefined) {
      const missing = pageSize === undefined ? 'pageSize' : 'page'
      throw new ProblemError('VALIDATION_FAILED', {
        errors: [{ pointer: `?${missing}`, detail: `Required request parameter '${missing}' is not present.` }],
      })
    }
    const search = query.textSearch ? sql`and c.method ilike ${`%${query.textSearch.replace(/[\\%_]/g, '\\$&')}%`}` : sql``
    const where = sql`c.device_id = ${deviceId} ${query.rpcStatus ? sql`and c.state = ${query.rpcStatus}` : sql``} ${search}`
    const order = sql`${sortColumns[query.sortProperty ?? 'createdTime']!} ${query.sortOrder === 'ASC' ? sql`asc` : sql`desc`}`
    return {
      rows: await tx.execute<CommandRow>(sql`select ${commandColumns} from commands c where ${where}
        order by ${order}, c.id desc limit ${pageSize} offset ${pageSize * page}`),
      total: await tx.execute<{ count: number }>(sql`select count(*)::float8 as count from commands c where ${where}`),
    }
  })
  const items = rows.map((row) => toCompatRpc(scope, row))
  return toCompatPage(items, total[0]?.count ?? 0, pageSize!, page!)
}

function toCompatRpc(scope: Scope, command: CommandRow) {
  const { id, deviceId, method, params, oneway, state } = command
  return {
    id: entityId('RPC', id),
    createdTime: command.createdAt,
    tenantId: entityId('TENANT', scope.tenantId),
    deviceId: entityId('DEVICE', deviceId),
    expirationTime: command.expiresAt,
    request: { id, oneway, persisted: true, body: { method, params } },
    response: parseExact(command.response),
    status: state,
    additionalInfo: parseExact(command.additionalInfo),
  }
}
