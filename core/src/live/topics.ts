// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import type { Events } from '../events.ts'
import type { AttributeChange } from '../attributes/attributes.ts'
import { viewAttribute } from '../attributes/routes.ts'
import { viewCommand } from '../commands/schemas.ts'
import type { Context } from '../context.ts'
import type { Actor } from '../http/actor.ts'
import type { Permission } from '../http/permissions.ts'
import { Id } from '../http/schemas.ts'
import { severities } from '../rules/schemas.ts'
import type { Stored } from '../ingest/pipeline.ts'
import type { IngestCounters } from '../system/ingest-counters.ts'
import { countDevices } from '../system/overview.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { toJsonValue } from '../telemetry/values.ts'
import { Primaries } from './primaries.ts'
import type { Subscription } from './subscription.ts'

const DeviceIds = Type.Array(Id, { minItems: 1, maxItems: 500 })
const closed = { additionalProperties: false } as const

/** What a client may subscribe to, with what permission and which parameters. */
export const topicParams = {
  telemetry: Type.Object(
    {
      deviceIds: DeviceIds,
      keys: Type.Optional(Type.Array(Type.String({ maxLength: 255 }), { maxItems: 200 })),
      maxHz: Type.Optional(Type.Number({ minimum: 0.1, maximum: 10 })),
    },
    closed,
  ),
  attributes: Type.Object({ deviceIds: DeviceIds }, closed),
  commands: Type.Object({ deviceId: Id }, closed),
  devices: Type.Object({ ids: DeviceIds }, closed),
  deviceLog: Type.Object({ id: Id }, closed),
  alarms: Type.Object(
    {
      severity: Type.Optional(Type.String({ enum: [...severities] })),
      deviceId: Type.Optional(Id),
      ruleId: Type.Optional(Id),
      type: Type.Optional(Type.String({ maxLength: 255 })),
    },
    closed,
  ),
  system: Type.Object({}, closed),
  overview: Type.Object({}, closed),
}
export type Topic = keyof typeof topicParams
export type TopicParams = { [T in Topic]: Static<(typeof topicParams)[T]> }

export const topicPermissions: Record<Topic, Permission> = {
  telemetry: 'telemetry.read',
  attributes: 'device.read',
  commands: 'device.read',
  devices: 'device.read',
  deviceLog: 'device.read',
  alarms: 'alarm.read',
  system: 'system.read',
  overview: 'device.read',
}

const overviewMs = 2000
/** Uplinks of one device are shown at most this often in its log. */
const uplinkShownMs = 250

/** Hears of a device message by message, where a client wants no more than that put together (device API §16.6). */
export type Watcher = { message?: (stored: Stored) => void; attributes?: (change: AttributeChange) => void }

/** Brings what happens to the subscriptions that asked for it; a device nobody watches costs one look-up. */
export class Topics {
  readonly #context: Context
  readonly #store: TelemetryStore
  readonly #counters: IngestCounters
  readonly #primaries: Primaries
  readonly #telemetry = new Map<string, Set<Subscription>>()
  readonly #attributes = new Map<string, Set<Subscription>>()
  readonly #commands = new Map<string, Set<Subscription>>()
  readonly #devices = new Map<string, Set<Subscription>>()
  readonly #logs = new Map<string, Set<Subscription>>()
  readonly #alarms = new Set<Subscription>()
  readonly #system = new Set<Subscription>()
  readonly #overview = new Set<Subscription>()
  readonly #watchers = new Map<string, Set<Watcher>>()
  readonly #uplinkShownAt = new Map<string, number>()
  #stops: (() => void)[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(context: Context, parts: { store: TelemetryStore; counters: IngestCounters }) {
    this.#context = context
    this.#store = parts.store
    this.#counters = parts.counters
    this.#primaries = new Primaries(context, parts.store, (stored) => this.#publishDevice(stored))
  }

  start(): void {
    const { events } = this.#context
    this.#stops = [
      this.#primaries.start(),
      events.on('device.state', ({ deviceId, state, lastActivityAt }) => {
        const item = { id: deviceId, state, lastActivityAt: lastActivityAt ? new Date(lastActivityAt).toISOString() : null }
        for (const subscription of this.#devices.get(deviceId) ?? []) subscription.push(item, `${deviceId} state`)
      }),
      events.on('attributes.changed', (change) => this.#publishAttributes(change)),
      events.on('alarm.changed', (change) => publishAlarm(this.#alarms, change)),
      events.on('command.moved', ({ deviceId, command }) => {
        for (const subscription of this.#commands.get(deviceId) ?? []) {
          subscription.push({ ...viewCommand(command), detail: command.detail }, command.id)
        }
      }),
      events.on('device.log', ({ deviceId, entry }) => this.#toLog(deviceId, { type: 'log', entry })),
      events.on('device.reject', ({ deviceId, entry }) => this.#toLog(deviceId, { type: 'reject', entry }, String(entry['id']))),
      events.on('device.called', ({ deviceId, requestId, method, params }) => {
        this.#toLog(deviceId, { type: 'call', at: new Date(this.#context.clock.now()).toISOString(), requestId, method, params })
      }),
      events.on('connection.refused', (refused) => {
        for (const subscription of this.#system) subscription.push({ type: 'refused', ...refused, at: new Date(refused.at).toISOString() })
      }),
    ]
    this.#timer = setInterval(() => void this.#sendOverviews(), overviewMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    for (const stop of this.#stops) stop()
  }

  /** After the commit of a message. */
  publish(stored: Stored): void {
    if (stored.kind !== 'telemetry' || stored.points.length === 0) return
    // Mostly nobody looks at anything: then not even a device's id is looked up.
    if (this.#telemetry.size > 0) this.#publishPoints(stored)
    if (this.#watchers.size > 0) for (const { message } of this.#watchers.get(stored.device.id) ?? []) message?.(stored)
    if (this.#devices.size > 0 && this.#devices.has(stored.device.id)) {
      this.#primaries.take(stored)
      this.#publishDevice(stored)
    }
    if (this.#logs.size > 0) this.#publishUplink(stored)
  }

  /** @returns what ends it */
  watch(deviceId: string, watcher: Watcher): () => void {
    setOf(this.#watchers, deviceId).add(watcher)
    return () => {
      const watchers = this.#watchers.get(deviceId)
      if (watchers?.delete(watcher) && watchers.size === 0) this.#watchers.delete(deviceId)
    }
  }

  /**
   * Adds a subscription to its topic.
   * @returns false when a device is unknown or foreign: both alike
   */
  async add(subscription: Subscription, actor: Actor): Promise<boolean> {
    const { topic, params } = subscription
    const ids = devicesOf(subscription)
    if (ids.length > 0 && !(await this.#areKnown(actor, ids))) return false
    for (const set of this.#setsOf(subscription)) set.add(subscription)
    if (topic === 'devices') await this.#primaries.watch(actor.scope, ids)
    if (topic === 'telemetry') await this.#sendLatest(subscription, actor, params)
    if (topic === 'overview') await this.#sendOverview(subscription, actor)
    return true
  }

  remove(subscription: Subscription): void {
    for (const set of this.#setsOf(subscription)) set.delete(subscription)
    for (const index of [this.#telemetry, this.#attributes, this.#commands, this.#devices, this.#logs]) {
      for (const [id, set] of index) if (set.size === 0) index.delete(id)
    }
    if (subscription.topic === 'devices') {
      for (const id of subscription.params.ids) if (!this.#devices.has(id)) this.#primaries.forget(id)
    }
    if (subscription.topic === 'deviceLog' && !this.#logs.has(subscription.params.id)) this.#uplinkShownAt.delete(subscription.params.id)
  }

  #setsOf(subscription: Subscription): Set<Subscription>[] {
    switch (subscription.topic) {
      case 'telemetry':
        return subscription.params.deviceIds.map((id) => setOf(this.#telemetry, id))
      case 'attributes':
        return subscription.params.deviceIds.map((id) => setOf(this.#attributes, id))
      case 'commands':
        return [setOf(this.#commands, subscription.params.deviceId)]
      case 'devices':
        return subscription.params.ids.map((id) => setOf(this.#devices, id))
      case 'deviceLog':
        return [setOf(this.#logs, subscription.params.id)]
      case 'alarms':
        return [this.#alarms]
      case 'system':
        return [this.#system]
      case 'overview':
        return [this.#overview]
    }
  }

  async #areKnown(actor: Actor, ids: readonly string[]): Promise<boolean> {
    const unique = [...new Set(ids)]
    const rows = await this.#context.db.withTenant(actor.scope, (tx) =>
      tx.execute(sql`select id from devices where id = any(${sql.param(unique)}::uuid[]) and deleted_at is null`),
    )
    return rows.length === unique.length
  }

  async #sendLatest(subscription: Subscription, actor: Actor, params: TopicParams['telemetry']): Promise<void> {
    const latest = await this.#store.latest(actor.scope, params.deviceIds, params.keys ? { keys: params.keys } : {})
    for (const [id, points] of latest) {
      for (const point of points) {
        subscription.push([id, point.key, point.ts, toJsonValue(point), point.kind], `${id} ${point.key}`, point.ts)
      }
    }
  }

  /** All points, late ones too: charts show them where they belong. */
  #publishPoints({ device, points }: Stored): void {
    const subscriptions = this.#telemetry.get(device.id)
    if (!subscriptions) return
    for (const point of points) {
      let item: unknown[] | undefined
      for (const subscription of subscriptions) {
        if (!subscription.wants(point.key)) continue
        item ??= [device.id, point.key, point.ts, toJsonValue(point), point.kind]
        subscription.push(item, `${device.id} ${point.key}`, point.ts)
      }
    }
  }

  /** One item per key, so that a client that is too slow gets the newest word on each. */
  #publishAttributes(change: AttributeChange): void {
    const { deviceId, scope, values, deleted } = change
    for (const { attributes } of this.#watchers.get(deviceId) ?? []) attributes?.(change)
    for (const subscription of this.#attributes.get(deviceId) ?? []) {
      for (const value of values) subscription.push({ deviceId, scope, ...viewAttribute(value) }, `${deviceId} ${scope} ${value.key}`)
      for (const key of deleted) subscription.push({ deviceId, scope, key, deleted: true }, `${deviceId} ${scope} ${key}`)
    }
  }

  #publishDevice({ device, receivedAt }: Stored): void {
    const primary = this.#primaries.get(device.id)
    const item = {
      id: device.id,
      state: 'online',
      lastActivityAt: new Date(receivedAt).toISOString(),
      // Always the newest value known, since this item may replace one that brought it.
      ...(primary ? { primary } : {}),
    }
    for (const subscription of this.#devices.get(device.id) ?? []) subscription.push(item, `${device.id} points`)
  }

  #toLog(deviceId: string, item: Record<string, unknown>, series?: string): void {
    for (const subscription of this.#logs.get(deviceId) ?? []) subscription.push(item, series)
  }

  #publishUplink(stored: Stored): void {
    const { device, points, receivedAt } = stored
    if (!this.#logs.has(device.id)) return
    const shownAt = this.#uplinkShownAt.get(device.id) ?? 0
    if (receivedAt - shownAt < uplinkShownMs) return
    this.#uplinkShownAt.set(device.id, receivedAt)
    const point = points[0]!
    this.#toLog(device.id, {
      type: 'uplink',
      at: new Date(receivedAt).toISOString(),
      key: point.key,
      value: toJsonValue(point),
      points: points.length,
    })
  }

  async #sendOverviews(): Promise<void> {
    for (const subscription of this.#overview) {
      await this.#sendOverview(subscription, subscription.actor).catch((error: unknown) =>
        this.#context.log.warn({ err: error }, 'no live overview'),
      )
    }
  }

  async #sendOverview(subscription: Subscription, actor: Actor): Promise<void> {
    const devices = await this.#context.db.withTenant(actor.scope, countDevices)
    const rates = this.#counters.perMinute(actor.scope)
    subscription.push(
      { devices, messagesPerMinute: rates.messages, pointsPerMinute: rates.points, rejectsPerMinute: rates.rejects },
      'overview',
    )
  }
}

/** The devices a subscription names. */
function devicesOf({ topic, params }: Subscription): readonly string[] {
  switch (topic) {
    case 'telemetry':
    case 'attributes':
      return params.deviceIds
    case 'commands':
      return [params.deviceId]
    case 'devices':
      return params.ids
    case 'deviceLog':
      return [params.id]
    case 'alarms':
    case 'system':
    case 'overview':
      return []
  }
}

function setOf<T>(index: Map<string, Set<T>>, id: string): Set<T> {
  const set = index.get(id) ?? new Set<T>()
  index.set(id, set)
  return set
}

/**
 * Brings a change to who may see the alarm and asked for such ones. Status and acknowledgement are no filters:
 * that an alarm leaves a list is what its viewers must hear.
 */
function publishAlarm(subscriptions: ReadonlySet<Subscription>, { tenantId, customerId, kind, alarm }: Events['alarm.changed']): void {
  for (const subscription of subscriptions) {
    if (subscription.topic !== 'alarms') continue
    const { scope } = subscription.actor
    const isVisible = scope.tenantId === tenantId && (!scope.customerIds || (customerId !== null && scope.customerIds.includes(customerId)))
    const { severity, deviceId, ruleId, type } = subscription.params
    const wanted = [
      [severity, alarm.severity],
      [deviceId, alarm.deviceId],
      [ruleId, alarm.ruleId],
      [type, alarm.type],
    ]
    if (isVisible && wanted.every(([one, is]) => one === undefined || one === is)) subscription.push({ kind, alarm }, alarm.id)
  }
}
