// SPDX-License-Identifier: AGPL-3.0-only
import type { DailyBackup } from './backup/daily-backup.ts'
import { registerBackupRoutes } from './backup/routes.ts'
import type { Registry } from 'prom-client'
import type { Alarms } from './alarms/alarms.ts'
import { registerAlarmRoutes } from './alarms/routes.ts'
import { registerCompatAttributeRoutes } from './attributes/compat.ts'
import { registerAttributeRoutes } from './attributes/routes.ts'
import { registerClaimRoutes, registerCompatClaimRoutes } from './claims/routes.ts'
import { registerClientRpcRoutes } from './client-rpc/routes.ts'
import { registerCompatCommandRoutes } from './commands/compat.ts'
import { registerCommandRoutes } from './commands/routes.ts'
import type { Connectors } from './connectors/connectors.ts'
import { registerConnectorRoutes } from './connectors/routes.ts'
import type { Context } from './context.ts'
import type { Demo } from './demo/demo.ts'
import { registerDemoRoutes } from './demo/routes.ts'
import { registerCompatDeviceRoutes } from './devices/compat.ts'
import type { Devices } from './devices/devices.ts'
import { registerDeviceRoutes } from './devices/routes.ts'
import type { OtaOffers } from './firmware/offers.ts'
import { registerFirmwareRoutes } from './firmware/routes.ts'
import type { Authenticate } from './http/actor.ts'
import { registerCompatScope } from './http/compat.ts'
import type { App } from './http/server.ts'
import type { IngestCounters } from './system/ingest-counters.ts'
import type { Ingest } from './ingest/start-ingest.ts'
import { writeAsUser } from './ingest/user-writes.ts'
import type { JobConsole } from './jobs/console.ts'
import type { Operations } from './jobs/operations.ts'
import { registerJobRoutes } from './jobs/routes.ts'
import type { Schedules } from './jobs/schedules.ts'
import type { NotificationHub } from './notifications/hub.ts'
import { registerNotificationRoutes } from './notifications/routes.ts'
import { registerLicenseRoutes } from './license/routes.ts'
import type { LicenseRouteParts } from './license/routes.ts'
import { registerProductRoutes } from './products/routes.ts'
import type { Retention } from './system/retention.ts'
import { registerRetentionRoutes } from './system/retention-routes.ts'
import { RulePreviews } from './rules/preview-history.ts'
import { registerRuleRoutes } from './rules/routes.ts'
import type { Rules } from './rules/rules.ts'
import { registerSystemRoutes } from './system/routes.ts'
import type { Health, SystemParts } from './system/routes.ts'
import { refuseHeavyWork, registerStorageRoutes } from './system/storage.ts'
import type { Ports } from './start.ts'
import type { TelemetryParts } from './telemetry/answers.ts'
import { registerCompatTelemetryRoutes } from './telemetry/compat.ts'
import { registerTelemetryRoutes } from './telemetry/routes.ts'
import type { TelemetryStore } from './telemetry/store.ts'
import { registerCompatLogin } from './users/compat.ts'
import type { People } from './users/people.ts'
import { registerUserRoutes } from './users/routes.ts'
import type { Setup } from './users/setup.ts'

export type RouteParts = {
  alarms: Alarms
  rules: Rules
  store: TelemetryStore
  counters: IngestCounters
  ingest: Ingest
  people: People
  setup: Setup
  devices: Devices
  connectors: Connectors
  demo: Demo
  offers: OtaOffers
  retention: Retention
  backups: DailyBackup
  jobConsole: JobConsole
  schedules: Schedules
  operations: Operations
  notifications: NotificationHub
  license: LicenseRouteParts
  describeApi: SystemParts['describeApi']
  authenticate: Authenticate
  metrics: Registry
  health: Health
  ports: () => Ports
}

/** Every route of the REST API; openapi.json is what comes out of it. */
export async function registerRoutes(app: App, context: Context, parts: RouteParts): Promise<void> {
  const { store, counters, ingest, people, setup, devices, demo, authenticate, metrics, health, ports } = parts
  refuseHeavyWork(app, ingest.disk)
  registerSystemRoutes(app, context, {
    store,
    counters,
    refused: ingest.refused,
    certificate: ingest.certificate,
    metrics,
    authenticate,
    health,
    ports,
    describeApi: parts.describeApi,
  })
  registerStorageRoutes(app, context, { disk: ingest.disk, store })
  registerBackupRoutes(app, parts.backups)
  registerJobRoutes(app, context, { console: parts.jobConsole, schedules: parts.schedules, operations: parts.operations })
  await registerNotificationRoutes(app, context, parts.notifications, {
    operations: parts.operations,
    findKey: (text, address) => people.keys.find(text, address),
  })
  registerRetentionRoutes(app, context, { retention: parts.retention })
  registerLicenseRoutes(app, parts.license)
  registerUserRoutes(app, people, setup)
  await registerProductRoutes(app, context, { registry: ingest.registry })
  registerDeviceRoutes(app, context, {
    devices,
    store,
    sessions: ingest.sessions,
    childSessions: ingest.childSessions,
    rejects: ingest.rejects,
  })
  registerAlarmRoutes(app, { alarms: parts.alarms })
  registerRuleRoutes(app, { rules: parts.rules, previews: new RulePreviews(context, store) })
  registerClaimRoutes(app, { claims: ingest.claims, devices })
  registerConnectorRoutes(app, context, { connectors: parts.connectors })
  await registerCommandRoutes(app, { commands: ingest.commands, devices })
  await registerClientRpcRoutes(app, { clientRpc: ingest.clientRpc, devices, audit: context.audit })
  registerDemoRoutes(app, { demo, audit: context.audit })
  await registerFirmwareRoutes(app, context, { ...ingest.ota, offers: parts.offers, store })
  const { audit } = context
  const telemetry: TelemetryParts = {
    store,
    audit,
    findDevice: (scope, id) => devices.find(scope, id),
    writeAsUser: ({ scope }, deviceId, payload, options) =>
      audit.around(scope, { type: 'telemetry.write', subject: `device:${deviceId}` }, () =>
        writeAsUser(ingest, deviceId, payload, options, context.clock.now()),
      ),
  }
  await registerTelemetryRoutes(app, context, telemetry)
  await registerAttributeRoutes(app, ingest)
  if (!context.config.compat.thingsboard) return
  await registerCompatScope(app, async (scope) => {
    await registerCompatTelemetryRoutes(scope, telemetry)
    await registerCompatAttributeRoutes(scope, ingest)
    registerCompatLogin(scope, people)
    registerCompatCommandRoutes(scope, context, { commands: ingest.commands })
    registerCompatClaimRoutes(scope, context, { claims: ingest.claims })
    registerCompatDeviceRoutes(scope, context, { devices })
  })
}
