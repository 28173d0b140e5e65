// SPDX-License-Identifier: AGPL-3.0-only
import type { AlarmEventKind } from './alarms/alarm-rows.ts'
import type { Alarm } from './alarms/schemas.ts'
import type { AttributeChange } from './attributes/attributes.ts'
import type { Moved } from './commands/command-table.ts'
import type { Log } from './log.ts'

/** What happened, for whom it may concern in this process. */
export type Events = {
  /** A device row, its product or its credentials changed; the registry has taken it in when listeners hear of it. */
  'device.changed': {
    tenantId: string
    deviceId: string
    change: 'created' | 'updated' | 'deleted' | 'restored' | 'credentials' | 'disabled' | 'enabled'
  }
  'device.state': { tenantId: string; deviceId: string; state: 'never' | 'online' | 'offline'; lastActivityAt: number | undefined }
  'device.log': { tenantId: string; deviceId: string; entry: { id: string; at: string; event: string; detail: Record<string, unknown> } }
  'device.reject': { tenantId: string; deviceId: string; entry: Record<string, unknown> }
  'connection.refused': { at: number; address: string; clientId: string; reason: string; count: number }
  /** A login session ended before its time: sockets of it close, its tokens are dead. */
  'session.ended': { sessionId: string }
  /** A persistent command has come into another state, and that is committed. */
  'command.moved': { tenantId: string; deviceId: string; command: Moved }
  /** Attributes of a device changed and are committed; those of one device are told in order. */
  'attributes.changed': AttributeChange
  /** A device asked for something the server does not know by itself; the reply goes to `requestId`, a number of ours. */
  'device.called': { tenantId: string; deviceId: string; requestId: number; method: string; params: unknown }
  /** An alarm was raised, changed or cleared, and that is committed. */
  'alarm.changed': { tenantId: string; customerId: string | null; kind: AlarmEventKind | 'deleted'; alarm: Alarm }
  /** A rule was saved, deleted or restored, and that is committed. */
  'rule.changed': { tenantId: string; ruleId: string }
  'product.changed': { tenantId: string; productId: string }
  /** Something was done with the license, or refused; stored in `license_events`, listened to by who keeps records. */
  'license.event': LicenseEvent
  /** Another state, other features or limits are in force. */
  'license.changed': { state: string; features: readonly string[] }
  /** A module was started, stopped, or could not be. */
  'module.changed': { name: string; status: string; reason: string | undefined }
  /** The room left for the database crossed a bound. */
  'disk.level': { level: 'ok' | 'warn' | 'high' | 'critical'; before: 'ok' | 'warn' | 'high' | 'critical' }
}

/** What is told of the license never holds a token [L-4]. */
export type LicenseEvent = {
  id: string
  at: number
  /** Id of a user, `system`, `file` or `console`. */
  actor: string
  action: string
  outcome: 'ok' | 'refused'
  code: string | null
  jti: string | null
  seq: number | null
  kid: string | null
  detail: Record<string, unknown>
}

type Listener<K extends keyof Events> = (event: Events[K]) => void

/** Calls every listener; one that fails is logged and stops nobody else. */
export class EventBus {
  readonly #log: Log
  readonly #listeners = new Map<keyof Events, Set<Listener<never>>>()

  constructor(log: Log) {
    this.#log = log
  }

  on<K extends keyof Events>(name: K, listener: Listener<K>): () => void {
    const set = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, set)
    set.add(listener)
    return () => set.delete(listener)
  }

  emit<K extends keyof Events>(name: K, event: Events[K]): void {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        ;(listener as Listener<K>)(event)
      } catch (error) {
        this.#log.error({ err: error, event: name }, 'a listener failed')
      }
    }
  }
}
