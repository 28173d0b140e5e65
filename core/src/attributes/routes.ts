// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import type { Actor } from '../http/actor.ts'
import { NoContent, formatCursor, parseCursor, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { decodeAttributes } from '../ingest/codecs.ts'
import type { Attribute } from '../ingest/codecs.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import { refusedError } from '../ingest/http.ts'
import type { Device, PayloadRules } from '../ingest/registry.ts'
import { bytesOf, describeRejects, registerRawScope } from '../telemetry/answers.ts'
import { parseKeys } from '../telemetry/history.ts'
import { toJsonValue } from '../telemetry/values.ts'
import type { Attributes } from './attributes.ts'
import type { StoredAttribute } from './columns.ts'
import { AttributeList, ChangedAttributes, DeleteQuery, ListQuery, ScopeParams } from './schemas.ts'

export type AttributeRouteParts = { attributes: Attributes; registry: DeviceRegistry }

const tags = ['attributes']

/** Attributes of a device by scope (device API §17.1). */
export async function registerAttributeRoutes(app: App, parts: AttributeRouteParts): Promise<void> {
  const { attributes, registry } = parts
  app.get(
    '/api/v1/devices/:id/attributes/:scope',
    {
      config: { permission: 'device.read' },
      schema: {
        tags,
        summary: 'List the attributes of a scope by key',
        params: ScopeParams,
        querystring: ListQuery,
        response: { 200: AttributeList, ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => {
      const { params, query } = request
      const limit = query.limit ?? 50
      const [after] = query.cursor ? parseCursor(query.cursor, 1) : []
      if (query.cursor && typeof after !== 'string') throw new ProblemError('CURSOR_INVALID')
      const filter = { keys: parseKeys(query), after: after?.toString(), limit: limit + 1 }
      const found = await attributes.list(actorOf(request).scope, params.id, params.scope, filter)
      const items = found.slice(0, limit)
      return { items: items.map(viewAttribute), nextCursor: found.length > limit ? formatCursor([items.at(-1)!.key]) : null }
    },
  )
  app.delete(
    '/api/v1/devices/:id/attributes/:scope',
    {
      config: { permission: 'device.write' },
      schema: {
        tags,
        summary: 'Delete attributes; unknown keys are ignored',
        params: ScopeParams,
        querystring: DeleteQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 422) },
      },
    },
    async (request, reply) => {
      const { params, query } = request
      getDevice(registry, actorOf(request), params.id)
      const deleted = parseKeys(query)
      if (!deleted) throw new ProblemError('VALIDATION_FAILED', { errors: [{ pointer: '?keys', detail: 'At least one key is needed.' }] })
      await attributes.change(actorOf(request).scope, params.id, params.scope, { deleted })
      return reply.code(204).send(null)
    },
  )
  await registerRawScope(
    app,
    (type) => ['application/json', 'application/merge-patch+json', ''].includes(type),
    (scope) => {
      scope.patch(
        '/api/v1/devices/:id/attributes/:scope',
        {
          config: { permission: 'device.write' },
          schema: {
            tags,
            summary: 'Set attributes of the scope shared or server; null deletes',
            params: ScopeParams,
            response: { 200: ChangedAttributes, ...problems(400, 401, 403, 404, 413, 415, 422) },
          },
        },
        async (request) => {
          const { id, scope: attributeScope } = request.params
          const { rules } = getDevice(registry, actorOf(request), id)
          if (attributeScope === 'client') throw ownedByDevice()
          const change = parseValues(bytesOf(request), { ...rules, castNumericStrings: false })
          const stored = await attributes.change(actorOf(request).scope, id, attributeScope, change)
          return { items: stored.map(viewAttribute) }
        },
      )
    },
  )
}

/**
 * The values of a user's change by the rules of device API §4; nulls are the keys to delete.
 * @throws {ProblemError} `PAYLOAD_MALFORMED`, `SHAPE_INVALID`, `TOO_MANY_POINTS`, `POINTS_REJECTED` when any value is refused
 */
export function parseValues(payload: Buffer, rules: PayloadRules): { values: Attribute[]; deleted: readonly string[] } {
  const decoded = decodeAttributes(payload, rules)
  if ('refused' in decoded) throw refusedError(decoded.refused)
  if (decoded.rejects.length > 0) throw new ProblemError('POINTS_REJECTED', { errors: describeRejects(decoded.rejects) })
  return { values: decoded.attributes, deleted: decoded.nulls }
}

/**
 * Told before anything that may be wrong with the request.
 * @throws {ProblemError} `NOT_FOUND`
 */
export function getDevice(registry: DeviceRegistry, { scope }: Actor, id: string): Device {
  const device = registry.get(id)
  if (device?.tenantId !== scope.tenantId) throw new ProblemError('NOT_FOUND')
  return device
}

function ownedByDevice(): ProblemError {
  const detail = 'Client attributes are written by the device; users read and delete them.'
  return new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '', detail }] })
}

/** An attribute as answers and the live stream show it. */
export function viewAttribute(attribute: StoredAttribute) {
  const { key, kind, updatedAt } = attribute
  return { key, value: toJsonValue(attribute), kind, lastUpdateTs: updatedAt }
}
