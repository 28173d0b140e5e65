// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { eq } from 'drizzle-orm'
import type { Registry } from 'prom-client'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { listTenants } from '../db/installation.ts'
import { connectors } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import type { Ingest } from '../ingest/start-ingest.ts'
import { blockedClass } from '../outbound.ts'
import type { Outbound } from '../outbound.ts'
import type { SealPlace } from '../secrets.ts'
import { watchGauge } from '../system/ingest-counters.ts'
import { actorName, addSecurityEvent, systemOrigin } from '../users/security-events.ts'
import type { Origin, SecurityEvent } from '../users/security-events.ts'
import { getRow, insertRow, listEnabled, listRows, setDevice, updateRow } from './connector-table.ts'
import type { ConnectorRow } from './connector-table.ts'
import { Link } from './link.ts'
import type { LinkParts, LinkSettings } from './link.ts'
import { compileRules } from './mapping.ts'
import type { Connector, ConnectorCreate, ConnectorPatch, ConnectorStatus, ConnectorTest, Sample, TestResult } from './schemas.ts'
import { checkConnection, checkRules, defaultConnection, mergeSettings } from './settings.ts'
import { tryConnection } from './trial.ts'

export type ConnectorParts = { ingest: Ingest; outbound: Outbound; metrics: Registry }
type Caller = { actor: Actor; origin: Origin }
type Versioned = { connector: Connector; version: number }

/** Trials of connections at a time; each may take some seconds. */
const maxTrials = 4
/** A name that becomes a blocked address is noted this often at most. */
const blockedNoteMs = 3_600_000

/**
 * Connectors: brokers of others that data is taken from. Each has a device that stands for it, a gateway whose
 * children are the devices it brings, so that limits, adoption and refusals are those of gateways.
 */
export class Connectors {
  readonly #context: Context
  readonly #parts: ConnectorParts
  readonly #links = new Map<string, Link>()
  readonly #notedAt = new Map<string, number>()
  /** Changes of links, one after the other. */
  #turn: Promise<void> = Promise.resolve()
  #isStopped = false
  #trials = 0
  #unlisten: (() => void) | undefined

  constructor(context: Context, parts: ConnectorParts) {
    this.#context = context
    this.#parts = parts
    const count = (states: readonly string[]) => [...this.#links.values()].filter(({ status }) => states.includes(status.state)).length
    watchGauge(parts.metrics, 'iot_pms_connectors_connected', 'Connectors with a connection to their broker', () => count(['connected']))
    watchGauge(parts.metrics, 'iot_pms_connectors_failing', 'Connectors that wait for their next attempt', () => count(['failing']))
    watchGauge(parts.metrics, 'iot_pms_connector_in_flight', 'Messages of brokers received and not yet acknowledged', () =>
      [...this.#links.values()].reduce((sum, { status }) => sum + status.inFlight, 0),
    )
  }

  /** Connects what is switched on; whoever cannot be reached is tried again and holds nothing up. */
  async start(): Promise<void> {
    this.#unlisten = this.#context.events.on('device.changed', ({ deviceId }) => {
      for (const link of this.#links.values()) if (link.settings.deviceId === deviceId) link.recheck()
    })
    for (const tenant of await listTenants(this.#context.db)) {
      for (const row of await this.#context.db.withTenant(tenant, listEnabled)) this.#open(tenant, row)
    }
  }

  /** What was taken is committed and acknowledged first; brokers keep the rest. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#unlisten?.()
    await this.#turn
    await Promise.all([...this.#links.values()].map((link) => link.stop()))
  }

  async list(scope: Scope, limit: number, cursor?: string): Promise<{ items: Connector[]; nextCursor: string | null }> {
    const { rows, nextCursor } = await this.#context.db.withTenant(scope, (tx) => listRows(tx, limit, cursor))
    return { items: rows.map((row) => this.#show(row)), nextCursor }
  }

  /** @throws {ProblemError} `NOT_FOUND` */
  async get(scope: Scope, id: string): Promise<Versioned> {
    const row = await this.#context.db.withTenant(scope, (tx) => getRow(tx, id))
    return { connector: this.#show(row), version: row.version }
  }

  /** The last messages of the broker since the connector was last started, newest first. */
  async samples(scope: Scope, id: string): Promise<Sample[]> {
    await this.#context.db.withTenant(scope, (tx) => getRow(tx, id))
    return this.#links.get(id)?.samples ?? []
  }

  /** @throws {ProblemError} `NAME_TAKEN`, also by a device, `UNPROCESSABLE`, `OUTBOUND_URL_BLOCKED` */
  async create({ actor, origin }: Caller, { name, enabled = true, password, ...given }: ConnectorCreate): Promise<Versioned> {
    const { scope } = actor
    const id = randomUUIDv7()
    checkRules(given.rules)
    const settings = mergeSettings(undefined, given)
    await this.#check({ actor, origin }, id, () => checkConnection(this.#parts.outbound, settings))
    const sealedPassword = password ? this.#context.secrets.seal(password, placeOf(scope, id)) : null
    await this.#change({ actor, origin }, name, async (tx) => {
      await insertRow(tx, scope, { id, name: name.trim(), isEnabled: enabled, settings, sealedPassword })
      return eventOf(actor, 'connector.create', id)
    })
    try {
      await this.#ensureDevice(scope, id)
    } catch (error) {
      await this.#context.db.withTenant(scope, (tx) => tx.delete(connectors).where(eq(connectors.id, id)))
      throw error
    }
    await this.#reopen(scope, id)
    return this.get(scope, id)
  }

  /** @throws {ProblemError} `NOT_FOUND`, `VERSION_CONFLICT`, `NAME_TAKEN`, `UNPROCESSABLE`, `OUTBOUND_URL_BLOCKED` */
  async update({ actor, origin }: Caller, id: string, patch: ConnectorPatch, version?: number): Promise<Versioned> {
    const { scope } = actor
    const { name, enabled, password, ...given } = patch
    const row = await this.#context.db.withTenant(scope, (tx) => getRow(tx, id))
    if (version !== undefined && row.version !== version) throw new ProblemError('VERSION_CONFLICT')
    if (given.rules) checkRules(given.rules)
    const settings = mergeSettings(row.settings, given)
    await this.#check({ actor, origin }, id, () => checkConnection(this.#parts.outbound, settings))
    const sealed = password ? this.#context.secrets.seal(password, placeOf(scope, id)) : null
    const next = {
      ...row,
      name: name?.trim() ?? row.name,
      isEnabled: enabled ?? row.isEnabled,
      settings,
      sealedPassword: password === undefined ? row.sealedPassword : sealed,
    }
    await this.#change({ actor, origin }, next.name, async (tx) => {
      await updateRow(tx, next)
      return eventOf(actor, 'connector.update', id)
    })
    if (next.isEnabled && row.deviceId === null) await this.#ensureDevice(scope, id)
    await this.#reopen(scope, id)
    return this.get(scope, id)
  }

  /** Its device goes to the bin; the devices it brought stay. */
  async delete({ actor, origin }: Caller, id: string, version?: number): Promise<void> {
    const { scope } = actor
    const row = await this.#context.db.withTenant(scope, (tx) => getRow(tx, id))
    if (version !== undefined && row.version !== version) throw new ProblemError('VERSION_CONFLICT')
    await this.#change({ actor, origin }, row.name, async (tx) => {
      await tx.delete(connectors).where(eq(connectors.id, id))
      return eventOf(actor, 'connector.delete', id)
    })
    await this.#inTurn(() => this.#close(id, true))
    if (row.deviceId === null) return
    await this.#parts.ingest.devices.delete(actor, row.deviceId).catch((error: unknown) => {
      // Somebody was faster.
      if (!(error instanceof ProblemError)) throw error
    })
  }

  /** Tries a connection that need not be saved. @throws {ProblemError} `NOT_FOUND`, `UNPROCESSABLE`, `OUTBOUND_URL_BLOCKED` */
  async test({ actor, origin }: Caller, { id, password, seconds = 10, ...given }: ConnectorTest): Promise<TestResult> {
    const stored = id === undefined ? undefined : await this.#context.db.withTenant(actor.scope, (tx) => getRow(tx, id))
    const settings = defaultConnection(given)
    await this.#check({ actor, origin }, id ?? 'new', () => checkConnection(this.#parts.outbound, settings))
    if (this.#trials >= maxTrials) throw new ProblemError('OVERLOADED', { retryAfterS: 10 })
    const kept = password === undefined && stored ? this.#openPassword(actor.scope, stored) : undefined
    this.#trials++
    try {
      return await tryConnection(this.#context, this.#parts.outbound, { ...settings, password: password ?? kept, clean: true, seconds })
    } finally {
      this.#trials--
    }
  }

  #show(row: ConnectorRow): Connector {
    const { formerTopics: _, ...settings } = row.settings
    return {
      id: row.id,
      name: row.name,
      enabled: row.isEnabled,
      deviceId: row.deviceId,
      ...settings,
      hasPassword: row.sealedPassword !== null,
      status: this.#links.get(row.id)?.status ?? offStatus(row),
      createdAt: new Date(row.createdAt).toISOString(),
      updatedAt: new Date(row.updatedAt).toISOString(),
    }
  }

  /** Looks at what a person gives; an address that is not allowed is a security event [SC-102]. */
  async #check({ actor, origin }: Caller, id: string, look: () => Promise<void>): Promise<void> {
    try {
      await look()
    } catch (error) {
      const addressClass = blockedClass(error)
      if (addressClass) {
        const event = eventOf(actor, 'outbound.blocked', id)
        await this.#note(actor.scope, origin, { ...event, outcome: 'denied', detail: { class: addressClass } })
      }
      throw error
    }
  }

  async #change({ actor, origin }: Caller, name: string, work: (tx: Tx) => Promise<SecurityEvent>): Promise<void> {
    try {
      await this.#context.db.withTenant(actor.scope, async (tx) => {
        const event = await work(tx)
        await addSecurityEvent(tx, actor.scope.tenantId, origin, this.#context.clock.now(), event)
      })
    } catch (error) {
      throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name: name.trim() }, cause: error }) : error
    }
  }

  async #note(scope: Scope, origin: Origin, event: SecurityEvent): Promise<void> {
    await this.#context.db.withTenant(scope, (tx) => addSecurityEvent(tx, scope.tenantId, origin, this.#context.clock.now(), event))
  }

  /** The device that stands for the connector, under its name. @throws {ProblemError} `NAME_TAKEN` */
  async #ensureDevice(scope: Scope, id: string): Promise<void> {
    const row = await this.#context.db.withTenant(scope, (tx) => getRow(tx, id))
    if (row.deviceId !== null) return
    const device = await this.#parts.ingest.devices.create({ scope }, { name: row.name, gateway: true })
    await this.#context.db.withTenant(scope, (tx) => setDevice(tx, id, device.id))
  }

  /** Makes the link what the row says now. */
  #reopen(scope: Scope, id: string): Promise<void> {
    return this.#inTurn(async () => {
      await this.#close(id)
      const row = await this.#context.db.withTenant(scope, (tx) => getRow(tx, id)).catch(() => undefined)
      if (row?.isEnabled) this.#open(scope, row)
    })
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(work)
    this.#turn = turn.catch(() => {})
    return turn
  }

  async #close(id: string, forget = false): Promise<void> {
    const link = this.#links.get(id)
    this.#links.delete(id)
    await link?.stop(forget)
  }

  #open(scope: Scope, row: ConnectorRow): void {
    if (this.#isStopped) return
    const rules = compileRules(row.settings.rules)
    const { url, protocolVersion, username, caCertificate, persistent, topics, formerTopics } = row.settings
    const settings: LinkSettings = {
      id: row.id,
      name: row.name,
      deviceId: row.deviceId ?? undefined,
      broker: {
        url,
        protocolVersion,
        username,
        caCertificate,
        // The same in every life of this server, so that the broker knows the session again.
        clientId: row.settings.clientId || `iot-pms-${row.id}`,
        clean: !persistent,
      },
      openPassword: () => this.#openPassword(scope, row),
      topics,
      formerTopics,
      rules: Array.isArray(rules) ? rules : [],
    }
    const link = new Link(this.#context, this.#linkParts(scope), settings)
    this.#links.set(row.id, link)
    link.start()
  }

  #linkParts(scope: Scope): LinkParts {
    const { ingest, outbound } = this.#parts
    return {
      outbound,
      feed: ingest,
      states: {
        relay: (device, isConnected) => {
          if (isConnected) ingest.states.sessionOpened(device, false)
          else ingest.states.sessionClosed({ device, lastActivityAt: this.#context.clock.now() }, 'connector')
        },
      },
      failed: ({ id }, { code, detail }) => {
        const now = this.#context.clock.monotonic()
        if (code !== 'ADDRESS_BLOCKED' || now - (this.#notedAt.get(id) ?? Number.NEGATIVE_INFINITY) < blockedNoteMs) return
        this.#notedAt.set(id, now)
        const event: SecurityEvent = {
          actor: 'system',
          action: 'outbound.blocked',
          target: `connector:${id}`,
          outcome: 'denied',
          detail: { class: detail },
        }
        this.#note(scope, systemOrigin, event).catch((error: unknown) =>
          this.#context.log.warn({ err: error }, 'a blocked address could not be noted'),
        )
      },
    }
  }

  #openPassword(scope: Scope, row: Pick<ConnectorRow, 'id' | 'sealedPassword'>): string | undefined {
    return row.sealedPassword === null ? undefined : this.#context.secrets.open(row.sealedPassword, placeOf(scope, row.id))
  }
}

function placeOf({ tenantId }: Scope, rowId: string): SealPlace {
  return { column: 'connectors.sealed_password', tenantId, rowId }
}

function eventOf(actor: Actor, action: string, id: string): SecurityEvent {
  return { actor: actorName(actor), action, target: `connector:${id}`, outcome: 'ok' }
}

function offStatus(row: ConnectorRow): ConnectorStatus {
  return {
    state: 'off',
    since: new Date(row.updatedAt).toISOString(),
    lastError: null,
    nextAttemptAt: null,
    messagesPerMinute: 0,
    received: 0,
    points: 0,
    refused: 0,
    inFlight: 0,
    oldestMs: 0,
    lastMessageAt: null,
  }
}
