// SPDX-License-Identifier: AGPL-3.0-only
import { realpathSync } from 'node:fs'
import { relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { defineErrors } from '../errors.ts'
import type { Context } from '../context.ts'
import { migrateModule } from '../db/module-migrations.ts'
import { allowPermission } from '../http/permissions.ts'
import type { App } from '../http/server.ts'
import type { PresentModule } from '../license/view.ts'
import { isInRange } from './discovery.ts'
import type { ModuleBlock } from './discovery.ts'
import { findManifestProblem } from './manifest.ts'
import type { ModuleContext, ModuleManifest } from './manifest.ts'
import { createModuleContext, isStoppedByExpiry } from './module-context.ts'
import type { ModuleParts } from './module-context.ts'
import type { Mount, Mounts } from './mount.ts'
import { readSettings } from './settings.ts'

/** Steps of a start that can fail, as the answer names them. */
type FailCode = 'CORE_VERSION' | 'REQUIRES' | 'CONFIG' | 'IMPORT' | 'MIGRATION' | 'ROUTES' | 'START' | 'PORT'

/** Why a module is not active. */
class ModuleFailure extends Error {
  readonly reason: string

  constructor(code: FailCode, detail: string, cause?: unknown) {
    super(`${code}: ${detail}`, { cause })
    this.reason = `${code}: ${detail}`
  }
}

type Status = 'locked' | 'starting' | 'active' | 'stopping' | 'failed'
type Entry = {
  block: ModuleBlock
  mount: Mount
  status: Status
  reason: string | undefined
  manifest: ModuleManifest | undefined
  /** Takes back what the start did, the last first. */
  undo: (() => unknown)[]
}

const stepMs = 30_000
const jobMs = 10_000
const gatewayMs = 5000
const drainMs = 30_000

/**
 * Starts and stops the modules of this build as the license grants and withdraws their features, without a restart [MO-2].
 * Only package.json of a locked one is ever opened.
 */
export class Modules {
  readonly #context: Context
  readonly #mounts: Mounts
  readonly #parts: ModuleParts & { adminUrl: string }
  #entries: readonly Entry[] = []
  #syncing: Promise<void> = Promise.resolve()
  #stopListening = () => {}
  #isStopped = false

  constructor(context: Context, mounts: Mounts, parts: ModuleParts & { adminUrl: string }) {
    this.#context = context
    this.#mounts = mounts
    this.#parts = parts
  }

  /** Takes the prefixes of all modules; before the server listens. */
  async mount(app: App, blocks: readonly ModuleBlock[]): Promise<void> {
    const statusOf = (name: string) => this.#entries.find(({ block }) => block.name === name)?.status ?? 'locked'
    const mounts = await this.#mounts.register(app, blocks, statusOf)
    const entries: Entry[] = mounts.map((mount) => ({
      block: mount.block,
      mount,
      status: this.#isGranted(mount.block) ? 'starting' : 'locked',
      reason: undefined,
      manifest: undefined,
      undo: [],
    }))
    this.#entries = inOrderOfNeed(entries)
  }

  /** Starts what is granted, and follows the license from now on. */
  start(): void {
    this.#stopListening = this.#context.events.on('license.changed', () => void this.sync())
    void this.sync()
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#stopListening()
    await this.#syncing
    for (const entry of this.#entries.toReversed()) if (entry.status === 'active') await this.#stopOne(entry)
  }

  /** Brings every module to what the license says; one run after the other. */
  sync(): Promise<void> {
    this.#syncing = this.#syncing.then(() => this.#sync()).catch((error: unknown) => this.#context.log.error({ err: error }, 'modules'))
    return this.#syncing
  }

  list(): PresentModule[] {
    return this.#entries.map(({ block, status }) => ({
      name: block.name,
      feature: block.feature,
      title: block.title,
      status: status === 'active' && this.#context.license.status(block.feature) === 'readonly' ? 'readonly' : status,
      row: block.row,
    }))
  }

  describe(name: string): { block: ModuleBlock; reason: string | undefined } | undefined {
    return this.#entries.find(({ block }) => block.name === name)
  }

  #isGranted({ feature }: ModuleBlock): boolean {
    return this.#context.license.status(feature) !== 'locked'
  }

  async #sync(): Promise<void> {
    if (this.#isStopped) return
    for (const entry of this.#entries.toReversed()) {
      if (!this.#isGranted(entry.block) && entry.status !== 'locked') await this.#stopOne(entry)
    }
    for (const entry of this.#entries) {
      if (this.#isGranted(entry.block) && entry.status !== 'active') await this.#startOne(entry)
    }
    // What a module needs may have gone or failed meanwhile.
    for (const entry of this.#entries) {
      if (entry.status !== 'active' || this.#hasItsNeeds(entry.block)) continue
      await this.#stopOne(entry)
      this.#set(entry, 'failed', `REQUIRES: ${entry.block.requires.join(', ')}`)
    }
  }

  #hasItsNeeds({ requires }: ModuleBlock): boolean {
    return requires.every((name) => this.#entries.some(({ block, status }) => block.name === name && status === 'active'))
  }

  #set(entry: Entry, status: Status, reason?: string): void {
    entry.status = status
    entry.reason = reason
    this.#context.events.emit('module.changed', { name: entry.block.name, status, reason })
  }

  /** [AU-10] One that keeps the records tells of its own start after it, and of its stop before. */
  async #record(entry: Entry, type: 'module.start' | 'module.stop' | 'module.fail', reason?: string): Promise<void> {
    const { audit, rootTenant, log } = this.#context
    const outcome = reason === undefined ? {} : { outcome: 'failure' as const, reason: reason.split(':')[0]! }
    const draft = { type, ...outcome, subject: `module:${entry.block.name}`, targetName: entry.block.title.en, actor: 'system' }
    await audit
      .note(rootTenant, { ...draft, isPlatform: true })
      .catch((error: unknown) => log.error({ err: error, module: entry.block.name }, 'a change of a module could not be recorded'))
  }

  /** [MO-30] The steps in order; a failure takes back what was done, and touches nobody else. */
  async #startOne(entry: Entry): Promise<void> {
    const { block, mount } = entry
    this.#set(entry, 'starting')
    try {
      if (!isInRange(this.#parts.version, block.core)) {
        throw new ModuleFailure('CORE_VERSION', `it needs core ${block.core}, this is ${this.#parts.version}`)
      }
      if (!this.#hasItsNeeds(block)) throw new ModuleFailure('REQUIRES', block.requires.join(', '))
      const manifest = (entry.manifest ??= await within('IMPORT', importManifest(block)))
      const settings = readSettings(manifest.config, this.#context.config.modules.get(block.name) ?? {})
      if ('problems' in settings) throw new ModuleFailure('CONFIG', settings.problems.join('; '))
      const { migrations } = block
      if (migrations) await within('MIGRATION', migrateModule(this.#parts.adminUrl, block.name, migrations, this.#context.log), 600_000)
      const context = createModuleContext(this.#context, this.#parts, block, settings.values, entry.undo)
      for (const [name, role] of Object.entries(manifest.permissions ?? {})) allowPermission(name, role)
      defineErrors(manifest.errors ?? {})
      const app = await within('ROUTES', this.#mounts.build(mount, manifest, context))
      entry.undo.push(() => app.close())
      await within('START', this.#attach(entry, manifest, context))
      await this.#openGateways(entry, manifest, context)
      this.#schedule(entry, manifest, context)
      mount.app = app
      this.#set(entry, 'active')
      await this.#record(entry, 'module.start')
      this.#context.log.info({ module: block.name, version: block.version }, 'a module is active')
    } catch (error) {
      await this.#undo(entry)
      const reason = error instanceof ModuleFailure ? error.reason : 'START: an unexpected error'
      this.#context.log.error({ err: error, module: block.name, reason }, 'a module could not be started')
      this.#set(entry, 'failed', reason)
      await this.#record(entry, 'module.fail', reason)
    }
  }

  /** Step 6: what works beside requests. */
  async #attach(entry: Entry, manifest: ModuleManifest, context: ModuleContext): Promise<void> {
    const { undo, block } = entry
    const { onPoints } = manifest
    for (const codec of manifest.codecs ?? []) undo.push(this.#parts.codecs.add(codec))
    if (onPoints) {
      const isOff = () => isStoppedByExpiry(this.#context.license, block, 'hook')
      undo.push(this.#parts.hooks.add(block.name, (device, points) => (isOff() ? undefined : onPoints(context, device, points))))
    }
    undo.push(...(manifest.seams?.(context) ?? []))
    // A start that fails half-way has its stop called, too.
    undo.push(() => manifest.stop?.(context))
    await manifest.start?.(context)
  }

  async #openGateways({ undo, block }: Entry, manifest: ModuleManifest, context: ModuleContext): Promise<void> {
    for (const { name, port: key, create } of manifest.gateways ?? []) {
      const declared = block.ports.find((port) => port.env === key)?.default
      const port = context.config[key] ?? declared
      if (port === undefined || port === 'off' || port === '') continue
      const gateway = create(context)
      undo.push(() => gateway.close(gatewayMs))
      try {
        await gateway.listen(Number(port))
      } catch (error) {
        throw new ModuleFailure(
          'PORT',
          `${name} could not open port ${String(port)} (${(error as { code?: string }).code ?? 'failed'})`,
          error,
        )
      }
    }
  }

  /** Core's hourly upkeep runs the jobs; in a license that ran out by the row of the feature [MO-33]. */
  #schedule({ undo, block }: Entry, manifest: ModuleManifest, context: ModuleContext): void {
    for (const job of manifest.jobs ?? []) {
      const dispose = this.#parts.upkeep.add({
        name: `${block.name} ${job.name}`,
        run: async (tenant) => {
          if (!isStoppedByExpiry(this.#context.license, block, job.onExpire ?? 'as the feature')) await job.run(context, tenant)
        },
      })
      undo.push(() => Promise.race([dispose(), sleep(jobMs, undefined, { ref: false })]))
    }
  }

  /** [MO-32] New requests meet the locked answer at once; those in flight finish. Data and code stay. */
  async #stopOne(entry: Entry): Promise<void> {
    const { mount, block } = entry
    if (entry.status === 'active') {
      this.#set(entry, 'stopping')
      if (!this.#isStopped) await this.#record(entry, 'module.stop')
    }
    mount.app = undefined
    for (let waited = 0; mount.inFlight > 0 && waited < drainMs && !this.#isStopped; waited += 20) await sleep(20)
    await this.#undo(entry)
    this.#set(entry, 'locked')
    this.#context.log.info({ module: block.name }, 'a module is locked')
  }

  async #undo(entry: Entry): Promise<void> {
    for (const step of entry.undo.splice(0).reverse()) {
      try {
        await Promise.race([step(), sleep(stepMs, undefined, { ref: false })])
      } catch (error) {
        this.#context.log.warn({ err: error, module: entry.block.name }, 'a part of a module did not stop cleanly')
      }
    }
  }
}

/** Step 3. Only here code of a module is read [MO-1]. */
async function importManifest({ entry, folder, name }: ModuleBlock): Promise<ModuleManifest> {
  if (relative(realpathSync(folder), realpathSync(entry)).startsWith('..')) throw new Error('the entry leads out of the package')
  const { default: manifest } = (await import(pathToFileURL(entry).href)) as { default?: unknown }
  const problem = findManifestProblem(manifest, name)
  if (problem) throw new Error(problem)
  return manifest as ModuleManifest
}

/** Gives a step its time and its name. */
async function within<T>(code: FailCode, work: Promise<T>, ms = stepMs): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>(
    (_, reject) => (timer = setTimeout(() => reject(new Error(`it takes longer than ${ms / 1000} s`)), ms).unref()),
  )
  try {
    return await Promise.race([work, late])
  } catch (error) {
    // Node keeps the failure of code it has evaluated once.
    const hint = code === 'IMPORT' ? '; after mending it the server needs a restart' : ''
    throw new ModuleFailure(code, `${error instanceof Error ? error.message : String(error)}${hint}`, error)
  } finally {
    clearTimeout(timer)
  }
}

/** In order of discovery, what is required first; members of a circle stay where they are and fail for what they miss. */
function inOrderOfNeed(entries: readonly Entry[]): Entry[] {
  const ordered: Entry[] = []
  const visit = (entry: Entry, path: readonly Entry[]) => {
    if (ordered.includes(entry) || path.includes(entry)) return
    for (const name of entry.block.requires) {
      const needed = entries.find(({ block }) => block.name === name)
      if (needed) visit(needed, [...path, entry])
    }
    ordered.push(entry)
  }
  for (const entry of entries) visit(entry, [])
  return ordered
}
