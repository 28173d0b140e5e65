// SPDX-License-Identifier: AGPL-3.0-only
import type { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { ProblemError } from '../errors.ts'
import { createServer, listRoutes, useValidators } from '../http/server.ts'
import type { App, RouteGuard, ServerOptions } from '../http/server.ts'
import { actOf, passGate } from '../license/gate.ts'
import type { License } from '../license/snapshot.ts'
import type { Context } from '../context.ts'
import { useIdempotency } from '../http/idempotency.ts'
import { isBelow } from './discovery.ts'
import type { ModuleBlock } from './discovery.ts'
import type { ModuleContext, ModuleManifest, ModuleRoutes } from './manifest.ts'

/** A module's place in the server: its prefixes belong to it from the start, whatever answers there. */
export type Mount = {
  readonly block: ModuleBlock
  /** The module's own routes; undefined while it is not active. Publishing is this one assignment [MO-31]. */
  app: App | undefined
  inFlight: number
  /** Why nothing is published, for the answer. */
  status: () => 'locked' | 'starting' | 'active' | 'stopping' | 'failed'
}

const methods = ['DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT'] as const

/** Hands requests below a module's prefixes over to its own Fastify, or to the one that refuses for all locked ones. */
export class Mounts {
  readonly #context: Context
  readonly #options: ServerOptions
  readonly #mounts: Mount[] = []
  /** Requests on their way from the listening server to a child: their id and their mount. */
  readonly #handed = new WeakMap<IncomingMessage, { id: string; mount: Mount }>()
  #locked: App | undefined

  /** @param options those of the listening server, so that a request meets the same rules everywhere */
  constructor(context: Context, options: ServerOptions) {
    this.#context = context
    this.#options = options
  }

  /** Takes the prefixes. To be called before the server listens: Fastify takes no routes later. */
  async register(app: App, blocks: readonly ModuleBlock[], statusOf: (name: string) => ReturnType<Mount['status']>): Promise<Mount[]> {
    if (blocks.length === 0) return []
    const taken = listRoutes(app).map((route) => route.path)
    for (const block of blocks) {
      const clash = block.prefixes.find((prefix) => taken.some((path) => isBelow(path, prefix)))
      if (clash) {
        this.#context.log.error({ module: block.name, prefix: clash }, 'a module wants a path of core and is left out')
        continue
      }
      const mount: Mount = { block, app: undefined, inFlight: 0, status: () => statusOf(block.name) }
      this.#mounts.push(mount)
      for (const prefix of block.prefixes) this.#handOver(app, mount, prefix)
    }
    const locked = await createServer(this.#childOptions())
    locked.addHook('onRequest', (request) => this.#refuse(request))
    locked.route({ method: [...methods], url: '/*', config: { public: true }, schema: { hide: true }, handler: async () => null })
    await locked.ready()
    this.#locked = locked
    app.addHook('onClose', () => this.close())
    return this.#mounts
  }

  /**
   * The hand-over is the route's `onRequest` [MO-40]: nothing has read the body yet, and none of this server's hooks acts on
   * the request, since the child has the same ones.
   */
  #handOver(app: App, mount: Mount, prefix: string): void {
    for (const url of [prefix, `${prefix}/*`]) {
      app.route({
        method: [...methods],
        url,
        config: { public: true, isHandedOver: true },
        schema: { hide: true },
        onRequest: (request, reply, _done) => {
          reply.hijack()
          mount.inFlight++
          reply.raw.once('close', () => mount.inFlight--)
          this.#handed.set(request.raw, { id: request.id, mount })
          const child = mount.app ?? this.#locked!
          child.routing(request.raw, reply.raw)
        },
        handler: () => {
          throw new Error('a request for a module was not handed over')
        },
      })
    }
  }

  #childOptions(): ServerOptions {
    return {
      ...this.#options,
      // The listening server has taken the base path off already.
      basePath: '/',
      createId: (raw) => this.#handed.get(raw)?.id ?? '',
    }
  }

  /** Authenticate → license: whoever is nobody learns nothing [L-55]. */
  async #refuse(request: FastifyRequest): Promise<void> {
    const mount = this.#handed.get(request.raw)?.mount
    const actor = await this.#options.authenticate(request)
    if (!actor) throw new ProblemError('TOKEN_INVALID')
    if (!mount) throw new ProblemError('NOT_FOUND')
    const { feature, row } = mount.block
    // Not granted comes before whatever the module is doing.
    passGate(this.#context.license, feature, 'read', { row })
    throw mount.status() === 'failed' ? new ProblemError('MODULE_FAILED') : new ProblemError('MODULE_STARTING', { retryAfterS: 2 })
  }

  /** Builds the child of a module; nothing reaches it before it is published. */
  async build(mount: Mount, manifest: ModuleManifest, context: ModuleContext): Promise<App> {
    const { block } = mount
    const child = await createServer({ ...this.#childOptions(), gate: createGate(this.#context.license, block) })
    useIdempotency(child, this.#context)
    for (const [prefix, routes] of Object.entries(routesOf(manifest, block))) {
      if (!block.prefixes.includes(prefix)) throw new Error(`${prefix} is no prefix of ${block.name}`)
      await child.register(
        async (part) => {
          const scope = part as unknown as App
          // A scope that adds schemas would get Fastify's own validator instead.
          useValidators(scope)
          await routes(context)(scope)
        },
        { prefix },
      )
    }
    await child.ready()
    const foreign = Object.keys((child.swagger() as ApiDocument).components?.schemas ?? {}).filter(
      (id) => id !== 'Problem' && !isOwnId(id, block.name),
    )
    if (foreign.length > 0) throw new Error(`schema ids must begin with the module's name: ${foreign.join(', ')}`)
    return child
  }

  /** The routes of an active module, for the contract tests. */
  routesOf(name: string): readonly RouteGuard[] {
    const app = this.#mounts.find(({ block }) => block.name === name)?.app
    return app ? listRoutes(app) : []
  }

  /** Core's document with the paths of every active module. */
  describe(core: Record<string, unknown>): Record<string, unknown> {
    const merged = structuredClone(core) as ApiDocument
    for (const { app } of this.#mounts) {
      if (!app) continue
      const { paths, components, tags } = app.swagger() as ApiDocument
      Object.assign((merged.paths ??= {}), paths)
      merged.components ??= {}
      merged.components.schemas = { ...components?.schemas, ...merged.components.schemas }
      if (tags) merged.tags = [...(merged.tags ?? []), ...tags]
    }
    return merged
  }

  async close(): Promise<void> {
    for (const app of [this.#locked, ...this.#mounts.map((mount) => mount.app)]) await app?.close()
  }
}

type ApiDocument = {
  paths?: Record<string, unknown>
  components?: { schemas?: Record<string, unknown> }
  tags?: unknown[]
}

function routesOf({ routes }: ModuleManifest, block: ModuleBlock): Record<string, ModuleRoutes> {
  if (!routes) return {}
  return typeof routes === 'function' ? { [block.prefixes[0]!]: routes } : { ...routes }
}

/** `Vehicle.Trip` belongs to vehicle, `MultiTenant.Tenant` to multi-tenant. */
function isOwnId(id: string, name: string): boolean {
  const start = name.replaceAll(/(?:^|-)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
  return id.startsWith(`${start}.`)
}

/** [L-55] After who it is and what they may. */
function createGate(license: License, { feature, row }: ModuleBlock): (request: FastifyRequest) => void {
  return (request) => {
    const mayKnowState = request.actor?.permissions.has('license.read') ?? false
    passGate(license, feature, actOf(request.method, request.routeOptions.config), { row, mayKnowState })
  }
}
