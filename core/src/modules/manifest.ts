// SPDX-License-Identifier: AGPL-3.0-only
import type { TObject } from 'typebox'
import type { AuditDraft, AuditSink } from '../audit.ts'
import type { Clock } from '../clock.ts'
import type { Db, Scope, Tx } from '../db/client.ts'
import type { UserRole } from '../db/tables.ts'
import type { ErrorText } from '../errors.ts'
import type { EvidenceKeys } from '../evidence/evidence-keys.ts'
import type { EventBus } from '../events.ts'
import type { App } from '../http/server.ts'
import type { Device } from '../ingest/registry.ts'
import type { Outcome } from '../ingest/uplink.ts'
import type { GateAct } from '../license/gate.ts'
import type { FeatureStatus } from '../license/snapshot.ts'
import type { LimitName } from '../license/limits.ts'
import type { Log } from '../log.ts'
import type { Outbound } from '../outbound.ts'
import type { SealPlace } from '../secrets.ts'
import type { Point } from '../telemetry/points.ts'

/** What core gives to a module, and all it gives. */
export type ModuleContext = {
  /** Settings of the module's own keys, as its `config` schema read them. */
  config: Readonly<Record<string, unknown>>
  log: Log
  clock: Clock
  /** Work in the name of one tenant, behind row level security. */
  db: Pick<Db, 'withTenant'>
  events: Pick<EventBus, 'on'>
  metrics: {
    /** A gauge `iot_pms_<module>_<name>` that is read when somebody asks; it goes with the module. */
    watch(name: string, help: string, read: () => number): void
  }
  /** The one tenant of the community edition; requests carry their own scope. */
  rootTenant: Scope
  /** Of the product. */
  version: string
  /** A folder of the module's own below the data folder; there, readable by the server's user alone. */
  folder: string
  /** All active tenants, for work that no request asks for. */
  listTenants(): Promise<readonly Scope[]>
  /** Tells of what the module itself does, in the transaction of the act. */
  audit: { record(tx: Tx, draft: AuditDraft): void }
  /** Places in core where a module attaches something; each returned function takes it away, and the module's stop does. */
  seams: { auditSinks: { add(sink: AuditSink): () => void } }
  /** Signs statements about what is stored. */
  evidence: Pick<EvidenceKeys, 'signer' | 'publicKeys'>
  /** Values that open only where they were sealed. */
  secrets: { seal(text: string, place: SealPlace): string; open(sealed: string, place: SealPlace): string }
  /** The one way to addresses that people have configured. */
  outbound: Pick<Outbound, 'check' | 'checkSaved' | 'connect'>
  devices: {
    /** What reading telemetry needs to know; undefined for absent and foreign devices alike. */
    find(scope: Scope, id: string): Promise<{ id: string; name: string; timeZone: string } | undefined>
  }
  ingest: {
    /** The device of an access token; undefined when it may not send. */
    findByToken(token: string): Device | undefined
    /** Decodes a message by a codec and stores it; answers after the commit. */
    accept(message: DeviceMessage): Promise<Outcome>
  }
  license: {
    status(): FeatureStatus
    limit(name: LimitName): number
    /** For entries that are no route: sockets, commands. @throws {ProblemError} when the act is not licensed now */
    gate(act: GateAct): void
  }
}

/** Bytes of an authenticated device from a gateway of a module. */
export type DeviceMessage = { device: Device; codec: string; payload: Buffer; address: string; topic?: string }
/** Turns bytes into points; throws when they are no message of this kind. */
export type ModuleCodec = { name: string; decode(payload: Buffer, device: Device): Point[] }
/** Hourly upkeep, tenant by tenant. */
export type ModuleJob = { name: string; onExpire?: 'run' | 'stop'; run(context: ModuleContext, tenant: Scope): Promise<void> }
export type ModuleGateway = { listen(port: number): Promise<{ port: number }>; close(graceMs: number): Promise<void> }
/** Routes below a prefix of the module. */
export type ModuleRoutes = (context: ModuleContext) => (app: App) => void | Promise<void>

/** What a module brings. Evaluating its file does nothing but make this object [MO-21]. */
export type ModuleManifest = {
  /** Equal to the name in package.json. */
  name: string
  /** TypeBox object of keys `IOT_PMS_<NAME>_…`. */
  config?: TObject
  /** Permissions of its own, each with the lowest role that has it. */
  permissions?: Readonly<Record<string, UserRole>>
  /** Codes of its own errors; they begin with the module's name in capitals. */
  errors?: Readonly<Record<string, ErrorText>>
  routes?: ModuleRoutes | Readonly<Record<string, ModuleRoutes>>
  codecs?: readonly ModuleCodec[]
  /** After the commit of points; it neither holds nor changes the acknowledgement. */
  onPoints?: (context: ModuleContext, device: Device, points: readonly Point[]) => void | Promise<void>
  jobs?: readonly ModuleJob[]
  /** `port` names the key of the configuration that holds the port. */
  gateways?: readonly { name: string; port: string; create: (context: ModuleContext) => ModuleGateway }[]
  /** Whatever else is attached while the module runs; each returned function takes it away again. */
  seams?: (context: ModuleContext) => readonly (() => void)[]
  start?: (context: ModuleContext) => void | Promise<void>
  /** Both are safe to call twice. */
  stop?: (context: ModuleContext) => void | Promise<void>
}

const fields = ['name', 'config', 'permissions', 'errors', 'routes', 'codecs', 'onPoints', 'jobs', 'gateways', 'seams', 'start', 'stop']

/** The default export of a module's entry. */
export function defineModule(manifest: ModuleManifest): ModuleManifest {
  return manifest
}

/** @returns what is wrong with the default export of an entry, or undefined */
export function findManifestProblem(value: unknown, name: string): string | undefined {
  if (typeof value !== 'object' || value === null) return 'the entry has no manifest as its default export'
  const unknown = Object.keys(value).filter((field) => !fields.includes(field))
  if (unknown.length > 0) return `the manifest has unknown fields: ${unknown.join(', ')}`
  if ((value as { name?: unknown }).name !== name) return `the manifest is named ${String((value as { name?: unknown }).name)}`
  return undefined
}
