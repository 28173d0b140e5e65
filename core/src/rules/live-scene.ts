// SPDX-License-Identifier: AGPL-3.0-only
import { DeviceValues } from './device-values.ts'
import type { Slot } from './device-values.ts'
import { Lane } from './lane.ts'
import type { LaneOptions, OnJudged } from './lane.ts'
import type { AttributeScope, DeviceField, DeviceScene } from './moment.ts'
import { isObject } from './problems.ts'
import type { Targetable } from './rule-targets.ts'
import type { Known, RuleValue } from './values.ts'

/** What the database knows of a device that rules may ask for; all times are ms since 1970. */
export type DeviceCard = Targetable & {
  tenantId: string
  tenantNo: number
  no: number
  name: string
  label: string | null
  product: string
  createdAt: number
  connection: { isOnline: boolean; since: number } | undefined
}

/** A device under rules, as it lives in this process. */
export class LiveScene implements DeviceScene {
  readonly values = new DeviceValues()
  readonly lane: Lane<LiveScene>
  card: DeviceCard
  connection: DeviceScene['connection']
  /** When it last sent anything, by the server's clock: timers wait a little for what may follow. */
  lastReceivedAt = Number.NEGATIVE_INFINITY
  /** By `scope/name`, those that rules read. */
  #attributes: Map<string, RuleValue> | undefined

  constructor(card: DeviceCard, onJudged: OnJudged<LiveScene>, options: LaneOptions) {
    this.card = card
    this.connection = card.connection
    this.lane = new Lane<LiveScene>(this, onJudged, options)
  }

  get id(): string {
    return this.card.id
  }

  get createdAt(): number {
    return this.card.createdAt
  }

  setAttribute(name: string, value: RuleValue | undefined): void {
    if (value === undefined) this.#attributes?.delete(name)
    else (this.#attributes ??= new Map()).set(name, value)
  }

  readAttribute(scope: AttributeScope, name: string): Known {
    return this.#attributes?.get(`${scope}/${name}`)
  }

  readField(field: DeviceField): Known {
    switch (field) {
      case 'device.name':
        return this.card.name
      case 'device.label':
        return this.card.label ?? undefined
      case 'device.product':
        return this.card.product
      case 'device.online':
        return this.connection?.isOnline
    }
  }
}

/** The newest values of a device as they are stored: key → [ts, value, value before, receipt]. */
export function writeSlots(values: DeviceValues): string {
  const slots = [...values.slots].map(([key, { ts, value, previous, receivedAt }]): [string, unknown] => [
    key,
    [ts, toJson(value), previous === undefined ? [] : [toJson(previous)], receivedAt],
  ])
  return JSON.stringify(Object.fromEntries(slots))
}

export function readSlots(json: unknown): [string, Slot][] {
  if (!isObject(json)) return []
  return Object.entries(json).flatMap(([key, stored]): [string, Slot][] => {
    if (!Array.isArray(stored)) return []
    const [ts, value, previous, receivedAt] = stored as unknown[]
    if (typeof ts !== 'number' || typeof receivedAt !== 'number' || !Array.isArray(previous)) return []
    return [[key, { ts, value: fromJson(value), previous: previous.length > 0 ? fromJson(previous[0]) : undefined, receivedAt }]]
  })
}

/** A bigint stands as `{"big": "…"}`. */
function toJson(value: RuleValue): unknown {
  return typeof value === 'bigint' ? { big: String(value) } : value
}

function fromJson(stored: unknown): RuleValue {
  if (typeof stored === 'number' || typeof stored === 'string' || typeof stored === 'boolean') return stored
  if (!isObject(stored)) return null
  return typeof stored['big'] === 'string' ? BigInt(stored['big']) : { json: String(stored['json']) }
}
