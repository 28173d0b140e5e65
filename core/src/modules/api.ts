// SPDX-License-Identifier: AGPL-3.0-only

/** `@iot-pms/core`: all that a module may import of the server. What it works with comes to it as its context. */
export { withCommandContext } from './command-context.ts'
export type { CommandContext } from './command-context.ts'
export { defineModule } from './manifest.ts'
export type { DeviceMessage, ModuleCodec, ModuleContext, ModuleGateway, ModuleJob, ModuleManifest, ModuleRoutes } from './manifest.ts'
export type { AuditDraft, AuditRecord, AuditSink } from '../audit.ts'
export { ProblemError, problem } from '../errors.ts'
export type { ErrorCode, Language } from '../errors.ts'
export { actorOf } from '../http/actor.ts'
export type { Actor } from '../http/actor.ts'
export { requireReauthentication } from '../http/authenticate.ts'
export {
  Id,
  IdParams,
  Instant,
  NoContent,
  Nullable,
  Page,
  formatCursor,
  isUuid,
  pageQuery,
  parseCursor,
  problems,
} from '../http/schemas.ts'
export { modulePermission } from '../http/permissions.ts'
export type { App } from '../http/server.ts'
export type { Scope, Tx } from '../db/client.ts'
export type { EvidenceSigner } from '../evidence/evidence-keys.ts'
export type { Device } from '../ingest/registry.ts'
export type { Point } from '../telemetry/points.ts'
