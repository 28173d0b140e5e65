// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import type { Actor } from '../http/actor.ts'
import { isUuid } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { bytesOf, json, registerRawScope, sendChunks } from '../telemetry/answers.ts'
import { parseKeys } from '../telemetry/history.ts'
import { DeviceParams, keyQuery } from '../telemetry/schemas.ts'
import { toCompatJsonText } from '../telemetry/values.ts'
import type { AttributeScope, StoredAttribute } from './columns.ts'
import { attributeScopes } from './columns.ts'
import { getDevice, parseValues } from './routes.ts'
import type { AttributeRouteParts } from './routes.ts'

const scopeNames: Readonly<Record<string, AttributeScope>> = { CLIENT_SCOPE: 'client', SHARED_SCOPE: 'shared', SERVER_SCOPE: 'server' }

const prefix = '/api/plugins/telemetry/DEVICE/:id'
const tags = ['compat']
const canRead = { permission: 'device.read', compat: true } as const
const canWrite = { permission: 'device.write', compat: true } as const
const ScopedParams = Type.Object({ ...DeviceParams.properties, scope: Type.Optional(Type.String()) })
const KeyQuery = Type.Object(keyQuery)
/** Made as text, since integers keep digits that no JSON number of JavaScript has. */
const Values = Type.Unsafe<string>(Type.Array(Type.Object({ key: Type.String(), value: Type.Unknown(), lastUpdateTs: Type.Integer() })))

/** ThingsBoard-style reading and writing of attributes (device API §16.4). */
export async function registerCompatAttributeRoutes(app: App, parts: AttributeRouteParts): Promise<void> {
  const { attributes } = parts
  /** @throws {ProblemError} `VALIDATION_FAILED` for a malformed id [TB-3], `NOT_FOUND` */
  const open = (actor: Actor, id: string) => (isUuid(id) ? getDevice(parts.registry, actor, id) : fail('the device id is no UUID'))
  /** Of all scopes when none is named. */
  async function* list(actor: Actor, params: { id: string; scope?: string }, keys?: string[]): AsyncGenerator<StoredAttribute, undefined> {
    open(actor, params.id)
    const scopes = params.scope === undefined ? attributeScopes : [parseScope(params.scope)]
    for (const scope of scopes) yield* attributes.listAll(actor.scope, params.id, scope, keys)
  }
  for (const path of ['attributes', 'attributes/:scope']) {
    app.get(
      `${prefix}/keys/${path}`,
      {
        config: canRead,
        exposeHeadRoute: false,
        schema: { tags, summary: 'Attribute keys', params: ScopedParams, response: { 200: Type.Array(Type.String()) } },
      },
      async (request) => {
        const keys = new Set<string>()
        for await (const { key } of list(actorOf(request), request.params)) keys.add(key)
        return [...keys]
      },
    )
    app.get(
      `${prefix}/values/${path}`,
      {
        config: canRead,
        exposeHeadRoute: false,
        schema: { tags, summary: 'Attribute values', params: ScopedParams, querystring: KeyQuery, response: { 200: Values } },
      },
      async (request, reply) => {
        await sendChunks(reply, toJsonArray(list(actorOf(request), request.params, parseKeys(request.query))), json)
        return reply
      },
    )
  }
  app.delete(
    `${prefix}/:scope`,
    { config: canWrite, schema: { tags, summary: 'Delete attributes', params: ScopedParams, querystring: KeyQuery } },
    async (request, reply) => {
      const { id, scope } = request.params
      open(actorOf(request), id)
      const attributeScope = parseScope(scope)
      const deleted = parseKeys(request.query) ?? fail('"keys" is needed')
      await attributes.change(actorOf(request).scope, id, attributeScope, { deleted })
      return reply.code(200).send()
    },
  )
  await registerRawScope(
    app,
    (type) => ['application/json', 'text/plain', ''].includes(type),
    (scope) => {
      for (const path of [`${prefix}/:scope`, `${prefix}/attributes/:scope`, '/api/plugins/telemetry/:id/:scope']) {
        scope.post(
          path,
          { config: canWrite, schema: { tags, summary: 'Write attributes', params: ScopedParams } },
          async (request, reply) => {
            const { id, scope: name } = request.params
            const { rules } = open(actorOf(request), id)
            const attributeScope = parseScope(name)
            if (attributeScope === 'client') fail('client attributes are written by the device')
            const { values } = parseValues(bytesOf(request), rules)
            if (values.length === 0) fail('an object with at least one value is needed')
            await attributes.change(actorOf(request).scope, id, attributeScope, { values })
            return reply.code(200).send()
          },
        )
      }
    },
  )
}

async function* toJsonArray(attributes: AsyncIterable<StoredAttribute>): AsyncGenerator<string, undefined> {
  let separator = '['
  for await (const one of attributes) {
    yield `${separator}{"key":${JSON.stringify(one.key)},"value":${toCompatJsonText(one, true)},"lastUpdateTs":${one.updatedAt}}`
    separator = ','
  }
  yield separator === '[' ? '[]' : ']'
}

function parseScope(name: string | undefined): AttributeScope {
  return scopeNames[name ?? ''] ?? fail('the scope is one of CLIENT_SCOPE, SHARED_SCOPE and SERVER_SCOPE')
}

function fail(detail: string): never {
  throw new ProblemError('VALIDATION_FAILED', { errors: [{ pointer: '', detail }] })
}
