// SPDX-License-Identifier: AGPL-3.0-only
import { join } from 'node:path'
import { Registry, collectDefaultMetrics } from 'prom-client'
import { Alarms } from './alarms/alarms.ts'
import { Audit } from './audit.ts'
import { DailyBackup } from './backup/daily-backup.ts'
import { ensureRestorePoint } from './backup/restore-point.ts'
import { systemClock } from './clock.ts'
import type { Clock } from './clock.ts'
import type { Config } from './config.ts'
import { Connectors } from './connectors/connectors.ts'
import type { Context } from './context.ts'
import { Db } from './db/client.ts'
import { loadInstallation, loadRootTenant } from './db/installation.ts'
import { migrate } from './db/migrate.ts'
import { checkDatabase, ensureDataDir, openDatabase } from './db/open.ts'
import { PlannerStatistics } from './db/planner-statistics.ts'
import { ensureSecrets } from './db/secret-key.ts'
import { Demo } from './demo/demo.ts'
import type { Devices } from './devices/devices.ts'
import { EventBus } from './events.ts'
import { OtaOffers } from './firmware/offers.ts'
import { createAuthenticate } from './http/authenticate.ts'
import { buildDashboard } from './http/build-dashboard.ts'
import { compatProblem } from './http/compat.ts'
import { removeOldIdempotencyKeys, useIdempotency } from './http/idempotency.ts'
import { registerPages } from './http/pages.ts'
import { createServer, listRoutes } from './http/server.ts'
import type { App, RouteGuard, ServerOptions } from './http/server.ts'
import { routeUpgrades } from './http/upgrades.ts'
import type { UpgradeHandler } from './http/upgrades.ts'
import { IngestCounters } from './system/ingest-counters.ts'
import { registerDeviceHttp } from './ingest/device-http.ts'
import { mqttOverWebSocket } from './ingest/mqtt/ws.ts'
import type { Stored } from './ingest/pipeline.ts'
import { createIngest } from './ingest/start-ingest.ts'
import type { Ingest } from './ingest/start-ingest.ts'
import { writeAsUser, writeCalculated } from './ingest/user-writes.ts'
import { JobConsole } from './jobs/console.ts'
import { Jobs } from './jobs/jobs.ts'
import { removeOldRates } from './jobs/limiter.ts'
import { removeOldMachineEvents } from './jobs/machine.ts'
import { Operations, removeOldOperations } from './jobs/operations.ts'
import { Schedules } from './jobs/schedules.ts'
import { startLicense } from './license/create.ts'
import type { LicenseParts } from './license/create.ts'
import type { LicenseContext, LicenseService } from './license/license.ts'
import { watchLicense } from './license/metrics.ts'
import { explainListenError, explainMqttPort } from './listen-errors.ts'
import { CompatStream } from './live/compat-stream.ts'
import { LiveStream } from './live/stream.ts'
import { Topics } from './live/topics.ts'
import { createModules } from './modules/create.ts'
import type { Modules } from './modules/modules.ts'
import type { Mounts } from './modules/mount.ts'
import { PointHooks } from './modules/point-hooks.ts'
import { registerModuleRoutes } from './modules/routes.ts'
import { createLog } from './log.ts'
import type { Log } from './log.ts'
import { Outbound } from './outbound.ts'
import { NotificationHub } from './notifications/hub.ts'
import { removeOldNotifications } from './notifications/delivery-log.ts'
import { registerRoutes } from './routes.ts'
import { RuleActions } from './rules/actions.ts'
import { RuleEngine } from './rules/engine.ts'
import { watchRules } from './rules/metrics.ts'
import { Rules } from './rules/rules.ts'
import { runBackwards } from './stops.ts'
import type { Stop } from './stops.ts'
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

/** Ports in use; undefined when not opened. */
export type Ports = { http: number | undefined; mqtt: number | undefined; mqtts: number | undefined }

/** A running server. */
export type Platform = {
  context: Context
  app: App
  /** Every route with its guard, for tests that sweep over all of them. */
  routes: readonly RouteGuard[]
  ingest: Ingest
  notifications: NotificationHub
  operations: Operations
  ruleEngine: RuleEngine
  demo: Demo
  license: LicenseService
  modules: Modules
  mounts: Mounts
  upkeep: Upkeep
  metrics: Registry
  ports: Ports
  /** One-time link while there is no administrator. */
  setupLink: string | undefined
  /** Drains and stops; safe to call twice. Everything accepted is committed and answered first. */
  stop(): Promise<void>
}

/** What tests and embedding code bring instead of the machine's and the build's own. */
export type PlatformParts = LicenseParts & {
  clock?: Clock
  moduleFolders?: readonly string[]
  /** False: the database is changed for this version without a backup before. */
  restorePoint?: boolean
}

/** Time for each part of the stop; together they stay below the promised 10 s. */
const drainMs = 4000
/** Jobs get ten seconds of their own [jobs 6.4]. */
const jobsMs = 12_000
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
  if (parts.restorePoint ?? true) await ensureRestorePoint(config, database.adminUrl, log)
  const mayChangeTables = await migrate(database.adminUrl, database.appUrl, log)
  await checkDatabase(database.appUrl, config, log)

  const db = new Db(database.appUrl)
  stops.push(() => db.stop())
  const installation = await loadInstallation(db)
  const secrets = await ensureSecrets(config, db, installation.secretKeyId)
  const clock = parts.clock ?? systemClock
  const rootTenant = await loadRootTenant(db)
  const audit = new Audit({ db, rootTenant, clock, log })
  const parting = {
    config,
    log,
    clock,
    db,
    secrets,
    events: new EventBus(log),
    installId: installation.installId,
    audit,
    rootTenant,
  }
  const base: LicenseContext = { ...parting, jobs: new Jobs(parting) }
  const { license, files: licenseFiles } = await startLicense(base, parts, stops)
  const context: Context = { ...base, license }

  await context.jobs.start()
  stops.push(() => context.jobs.stop(1000))
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
  const jobConsole = new JobConsole(context, metrics)
  const schedules = new Schedules(context)
  const operations = new Operations(context)
  const retention = new Retention(context, store, metrics)
  retention.start()
  stops.push(() => retention.stop())
  const counters = new IngestCounters(context, metrics)
  counters.start()
  stops.push(() => counters.stop())
  const topics = new Topics(context, { store, counters })
  topics.start()
  stops.push(() => topics.stop())

  const ports: Ports = { http: undefined, mqtt: undefined, mqtts: undefined }
  let isDraining = false
  const hooks = new PointHooks(context.clock, log)
  const engine = new RuleEngine(context, {
    store,
    plan: async (tx, tenant, steps) => actions.plan(tx, tenant, steps),
    write: async (worked) => writeCalculated(ingest, worked, context.clock.now()),
  })
  watchRules(metrics, engine)
  stops.push(() => engine.stop())
  const onStored = (stored: Stored) => {
    engine.take(stored)
    hooks.run(stored)
  }
  const ingest = createIngest(context, { store, counters, topics, load, disk, metrics, isDraining: () => isDraining, onStored })
  const { devices } = ingest
  const offers = createOffers(context, ingest, store)
  const outbound = new Outbound(config.outbound, () => Object.values(ports).filter((port) => port !== undefined))
  const notifications = new NotificationHub(context, { outbound, metrics })
  const { commands, attributes } = ingest
  const actions = new RuleActions(context, { hub: notifications, commands, attributes, outbound, metrics })
  const connectors = new Connectors(context, { ingest, outbound, metrics })
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
    denied: (request, code) => audit.noteDenied(request, code),
  }
  const app = await createServer(options)
  useIdempotency(app, context)
  const stream = new LiveStream(context, topics)
  const compatStream = config.compat.thingsboard
    ? new CompatStream(context, { topics, store, attributes: ingest.attributes, devices, people })
    : undefined
  const alarms = new Alarms(context, async (tx, scope, change) => actions.planChange(tx, scope, change))
  const rules = new Rules(context)
  const upkeep = createUpkeep(context, { ingest, devices, alarms, rules })
  const health: Health = {
    isAlive: () => load.isAlive,
    hasBeenReady: false,
    checks: async () => [
      { name: 'database', ok: await db.isReachable(), detail: 'answers within a second' },
      { name: 'listeners', ok: ports.http !== undefined || config.http.port === 'off', detail: 'ports are open' },
      { name: 'draining', ok: !isDraining, detail: 'not stopping' },
      { name: 'workers', ok: !context.jobs.supervisor.hasBrokenCritical, detail: 'no worker that is needed is out of order' },
      // Reading must stay reachable on a full disk.
      { name: 'disk', ok: !disk.isClosed, detail: disk.sentence, isNeeded: false },
    ],
  }
  const backups = new DailyBackup(context, { adminUrl: mayChangeTables ? database.adminUrl : undefined, disk })
  await registerRoutes(app, context, {
    alarms,
    rules,
    store,
    backups,
    counters,
    ingest,
    people,
    setup,
    devices,
    connectors,
    demo,
    offers,
    retention,
    jobConsole,
    schedules,
    operations,
    notifications,
    license: { license, files: licenseFiles, present: () => extension.modules.list() },
    describeApi: (core) => extension.mounts.describe(core),
    authenticate,
    metrics,
    health,
    ports: () => ports,
  })
  await registerDeviceHttp(app, context, ingest)
  stream.registerRoutes(app)
  const wiring = { ingest, devices, upkeep, hooks, metrics, outbound, adminUrl: database.adminUrl, options, folders: parts.moduleFolders }
  const extension = await createModules(app, context, wiring)
  registerModuleRoutes(app, extension.modules)
  const pages = registerPages(app, join(rootDir, 'core/dashboard/dist'), basePath)

  // From here devices come in; the work of starting before it is no overload.
  load.start()
  await actions.declare()
  engine.start()
  await ingest.start().catch(explainMqttPort(config))
  ports.mqtt = ingest.endpoint.port || undefined
  ports.mqtts = ingest.endpoint.tlsPort || undefined
  if (config.http.port !== 'off') {
    await app
      .listen({ port: config.http.port, ...(config.http.host ? { host: config.http.host } : { host: '::' }) })
      .catch(explainListenError('IOT_PMS_HTTP_PORT', config.http.port))
    const address = app.server.address()
    ports.http = typeof address === 'object' && address ? address.port : undefined
    stream.start()
    compatStream?.start()
    const acceptMqtt = mqttOverWebSocket(config.trustedProxies, (socket, from) => ingest.endpoint.accept(socket, from))
    routeUpgrades(
      app.server,
      new Map<string, UpgradeHandler>([
        [`${basePath}api/v1/stream`, (...upgrade) => stream.upgrade(...upgrade)],
        [`${basePath}mqtt`, acceptMqtt],
        ...(compatStream?.upgrades(basePath) ?? []),
      ]),
    )
  }
  const drain = async () => {
    isDraining = true
    log.info('stopping: everything accepted is committed and answered first')
    stream.stop()
    compatStream?.stop()
    ingest.polls.stop()
    await Promise.all([app.close(), connectors.stop(), ingest.stop(drainMs)])
  }
  stops.push(Object.assign(drain, { limitMs: drainMs + 1200 }))
  await notifications.start()
  await actions.start()
  await schedules.start()
  await operations.start()
  await jobConsole.start()
  stops.push(() => jobConsole.stop())
  // What runs gets its time, while everything it may need is still there.
  stops.push(Object.assign(() => context.jobs.stop(), { limitMs: jobsMs }))
  extension.modules.start()
  stops.push(Object.assign(() => extension.modules.stop(), { limitMs: modulesMs }))
  await connectors.start()
  await offers.start()
  stops.push(() => offers.stop())
  await demo.start()
  stops.push(() => demo.stop())
  upkeep.start()
  stops.push(() => upkeep.stop())
  backups.start()
  stops.push(() => backups.stop())
  const statistics = new PlannerStatistics(context, () => ingest.registry.size)
  statistics.start()
  stops.push(() => statistics.stop())
  warnAboutHooks(config, log, stops)
  buildDashboard(config, log, pages.reload)
  health.hasBeenReady = true
  log.info({ version, ...ports }, 'ready')
  return {
    context,
    app,
    routes: listRoutes(app),
    ingest,
    notifications,
    operations,
    ruleEngine: engine,
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

function createOffers(context: Context, ingest: Ingest, store: TelemetryLog): OtaOffers {
  return new OtaOffers(context, {
    targets: ingest.ota.targets,
    attributes: ingest.attributes,
    sessions: ingest.sessions,
    childSessions: ingest.childSessions,
    store,
    // Titles and versions are text, whatever they look like [O-2].
    writeTelemetry: async (deviceId, values) => {
      const options = { cast: false, allOrNothing: false }
      await writeAsUser(ingest, deviceId, Buffer.from(JSON.stringify(values)), options, context.clock.now())
    },
  })
}

type Kept = { ingest: Ingest; devices: Devices; alarms: Alarms; rules: Rules }

/** What the bin, the logs and the reject log no longer keep. */
function createUpkeep(context: Context, { ingest, devices, alarms, rules }: Kept): Upkeep {
  return new Upkeep(context, [
    { name: 'bin', run: (tenant) => devices.purgeExpired(tenant) },
    { name: 'reject log', run: (tenant) => ingest.rejects.removeOld(tenant) },
    { name: 'device log', run: (tenant) => ingest.log.removeOld(tenant) },
    { name: 'events of updates', run: (tenant) => ingest.ota.targets.trace.removeOld(tenant) },
    { name: 'broken uploads', run: (tenant) => ingest.ota.contents.removeOrphans(tenant) },
    { name: 'claims', run: (tenant) => ingest.claims.removeOld(tenant) },
    { name: 'commands', run: (tenant) => ingest.commands.removeOld(tenant) },
    { name: 'alarms', run: (tenant) => alarms.removeOld(tenant) },
    { name: 'rules', run: (tenant) => rules.removeOld(tenant) },
    { name: 'notifications', run: (tenant) => removeOldNotifications(context, tenant) },
    { name: 'rates', run: (tenant) => removeOldRates(context.db, tenant) },
    { name: 'operations', run: (tenant) => context.db.withTenant(tenant, removeOldOperations) },
    { name: 'state machines', run: (tenant) => context.db.withTenant(tenant, removeOldMachineEvents) },
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
