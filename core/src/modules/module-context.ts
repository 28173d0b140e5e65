// SPDX-License-Identifier: AGPL-3.0-only
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import { listTenants } from '../db/installation.ts'
import type { EvidenceKeys } from '../evidence/evidence-keys.ts'
import type { Device } from '../ingest/registry.ts'
import type { Outcome, Uplink } from '../ingest/uplink.ts'
import type { Reject } from '../ingest/rejects.ts'
import { passGate } from '../license/gate.ts'
import type { License } from '../license/snapshot.ts'
import type { Outbound } from '../outbound.ts'
import type { SealPlace } from '../secrets.ts'
import { watchGauge } from '../system/ingest-counters.ts'
import type { Upkeep } from '../system/upkeep.ts'
import type { Point } from '../telemetry/points.ts'
import type { ModuleBlock } from './discovery.ts'
import type { DeviceMessage, ModuleCodec, ModuleContext } from './manifest.ts'
import type { PointHooks } from './point-hooks.ts'

/** What of core modules are attached to. */
export type ModuleParts = {
  hooks: PointHooks
  codecs: Codecs
  upkeep: Upkeep
  devices: ModuleContext['devices']
  findByToken: (token: string) => Device | undefined
  /** Commits decoded points. */
  write: (uplink: Uplink, points: readonly Point[], early: readonly Reject[], settle: (outcome: Outcome) => void) => void
  record: (uplink: Uplink, reject: Reject) => void
  metrics: Registry
  evidence: EvidenceKeys
  outbound: Outbound
  version: string
}

/** Codecs of active modules by name. */
export class Codecs {
  readonly #codecs = new Map<string, ModuleCodec>()

  add(codec: ModuleCodec): () => void {
    if (this.#codecs.has(codec.name)) throw new Error(`there is a codec ${codec.name} already`)
    this.#codecs.set(codec.name, codec)
    return () => this.#codecs.delete(codec.name)
  }

  find(name: string): ModuleCodec | undefined {
    return this.#codecs.get(name)
  }
}

/**
 * Nothing else of core is reachable from a module [MO-20].
 *
 * @param undo gets what has to be taken away when the module stops
 */
export function createModuleContext(
  context: Context,
  parts: ModuleParts,
  { name, feature, row }: ModuleBlock,
  config: Readonly<Record<string, unknown>>,
  undo: (() => unknown)[],
): ModuleContext {
  const { license, db, events, clock, rootTenant, audit, secrets } = context
  const folder = join(context.config.dataDir, name)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  // What one module has sealed no other one opens.
  const own = (place: SealPlace): SealPlace => ({ ...place, column: `${name}.${place.column}` })
  return {
    config,
    log: context.log.child({ module: name }),
    clock,
    db: { withTenant: (scope, work) => db.withTenant(scope, work) },
    events: { on: (event, listener) => events.on(event, listener) },
    metrics: {
      watch(metric, help, read) {
        const full = `iot_pms_${name.replaceAll('-', '_')}_${metric}`
        watchGauge(parts.metrics, full, help, read)
        undo.push(() => parts.metrics.removeSingleMetric(full))
      },
    },
    rootTenant,
    version: parts.version,
    folder,
    listTenants: () => listTenants(db),
    audit: { record: (tx, draft) => audit.record(tx, draft) },
    seams: {
      auditSinks: {
        add(sink) {
          const leave = audit.addSink(sink)
          undo.push(leave)
          return leave
        },
      },
    },
    evidence: parts.evidence,
    secrets: { seal: (text, place) => secrets.seal(text, own(place)), open: (sealed, place) => secrets.open(sealed, own(place)) },
    outbound: parts.outbound,
    devices: parts.devices,
    ingest: {
      findByToken: parts.findByToken,
      accept: (message) => acceptMessage(context, parts, message),
    },
    license: {
      status: () => license.status(feature),
      limit: (limit) => license.limit(limit),
      gate: (act) => passGate(license, feature, act, { row }),
    },
  }
}

/** The way of a message from a gateway: decode, refuse as a whole or store; what is refused is in the device's log. */
function acceptMessage({ clock }: Context, parts: ModuleParts, message: DeviceMessage): Promise<Outcome> {
  const { device, codec: name, payload, address, topic = name } = message
  const uplink: Uplink = {
    device,
    kind: 'telemetry',
    payload,
    transport: 'http',
    source: { transport: 'http', topic, address },
    receivedAt: clock.now(),
  }
  const refuse = (reject: Reject): Promise<Outcome> => {
    parts.record(uplink, reject)
    return Promise.resolve({ status: 'refused', reject })
  }
  const codec = parts.codecs.find(name)
  if (!codec) return refuse({ code: 'CODEC_UNAVAILABLE', detail: `no active module reads ${name}` })
  let points: Point[]
  try {
    points = codec.decode(payload, device)
  } catch (error) {
    return refuse({ code: 'PAYLOAD_MALFORMED', detail: error instanceof Error ? error.message : 'the codec failed' })
  }
  return new Promise((resolve) => parts.write(uplink, points, [], resolve))
}

/** License rules §7: what of a feature stops when its license has run out. */
export function isStoppedByExpiry(
  license: License,
  { feature, row }: ModuleBlock,
  what: 'hook' | 'run' | 'stop' | 'as the feature',
): boolean {
  if (license.status(feature) !== 'readonly') return false
  if (what === 'run' || what === 'stop') return what === 'stop' || row.onExpire === 'off'
  return row.onExpire === 'off' || (what !== 'hook' && row.onExpire === 'stop_new')
}
