// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import type { OtaKind } from '../db/tables.ts'
import type { Stored } from '../ingest/pipeline.ts'
import type { Point, TypedValue } from '../telemetry/points.ts'
import { reportKeys } from './keys.ts'
import { fileColumns } from './packages.ts'
import type { OtaFile } from './packages.ts'
import { otaStates } from './schemas.ts'
import type { OtaState } from './schemas.ts'
import { OtaTrace } from './trace.ts'
import type { OtaEventName } from './trace.ts'

/** What a device was told to install, and how far it is. */
export type Target = {
  readonly scope: Scope
  readonly deviceId: string
  readonly kind: OtaKind
  readonly file: OtaFile
  state: OtaState
  stateAt: number
  error: string | null
  bytesSent: number
  currentTitle: string | null
  currentVersion: string | null
  /** When it asked for a part of it, ms since 1970; 0 for not since the server started. */
  lastAskedAt: number
}

type Report = { [Field in 'state' | 'error' | 'title' | 'version']?: Point }
type TargetRow = OtaFile & {
  deviceId: string
  kind: OtaKind
  isOffered: boolean
  state: OtaState
  stateAt: number
  error: string | null
  bytesSent: number
  currentTitle: string | null
  currentVersion: string | null
}
const flushMs = 500
const retryMs = 2000

const maxErrorLength = 1000

/**
 * What each device shall install, in memory, so that a chunk or a report costs no query. How far they are is
 * written twice a second: a crash loses at most that of the last half second, and never what was assigned.
 */
export class OtaTargets {
  readonly trace: OtaTrace
  readonly #context: Context
  readonly #targets = new Map<string, Map<OtaKind, Target>>()
  readonly #changed = new Set<Target>()
  #timer: NodeJS.Timeout | undefined
  #flushing: Promise<void> = Promise.resolve()

  constructor(context: Context) {
    this.#context = context
    this.trace = new OtaTrace(context)
  }

  async start(): Promise<void> {
    for (const tenant of await listTenants(this.#context.db)) {
      for (const row of await this.#load(tenant)) this.#putRow(tenant, row)
    }
  }

  async stop(): Promise<void> {
    await Promise.all([this.flush(), this.trace.flush()])
  }

  find(deviceId: string, kind: OtaKind): Target | undefined {
    return this.#targets.get(deviceId)?.get(kind)
  }

  all(): Target[] {
    return [...this.#targets.values()].flatMap((own) => [...own.values()])
  }

  forget(deviceId: string): void {
    this.#targets.delete(deviceId)
  }

  /** Takes in what was written about one device. */
  async refresh(scope: Scope, deviceId: string): Promise<void> {
    const rows = await this.#load(scope, deviceId)
    const known = this.#targets.get(deviceId)
    this.#targets.delete(deviceId)
    for (const row of rows) {
      const same = known?.get(row.kind)
      // What is in memory is newer than its row, unless the package is just being offered anew.
      if (same?.file.packageId === row.packageId && row.isOffered) this.#put(same)
      else this.#putRow(scope, row)
    }
  }

  /** A step after the commit of each message: devices without a target cost one look-up. */
  note({ device, kind, transport, points }: Stored): void {
    if (this.#targets.has(device.id) && kind === 'telemetry' && transport !== 'user') this.report(device.id, points)
  }

  /** What a device says of its updates [O-3]; other keys are passed over. */
  report(deviceId: string, points: readonly Point[]): void {
    const reports = new Map<OtaKind, Report>()
    for (const point of points) {
      const known = reportKeys.get(point.key)
      if (known === undefined) continue
      const report = reports.get(known.kind) ?? {}
      reports.set(known.kind, report)
      report[known.field] = point
    }
    for (const [kind, report] of reports) {
      const target = this.find(deviceId, kind)
      if (target) this.#take(target, report)
    }
  }

  setState(target: Target, state: OtaState, error?: string): void {
    const newError = state === 'FAILED' ? (error ?? (target.state === 'FAILED' ? target.error : null)) : null
    if (target.state === state && target.error === newError) return
    Object.assign(target, { state, error: newError, stateAt: this.#context.clock.now() })
    this.addEvent(target, 'state', { state, ...(newError === null ? {} : { error: newError }) })
    this.#markChanged(target)
  }

  /** So many bytes from the beginning have been sent. */
  setSent(target: Target, bytes: number): void {
    if (bytes <= target.bytesSent) return
    target.bytesSent = bytes
    this.#markChanged(target)
  }

  addEvent({ scope, deviceId, kind, file }: Target, event: OtaEventName, detail?: Record<string, unknown>): void {
    this.trace.add({ scope, deviceId, kind, packageId: file.packageId }, event, detail)
  }

  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#flushing = this.#flushing
      .then(() => this.#write())
      .catch((error: unknown) => this.#context.log.warn({ err: error }, 'the progress of updates could not be written'))
    return this.#flushing
  }

  #take(target: Target, report: Report): void {
    const { file } = target
    const title = report.title ? readAs(report.title, file.title) : target.currentTitle
    const version = report.version ? readAs(report.version, file.version) : target.currentVersion
    if (title !== target.currentTitle || version !== target.currentVersion) {
      Object.assign(target, { currentTitle: title, currentVersion: version })
      this.addEvent(target, 'current', { title, version })
      this.#markChanged(target)
    }
    const state = report.state && findState(textOf(report.state))
    // A device that only tells what it runs has said the same as UPDATED by running it.
    const isThere = (report.title ?? report.version) !== undefined && isCurrent(target) && target.state !== 'FAILED'
    this.setState(target, state ?? (isThere ? 'UPDATED' : target.state), report.error && textOf(report.error).slice(0, maxErrorLength))
  }

  #markChanged(target: Target): void {
    this.#changed.add(target)
    this.#timer ??= setTimeout(() => void this.flush(), flushMs).unref()
  }

  async #load(scope: Scope, deviceId?: string): Promise<TargetRow[]> {
    return this.#context.db.withTenant(scope, (tx) =>
      tx.execute<TargetRow>(sql`
        select t.device_id as "deviceId", t.kind, t.offered_at is not null as "isOffered", t.state, floor(extract(epoch from t.state_at) * 1000)::float8 as "stateAt",
          t.error, t.bytes_sent::float8 as "bytesSent", t.current_title as "currentTitle", t.current_version as "currentVersion", ${fileColumns}
        from ota_devices t join ota_packages o on o.tenant_id = t.tenant_id and o.id = t.package_id
          join devices d on d.tenant_id = t.tenant_id and d.id = t.device_id and d.deleted_at is null
        ${deviceId ? sql`where t.device_id = ${deviceId}` : sql``}`),
    )
  }

  #putRow(scope: Scope, row: TargetRow): void {
    const { deviceId, kind, isOffered: _, state, stateAt, error, bytesSent, currentTitle, currentVersion, ...file } = row
    const { tenantId, tenantNo } = scope
    const progress = { state, stateAt, error, bytesSent, currentTitle, currentVersion, lastAskedAt: 0 }
    this.#put({ scope: { tenantId, tenantNo }, deviceId, kind, file, ...progress })
  }

  #put(target: Target): void {
    const own = this.#targets.get(target.deviceId) ?? new Map<OtaKind, Target>()
    this.#targets.set(target.deviceId, own)
    own.set(target.kind, target)
  }

  async #write(): Promise<void> {
    const changed = [...this.#changed]
    this.#changed.clear()
    try {
      for (const targets of Map.groupBy(changed, ({ scope }) => scope.tenantId).values()) {
        await this.#context.db.withTenant(targets[0]!.scope, (tx) =>
          // Of a target that was replaced meanwhile nothing is written.
          tx.execute(sql`
            update ota_devices t set state = r.state, state_at = r.state_at, error = r.error, bytes_sent = r.bytes_sent,
              current_title = r.current_title, current_version = r.current_version
            from jsonb_to_recordset(${JSON.stringify(targets.map(toRow))}::jsonb) as r (device uuid, kind text, package uuid, state text,
              state_at timestamptz, error text, bytes_sent int8, current_title text, current_version text)
            where t.device_id = r.device and t.kind = r.kind and t.package_id = r.package`),
        )
      }
    } catch (error) {
      for (const target of changed) this.#changed.add(target)
      this.#timer ??= setTimeout(() => void this.flush(), retryMs).unref()
      throw error
    }
  }
}

/** True when the device reports to run what it shall run. */
export function isCurrent({ file, currentTitle, currentVersion }: Pick<Target, 'file' | 'currentTitle' | 'currentVersion'>): boolean {
  return currentTitle === file.title && currentVersion === file.version
}

/** Percent of the content; null when devices fetch it elsewhere. */
export function progressOf(target: { state: string; bytesSent: number; sizeBytes: number | null }): number | null {
  const { state, bytesSent, sizeBytes } = target
  if (sizeBytes === null) return null
  const isThere = state === 'DOWNLOADED' || state === 'VERIFIED' || state === 'UPDATING' || state === 'UPDATED'
  return isThere ? 100 : Math.min(100, Math.floor((bytesSent * 100) / sizeBytes))
}

function textOf({ value }: TypedValue): string {
  return String(value)
}

/** The text a device meant: a product may turn numbers in strings into numbers, and then "1.10" came as 1.1. */
function readAs(value: TypedValue, wanted: string): string {
  const isNumber = value.kind === 'double' || value.kind === 'integer'
  return isNumber && /^-?\d+(\.\d+)?$/.test(wanted) && Number(wanted) === Number(value.value) ? wanted : textOf(value)
}

/** Only what devices report: the first two states are ours. */
function findState(text: string): OtaState | undefined {
  return otaStates.find((state, index) => state === text && index >= otaStates.indexOf('DOWNLOADING'))
}

function toRow({ deviceId, kind, file, state, stateAt, error, bytesSent, currentTitle, currentVersion }: Target): object {
  return {
    device: deviceId,
    kind,
    package: file.packageId,
    state,
    state_at: new Date(stateAt).toISOString(),
    error,
    bytes_sent: bytesSent,
    current_title: currentTitle,
    current_version: currentVersion,
  }
}
