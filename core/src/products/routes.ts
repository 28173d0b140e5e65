// SPDX-License-Identifier: AGPL-3.0-only
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Context } from '../context.ts'
import { actorOf } from '../http/actor.ts'
import { exactMember, keepBodyTexts } from '../http/body-text.ts'
import { parseIfMatch } from '../http/if-match.ts'
import { IdParams, NoContent, Page, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import { parseExactly } from '../telemetry/values.ts'
import { registerDeviceLimitRoutes } from './device-limits.ts'
import { createProduct, deleteProduct, getProduct, listProducts, updateProduct } from './products.ts'
import { Product, ProductCreate, ProductPatch } from './schemas.ts'

const tags = ['products']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })

/** Products: what devices of one kind have in common. */
export async function registerProductRoutes(app: App, context: Context, { registry }: { registry: DeviceRegistry }): Promise<void> {
  registerDeviceLimitRoutes(app, context, (rates) => registry.setRates(rates))
  app.get(
    '/api/v1/products',
    {
      config: { permission: 'product.read' },
      schema: {
        tags,
        summary: 'List products by name',
        querystring: ListQuery,
        response: { 200: Page(Product), ...problems(400, 401, 403) },
      },
    },
    (request) => listProducts(context, actorOf(request).scope, request.query.limit ?? 50, request.query.cursor),
  )
  app.get(
    '/api/v1/products/:id',
    {
      config: { permission: 'product.read' },
      schema: {
        tags,
        summary: 'Read a product',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 200: Product, ...problems(400, 401, 403, 404) },
      },
    },
    async (request, reply) => {
      const { product, version } = await getProduct(context, actorOf(request).scope, request.params.id)
      return reply.header('etag', `"${version}"`).send(product)
    },
  )
  await app.register(async (scope: App) => {
    keepBodyTexts(scope, 'plain')
    registerWrites(scope, context, registry)
  })
  app.delete(
    '/api/v1/products/:id',
    {
      config: { permission: 'product.write' },
      schema: {
        tags,
        summary: 'Delete a product without devices',
        params: IdParams,
        querystring: EmptyQuery,
        response: { 204: NoContent, ...problems(400, 401, 403, 404, 409, 412) },
      },
    },
    async (request, reply) => {
      await deleteProduct(context, actorOf(request).scope, request.params.id, parseIfMatch(request.headers['if-match']))
      return reply.code(204).send(null)
    },
  )
}

function registerWrites(app: App, context: Context, registry: DeviceRegistry): void {
  app.post(
    '/api/v1/products',
    {
      config: { permission: 'product.write' },
      schema: {
        tags,
        summary: 'Create a product',
        querystring: EmptyQuery,
        body: ProductCreate,
        response: { 201: Product, ...problems(400, 401, 403, 409, 422) },
      },
    },
    async (request, reply) => {
      const { product, version } = await createProduct(context, actorOf(request).scope, withExactReplies(request.body, request))
      return reply.code(201).header('etag', `"${version}"`).send(product)
    },
  )
  app.patch(
    '/api/v1/products/:id',
    {
      config: { permission: 'product.write' },
      schema: {
        tags,
        summary: 'Edit a product',
        params: IdParams,
        querystring: EmptyQuery,
        body: ProductPatch,
        response: { 200: Product, ...problems(400, 401, 403, 404, 409, 412, 422) },
      },
    },
    async (request, reply) => {
      const { product, version } = await updateProduct(
        { context, registry },
        actorOf(request).scope,
        request.params.id,
        withExactReplies(request.body, request),
        parseIfMatch(request.headers['if-match']),
      )
      return reply.header('etag', `"${version}"`).send(product)
    },
  )
}

/** The body, the numbers in its ready answers with all their digits. */
function withExactReplies<T extends ProductCreate | ProductPatch>(body: T, request: FastifyRequest): T {
  if (body.clientRpc === undefined || body.clientRpc === null) return body
  return { ...body, clientRpc: parseExactly(exactMember(request, 'clientRpc')) }
}
