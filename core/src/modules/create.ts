// SPDX-License-Identifier: AGPL-3.0-only
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import type { Devices } from '../devices/devices.ts'
import type { App, ServerOptions } from '../http/server.ts'
import type { Ingest } from '../ingest/start-ingest.ts'
import type { Upkeep } from '../system/upkeep.ts'
import { version } from '../version.ts'
import { discoverModules } from './discovery.ts'
import type { Outbound } from '../outbound.ts'
import { EvidenceKeys } from '../evidence/evidence-keys.ts'
import { Codecs } from './module-context.ts'
import { Modules } from './modules.ts'
import { Mounts } from './mount.ts'
import type { PointHooks } from './point-hooks.ts'

export type ModuleWiring = {
  ingest: Ingest
  devices: Devices
  upkeep: Upkeep
  hooks: PointHooks
  metrics: Registry
  outbound: Outbound
  /** Login that may create tables. */
  adminUrl: string
  /** Rules of the listening server. */
  options: ServerOptions
  /** Package folders; those of this build when not given. */
  folders: readonly string[] | undefined
}

/** Finds the modules of this build and takes their prefixes; none is started yet. */
export async function createModules(app: App, context: Context, wiring: ModuleWiring): Promise<{ modules: Modules; mounts: Mounts }> {
  const { ingest, devices, upkeep, hooks, metrics, outbound, adminUrl, options, folders } = wiring
  const found = discoverModules(folders)
  for (const problem of found.problems) context.log.error(problem, 'a module has a bad package.json and is left out')
  const mounts = new Mounts(context, options)
  const modules = new Modules(context, mounts, {
    hooks,
    codecs: new Codecs(),
    upkeep,
    devices: { find: (scope, id) => devices.find(scope, id) },
    findByToken: (token) => ingest.registry.findByToken(token),
    write: (uplink, points, early, settle) => ingest.pipeline.write(uplink, points, early, settle),
    record: ({ device, source, payload }, reject) => ingest.rejects.record({ device, source, reject, payload }),
    metrics,
    evidence: new EvidenceKeys(context),
    outbound,
    adminUrl,
    version,
  })
  await modules.mount(app, found.modules)
  return { modules, mounts }
}
