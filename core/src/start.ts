// SPDX-License-Identifier: AGPL-3.0-only
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Registry, collectDefaultMetrics } from 'prom-client'
import { systemClock } from './clock.ts'
import type { Clock } from './clock.ts'
import type { Config } from './config.ts'
import type { Context } from './context.ts'
import { Db } from './db/client.ts'
import { loadInstallation, loadRootTenant, saveSecretKeyId } from './db/installation.ts'
import { migrate } from './db/migrate.ts'
import { checkDatabase, ensureDataDir, openDatabase } from './db/open.ts'
import { Demo } from './demo/demo.ts'
import { Devices } from './devices/devices.ts'
import { StartError, exitCodes } from './errors.ts'
import { EventBus } from './events.ts'
import { createAuthenticate } from './http/authenticate.ts'
import { compatProblem } from './http/compat.ts'
import { removeOldIdempotencyKeys, useIdempotency } from './http/idempotency.ts'
import { buildDashboard } from './http/build-dashboard.ts'
import { registerPages } from './http/pages.ts'
import { createServer, listRoutes } from './http/server.ts'
import type { App, RouteGuard, ServerOptions } from './http/server.ts'
import { IngestCounters } from './system/ingest-counters.ts'
import { registerHttpIngest } from './ingest/http.ts'
import type { Stored } from './ingest/pipeline.ts'
import { createIngest } from './ingest/start-ingest.ts'
import type { Ingest } from './ingest/start-ingest.ts'
import { builtInCrl, createLicense } from './license/create.ts'
import type { LicenseParts } from './license/create.ts'
import { FileSource } from './license/files.ts'
import type { LicenseContext, LicenseService } from './license/license.ts'
import { watchLicense } from './license/metrics.ts'
import { LiveStream } from './live/stream.ts'
import { Topics } from './live/topics.ts'
import { createModules } from './modules/create.ts'
import type { Modules } from './modules/modules.ts'
import type { Mounts } from './modules/mount.ts'
import { PointHooks } from './modules/point-hooks.ts'
import { registerModuleRoutes } from './modules/routes.ts'
import { createLog } from './log.ts'
import type { Log } from './log.ts'
import { registerRoutes } from './routes.ts'
import { createSecretKey, loadSecretKey } from './secrets.ts'
import type { Secrets } from './secrets.ts'
import { DiskGuard, databaseSpace, watchDisk } from './system/disk-guard.ts'
import { lockInstance } from './system/instance-lock.ts'
import { Load } from './system/load.ts'
import { Retention } from './system/retention.ts'
import type { Health } from './system/routes.ts'
import { Upkeep } from './system/upkeep.ts'
import { TelemetryLog } from './telemetry/telemetry-log.ts'
import { createPeople } from './users/people.ts'
import { ensureSetup } from './users/setup.ts'
import { rootDir, version } from './version.ts'

/** A running server. */
export type Platform = {
  context: Context
  app: App
  /** Every route with its guard, for tests that sweep over all of them. */
  routes: readonly RouteGuard[]
  ingest: Ingest
  demo: Demo
  license: LicenseService
  modules: Modules
  mounts: Mounts
  upkeep: Upkeep
  metrics: Registry
  /** Ports in use; undefined when not opened. */
  ports: { http: number | undefined; mqtt: number | undefined }
  /** One-time link while there is no administrator. */
  setupLink: string | undefined
  /** Drains and stops; safe to call twice. Everything accepted is committed and answered first. */
  stop(): Promise<void>
}

/** What tests and embedding code bring instead of the machine's and the build's own. */
export type PlatformParts = LicenseParts & { clock?: Clock; moduleFolders?: readonly string[] }

/** How a part is stopped, and how long the rest waits for it. */
type Stop = (() => Promise<void> | void) & { limitMs?: number }

/** Time for each part of the stop; together they stay below the promised 10 s. */
const drainMs = 4000
const partMs = 500
const modulesMs = 1500
const databaseMs = 2500
const hookWarningMs = 60_000

/**
 * Starts everything: config → data folder → database → migrate → ingest → http.
 *
 * @throws {StartError} with a sentence that says what to do; what was started by then is stopped again
 */
export async function startPlatform(config: Config, log: Log = createLog(config.logLevel), parts: PlatformParts = {}): Promise<Platform> {
  const stops: Stop[] = []
  let stopping: Promise<void> | undefined
  const stop = () => (stopping ??= runBackwards(stops, log))
  try {
    return await start(config, log, parts, stops, stop)
  } catch (error) {
    await stop()
    throw error
  }
}

async function start(config: Config, log: Log, parts: PlatformParts, stops: Stop[], stop: () => Promise<void>): Promise<Platform> {
  ensureDataDir(config.dataDir)
  const unlock = await lockInstance(config.dataDir)
  stops.push(unlock)
  const database = await openDatabase(config, log)
  stops.push(Object.assign(() => database.stop(), { limitMs: databaseMs }))
  if (config.database.url && !config.database.migrateUrl) await checkDatabase(database.appUrl, config, log)
  await migrate(database.adminUrl, database.appUrl, log)
  await checkDatabase(database.appUrl, config, log)

  const db = new Db(database.appUrl)
  stops.push(() => db.stop())
  const installation = await loadInstallation(db)
  const secrets = await prepareSecrets(config, db, installation.secretKeyId)
  const base: LicenseContext = {
    config,
    log,
    clock: parts.clock ?? systemClock,
    db,
    secrets,
    events: new EventBus(log),
    installId: installation.installId,
    rootTenant: await loadRootTenant(db),
  }
  const license = createLicense(base, parts)
  await license.start()
  stops.push(() => license.stop())
  const licenseFiles = new FileSource(license, builtInCrl)
  await licenseFiles.start()
  stops.push(() => licenseFiles.stop())
  const context: Context = { ...base, license }

  const metrics = new Registry()
  collectDefaultMetrics({ register: metrics, prefix: 'iot_pms_' })
  stops.push(() => metrics.clear())
  watchLicense(metrics, license)
  const load = new Load()
  stops.push(() => load.stop())
  const disk = new DiskGuard(context, databaseSpace(context))
  await disk.start()
  stops.push(() => disk.stop())
  watchDisk(metrics, disk)
  const store = new TelemetryLog(context)
  await store.start()
  stops.push(() => store.stop())
  const retention = new Retention(context, store, metrics)
  retention.start()
  stops.push(() => retention.stop())
  const counters = new IngestCounters(context, metrics)
  counters.start()
  stops.push(() => counters.stop())
  const topics = new Topics(context, { store, counters })
  topics.start()
  stops.push(() => topics.stop())

  const ports: Platform['ports'] = { http: undefined, mqtt: undefined }
  let isDraining = false
  const hooks = new PointHooks(context.clock, log)
  const onStored = (stored: Stored) => hooks.run(stored)
  const ingest = createIngest(context, { store, counters, topics, load, disk, metrics, isDraining: () => isDraining, onStored })
  const devices = new Devices(context, ingest.registry, store)
  const demo = new Demo(context, { devices, registry: ingest.registry, store, mqttPort: () => ports.mqtt })
  const people = createPeople(context, { version, hasDemo: async () => (await demo.status()).loaded })
  const setup = await ensureSetup(people)
  const authenticate = createAuthenticate(people)
  const basePath = config.publicUrl?.pathname ?? '/'
  const options: ServerOptions = {
    log,
    version,
    trustedProxies: config.trustedProxies,
    authenticate,
    isSetUp: () => setup.isSetUp(),
    isHttps: config.publicUrl?.protocol === 'https:',
    requireHttps: config.requireHttps,
    testHooks: config.testHooks,
    compatProblem,
    basePath,
    load: { inFlight: 0 },
  }
  const app = await createServer(options)
  useIdempotency(app, context)
  const stream = new LiveStream(context, topics)
  const upkeep = createUpkeep(context, ingest, devices)
  const health: Health = {
    isAlive: () => load.isAlive,
    hasBeenReady: false,
    checks: async () => [
      { name: 'database', ok: await db.isReachable(), detail: 'answers within a second' },
      { name: 'listeners', ok: ports.http !== undefined || config.http.port === 'off', detail: 'ports are open' },
      { name: 'draining', ok: !isDraining, detail: 'not stopping' },
      // Reading must stay reachable on a full disk.
      { name: 'disk', ok: !disk.isClosed, detail: disk.sentence, isNeeded: false },
    ],
  }
  await registerRoutes(app, context, {
    store,
    counters,
    ingest,
    people,
    setup,
    devices,
    demo,
    retention,
    license: { license, files: licenseFiles, present: () => extension.modules.list() },
    describeApi: (core) => extension.mounts.describe(core),
    authenticate,
    metrics,
    health,
    ports: () => ports,
  })
  await registerHttpIngest(app, {
    sink: ingest.pipeline,
    clock: context.clock,
    assertTakesData: () => disk.assertTakesTelemetry(),
    findByToken: (token) => ingest.registry.findByToken(token),
    refused: ({ address, reason, tokenLast4 }) => ingest.refused.add({ address, reason, last4: tokenLast4 }),
    tooLarge: (device, address, topic) => {
      const reject = { code: 'PACKET_TOO_LARGE', detail: 'the body is larger than 1,048,576 bytes' } as const
      ingest.rejects.record({ device, source: { transport: 'http', topic, address }, reject, payload: Buffer.alloc(0) })
    },
  })
  stream.registerRoutes(app)
  const wiring = { ingest, devices, upkeep, hooks, metrics, adminUrl: database.adminUrl, options, folders: parts.moduleFolders }
  const extension = await createModules(app, context, wiring)
  registerModuleRoutes(app, extension.modules)
  const pages = registerPages(app, join(rootDir, 'core/dashboard/dist'), basePath)

  await ingest.start().catch(explainListenError('IOT_PMS_MQTT_PORT', config.mqtt.port))
  ports.mqtt = ingest.endpoint?.port
  if (config.http.port !== 'off') {
    await app
      .listen({ port: config.http.port, ...(config.http.host ? { host: config.http.host } : { host: '::' }) })
      .catch(explainListenError('IOT_PMS_HTTP_PORT', config.http.port))
    const address = app.server.address()
    ports.http = typeof address === 'object' && address ? address.port : undefined
    stream.start(app.server, `${basePath}api/v1/stream`)
  }
  const drain = async () => {
    isDraining = true
    log.info('stopping: everything accepted is committed and answered first')
    stream.stop()
    await Promise.all([app.close(), ingest.stop(drainMs)])
  }
  stops.push(Object.assign(drain, { limitMs: drainMs + 1200 }))
  extension.modules.start()
  stops.push(Object.assign(() => extension.modules.stop(), { limitMs: modulesMs }))
  await demo.start()
  stops.push(() => demo.stop())
  upkeep.start()
  stops.push(() => upkeep.stop())
  warnAboutHooks(config, log, stops)
  buildDashboard(config, log, pages.reload)
  // The work of starting is no overload.
  load.start()
  health.hasBeenReady = true
  log.info({ version, ...ports }, 'ready')
  return {
    context,
    app,
    routes: listRoutes(app),
    ingest,
    demo,
    license,
    modules: extension.modules,
    mounts: extension.mounts,
    upkeep,
    metrics,
    ports,
    setupLink: setup.link,
    stop,
  }
}

/** [SC-2] The key of the settings or the data folder; made at the first start, never silently replaced. */
async function prepareSecrets(config: Config, db: Db, knownKeyId: string | null): Promise<Secrets> {
  const loaded = loadSecretKey(config.secretKey, config.oldSecretKeys, config.dataDir)
  if (!loaded && knownKeyId) {
    throw new StartError(
      'SECRET_KEY_MISSING',
      exitCodes.config,
      'The secret key of this installation is missing, but the database holds values sealed with it.',
      `Put the key back into ${config.dataDir}/secret.key or into IOT_PMS_SECRET_KEY.`,
    )
  }
  const secrets = loaded ?? createSecretKey(config.dataDir)
  const isKnown = knownKeyId === null || secrets.keyId === knownKeyId || secrets.has(knownKeyId)
  if (!isKnown) {
    throw new StartError(
      'SECRET_KEY_MISMATCH',
      exitCodes.config,
      'The secret key is not the one this database was sealed with.',
      'Use the key of this installation; to change it, name the old one in IOT_PMS_SECRET_KEY_OLD.',
    )
  }
  if (secrets.keyId !== knownKeyId) await saveSecretKeyId(db, secrets.keyId)
  return secrets
}

function explainListenError(setting: string, port: number | 'off'): (error: NodeJS.ErrnoException) => never {
  return (error) => {
    if (error.code === 'EADDRINUSE') {
      throw new StartError(
        'PORT_BUSY',
        exitCodes.unavailable,
        `Port ${port} is in use by another program.`,
        `Stop that program, or set ${setting} to another port.`,
        error,
      )
    }
    if (error.code === 'EACCES') {
      throw new StartError(
        'PORT_FORBIDDEN',
        exitCodes.config,
        `This user may not open port ${port}.`,
        `Ports below 1024 need rights: set ${setting} to a higher one, or allow it (setcap cap_net_bind_service).`,
        error,
      )
    }
    throw error
  }
}

/** What the bin, the logs and the reject log no longer keep. */
function createUpkeep(context: Context, ingest: Ingest, devices: Devices): Upkeep {
  return new Upkeep(context, [
    { name: 'bin', run: (tenant) => devices.purgeExpired(tenant) },
    { name: 'reject log', run: (tenant) => ingest.rejects.removeOld(tenant) },
    { name: 'device log', run: (tenant) => ingest.log.removeOld(tenant) },
    { name: 'idempotency keys', run: (tenant) => removeOldIdempotencyKeys(context, tenant) },
  ])
}

function warnAboutHooks(config: Config, log: Log, stops: Stop[]): void {
  if (config.testHooks.size === 0) return
  const warn = () => log.warn({ hooks: [...config.testHooks] }, 'test hooks are on: this server may lose data on purpose')
  warn()
  const timer = setInterval(warn, hookWarningMs).unref()
  stops.push(() => clearInterval(timer))
}

/** The last part started is the first one stopped. One that hangs, on a database that does not answer, holds up no other. */
async function runBackwards(stops: Stop[], log: Log): Promise<void> {
  for (const stop of stops.splice(0).reverse()) {
    const isDone = Promise.resolve()
      .then(stop)
      .catch((error: unknown) => log.error({ err: error }, 'a part did not stop cleanly'))
    await Promise.race([isDone, sleep(stop.limitMs ?? partMs, undefined, { ref: false })])
  }
}
