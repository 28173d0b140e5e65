// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Devices } from '../devices/devices.ts'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import { exactMember, keepBodyTexts } from '../http/body-text.ts'
import { Id, IdParams, NoContent, Page, formatCursor, isUuid, pageQuery, parseCursor, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { Commands } from './commands.ts'
import { Command, CommandCreate, CommandResult, parseExact, viewWithMoves } from './schemas.ts'

export type CommandRouteParts = { commands: Commands; devices: Devices }

const tags = ['commands']
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
const CommandParams = Type.Object({ id: Id, commandId: Id })
/** What fits into a packet of a device. */
export const maxCommandBytes = 65_536

/** Commands to a device (device API §6, §17.1). */
export async function registerCommandRoutes(app: App, { commands, devices }: CommandRouteParts): Promise<void> {
  app.get(
    '/api/v1/devices/:id/commands',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'List the persistent commands of a device, newest first',
        params: IdParams,
        querystring: ListQuery,
        response: { 200: Page(Command), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { scope } = actorOf(request)
      const { limit = 50, cursor } = request.query
      await devices.get(scope, request.params.id)
      const [, before] = cursor ? parseCursor(cursor, 2) : []
      if (cursor && !isUuid(before)) throw new ProblemError('CURSOR_INVALID')
      const found = await commands.list(scope, request.params.id, limit + 1, isUuid(before) ? before : undefined)
      const items = found.slice(0, limit).map(viewWithMoves)
      return { items, nextCursor: found.length > limit ? formatCursor(['commands', items.at(-1)!.id]) : null }
    },
  )
  await app.register(async (scope) => {
    keepBodyTexts(scope, 'any')
    registerSending(scope, commands)
  })
  app.get(
    '/api/v1/devices/:id/commands/:commandId',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'Read a persistent command with its time line',
        params: CommandParams,
        response: { 200: Command, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => viewWithMoves(await commands.get(actorOf(request).scope, request.params.commandId, request.params.id)),
  )
  app.delete(
    '/api/v1/devices/:id/commands/:commandId',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Take a command back; one that has ended stays as it is',
        params: CommandParams,
        response: { 204: NoContent, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { scope, name } = actorOf(request)
      await commands.cancel(scope, request.params.commandId, name, request.params.id)
      return reply.code(204).send(null)
    },
  )
}

/** In a scope that keeps the text of bodies. */
function registerSending(app: App, commands: Commands): void {
  app.post(
    '/api/v1/devices/:id/commands',
    {
      config: { permission: 'device.write', waits: true },
      bodyLimit: maxCommandBytes,
      schema: {
        tags,
        summary: 'Send a command, and wait for its end, or store it until the device takes it',
        params: IdParams,
        body: CommandCreate,
        response: { 200: CommandResult, 201: Command, ...problems(400, 401, 403, 404, 409, 413, 422, 502, 503, 504) },
      },
    },
    async (request, reply) => {
      const { scope, name } = actorOf(request)
      const { method, kind = 'twoway', persistent, timeoutMs, expiresAt, retries, waitForDevice } = request.body
      const wish = {
        method,
        params: exactMember(request, 'params'),
        oneway: kind === 'oneway',
        timeoutMs,
        expiresAt: typeof expiresAt === 'string' ? Date.parse(expiresAt) : expiresAt,
      }
      if (persistent) {
        const command = await commands.queue(scope, request.params.id, { ...wish, retries, createdBy: name }, waitForDevice)
        return reply.code(201).send(viewWithMoves(command))
      }
      const { no, response } = await commands.call(scope, request.params.id, wish, waitForDevice)
      const state = wish.oneway ? ('DELIVERED' as const) : ('SUCCESSFUL' as const)
      return reply.code(200).send({ requestId: no, state, response: parseExact(response) })
    },
  )
}
