// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { listTenants } from '../db/installation.ts'
import type { Device } from '../ingest/registry.ts'

export type DeviceState = 'never' | 'online' | 'offline'
type Link = 'session' | 'closed' | 'http'
type Track = {
  device: Device
  link: Link
  isChanged: boolean
  lastActivityAt: number
  /** Written at most every 10 s unless the link changes [S-3]. */
  writtenActivityAt: number
  lastConnectAt: number | undefined
  /** When it last opened a session of its own. */
  ownConnectAt: number | undefined
  /** Whether its last messages came through a connector, which says nothing about credentials of its own. */
  isRelayed: boolean
  lastDisconnectAt: number | undefined
  disconnectReason: string | undefined
}

const activityWriteMs = 10_000
/** [S-4] After a restart devices keep their state this long to come back. */
const graceMs = 60_000
const graceRetryMs = 5000

/** The state of a device row in SQL; needs `devices d` and `products p`. */
export const stateSql = sql`case d.link when 'none' then 'never' when 'session' then 'online'
  when 'http' then case when d.last_activity_at > now() - coalesce(d.inactivity_timeout_ms, p.inactivity_timeout_ms) * interval '1 ms' then 'online' else 'offline' end
  else 'offline' end`

/**
 * Follows which devices are online: by their MQTT session, or, for devices without one, by the age
 * of their last uplink [S-1, S-2]. Rows are written once a second.
 */
export class DeviceStates {
  readonly #context: Context
  readonly #sessionActivity: (deviceId: string) => number | undefined
  readonly #tracks = new Map<string, Track>()
  #flushTimer: NodeJS.Timeout | undefined
  #graceTimer: NodeJS.Timeout | undefined
  #flushing: Promise<void> = Promise.resolve()

  /** @param sessionActivity ms since 1970 of the last packet in the device's session, PINGREQ included */
  constructor(context: Context, sessionActivity: (deviceId: string) => number | undefined) {
    this.#context = context
    this.#sessionActivity = sessionActivity
  }

  start(): void {
    this.#flushTimer = setInterval(() => void this.flush(), 1000).unref()
    this.#scheduleGrace(graceMs)
  }

  #scheduleGrace(ms: number): void {
    this.#graceTimer = setTimeout(() => {
      this.#closeForgotten().catch((error: unknown) => {
        this.#context.log.warn({ err: error }, 'forgotten sessions could not be closed yet')
        this.#scheduleGrace(graceRetryMs)
      })
    }, ms).unref()
  }

  async stop(): Promise<void> {
    clearInterval(this.#flushTimer)
    clearTimeout(this.#graceTimer)
    await this.flush()
  }

  /** @param isOwn false for the session of a child, which its gateway opens */
  sessionOpened(device: Device, isOwn = true): void {
    const now = this.#context.clock.now()
    this.#set(device, { link: 'session', lastActivityAt: now, lastConnectAt: now, ...(isOwn ? { ownConnectAt: now } : {}) }, true)
  }

  /** ms since 1970 of the last time the device spoke for itself, as far as this server knows it; its row knows the rest. */
  ownConnectAt(deviceId: string): number | undefined {
    const track = this.#tracks.get(deviceId)
    return track && ownConnectAtOf(track)
  }

  sessionClosed(session: { device: Device; lastActivityAt: number }, reason: string): void {
    const { device } = session
    const lastActivityAt = Math.max(session.lastActivityAt, this.#tracks.get(device.id)?.lastActivityAt ?? 0)
    this.#set(device, { link: 'closed', lastActivityAt, lastDisconnectAt: this.#context.clock.now(), disconnectReason: reason }, true)
  }

  /**
   * An uplink over HTTP, which alone makes a device without a session online. Messages over MQTT need
   * no word: they are packets of a session, and one that is committed after its session has ended must
   * not bring the device back [S-2].
   *
   * @param isRelayed true for what a connector brings: such a device is online by its activity alike
   */
  activeOverHttp(device: Device, at: number, isRelayed = false): void {
    const track = this.#tracks.get(device.id)
    if (!track || track.link === 'closed') this.#set(device, { link: 'http', lastActivityAt: at, isRelayed }, true)
    else {
      track.lastActivityAt = Math.max(track.lastActivityAt, at)
      track.isRelayed &&= isRelayed
    }
  }

  forget(deviceId: string): void {
    this.#tracks.delete(deviceId)
  }

  flush(): Promise<void> {
    this.#flushing = this.#flushing
      .then(() => this.#write())
      .catch((error: unknown) => this.#context.log.warn({ err: error }, 'device states could not be written'))
    return this.#flushing
  }

  #set(device: Device, change: Partial<Track>, announce: boolean): void {
    const track: Track = this.#tracks.get(device.id) ?? {
      device,
      link: 'closed',
      isChanged: true,
      lastActivityAt: 0,
      writtenActivityAt: 0,
      lastConnectAt: undefined,
      ownConnectAt: undefined,
      isRelayed: false,
      lastDisconnectAt: undefined,
      disconnectReason: undefined,
    }
    Object.assign(track, change, { isChanged: true })
    this.#tracks.set(device.id, track)
    if (announce) this.#announce(track)
  }

  #announce(track: Track): void {
    const { device } = track
    const state: DeviceState = track.link === 'closed' ? 'offline' : 'online'
    this.#context.events.emit('device.state', {
      tenantId: device.tenantId,
      deviceId: device.id,
      state,
      lastActivityAt: track.lastActivityAt || undefined,
    })
  }

  async #write(): Promise<void> {
    const now = this.#context.clock.now()
    const byTenant = new Map<string, { scope: Scope; due: Track[] }>()
    for (const track of this.#tracks.values()) {
      if (track.link === 'session') track.lastActivityAt = Math.max(track.lastActivityAt, this.#sessionActivity(track.device.id) ?? 0)
      if (track.link === 'http' && now - track.lastActivityAt > track.device.inactivityTimeoutMs) {
        Object.assign(track, { link: 'closed', isChanged: true })
        this.#announce(track)
      }
      if (!track.isChanged && track.lastActivityAt - track.writtenActivityAt < activityWriteMs) continue
      const { tenantId, tenantNo } = track.device
      const group = byTenant.get(tenantId) ?? { scope: { tenantId, tenantNo }, due: [] }
      group.due.push(track)
      byTenant.set(tenantId, group)
    }
    for (const { scope, due } of byTenant.values()) await this.#writeDue(scope, due)
  }

  async #writeDue(scope: Scope, due: readonly Track[]): Promise<void> {
    const written = due.map((track) => ({ track, activityAt: track.lastActivityAt }))
    const rows = JSON.stringify(due.map((track) => toRow(track)))
    for (const track of due) track.isChanged = false
    try {
      await this.#context.db.withTenant(scope, (tx) =>
        tx.execute(sql`
          update devices d set link = r.link, last_activity_at = greatest(d.last_activity_at, r.activity),
            last_connect_at = coalesce(r.connected, d.last_connect_at), own_connect_at = greatest(d.own_connect_at, r.own), last_disconnect_at = coalesce(r.disconnected, d.last_disconnect_at),
            disconnect_reason = coalesce(r.reason, d.disconnect_reason)
          from jsonb_to_recordset(${rows}::jsonb) as r (id uuid, link text, activity timestamptz, connected timestamptz, own timestamptz, disconnected timestamptz, reason text)
          where d.id = r.id`),
      )
    } catch (error) {
      for (const track of due) track.isChanged = true
      throw error
    }
    for (const { track, activityAt } of written) track.writtenActivityAt = activityAt
  }

  /** Sessions that a stopped or killed server left open in their rows and that did not come back. */
  async #closeForgotten(): Promise<void> {
    const open = [...this.#tracks.values()].filter((track) => track.link !== 'closed').map((track) => track.device.id)
    for (const tenant of await listTenants(this.#context.db)) {
      const closed = await this.#context.db.withTenant(tenant, (tx) =>
        tx.execute<{ id: string }>(sql`update devices set link = 'closed', last_disconnect_at = now(), disconnect_reason = 'shutdown'
          where link = 'session' and not id = any(${sql.param(open)}::uuid[]) returning id`),
      )
      for (const { id } of closed) {
        const state = { tenantId: tenant.tenantId, deviceId: id, state: 'offline', lastActivityAt: undefined } as const
        this.#context.events.emit('device.state', state)
      }
    }
  }
}

/** Every message over HTTP is one with credentials of its own, unless a connector brought it. */
function ownConnectAtOf({ link, lastActivityAt, ownConnectAt, isRelayed }: Track): number | undefined {
  return link === 'http' && !isRelayed ? lastActivityAt : ownConnectAt
}

function toRow(track: Track): Record<string, unknown> {
  const instant = (ms: number | undefined) => (ms ? new Date(ms).toISOString() : null)
  return {
    id: track.device.id,
    link: track.link,
    activity: instant(track.lastActivityAt),
    connected: instant(track.lastConnectAt),
    own: instant(ownConnectAtOf(track)),
    disconnected: instant(track.lastDisconnectAt),
    reason: track.disconnectReason ?? null,
  }
}
