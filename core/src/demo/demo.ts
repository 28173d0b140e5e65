// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { findCredentials } from '../devices/credentials.ts'
import type { Devices } from '../devices/devices.ts'
import { ProblemError } from '../errors.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import { createProduct, deleteProduct } from '../products/products.ts'
import { coldChain } from '../simulate/cold-chain.ts'
import { Senders } from '../simulate/senders.ts'
import { toPoints } from '../simulate/scenario.ts'
import type { Unit } from '../simulate/scenario.ts'
import type { Point } from '../telemetry/points.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { demoRooms } from './rooms.ts'

export type DemoParts = {
  devices: Devices
  registry: DeviceRegistry
  store: TelemetryStore
  /** Port of our own MQTT endpoint; undefined when it is closed, then the data stands still. */
  mqttPort: () => number | undefined
}

export type DemoStatus = { loaded: boolean; devices: number }

/** How far an act got, kept in the product so that a killed server finishes it at its next start. */
type State = 'loading' | 'loaded' | 'removing'

const historySteps = 7 * 24 * 60
const historyStepMs = 60_000
/** The failing room begins to warm up within the history that is shown first. */
const failsBeforeEndMs = 36 * 3_600_000
const liveIntervalMs = 5000
/** Points of one write: as large as the ingest's own batches, so that live data waits no longer than usual. */
const batchPoints = 10_000
/** Several changes in a row restart the senders once. */
const restartMs = 200

/** Living example data: a product, its devices with a week of history, and senders that go on over real MQTT. */
export class Demo {
  readonly #context: Context
  readonly #parts: DemoParts
  readonly #scope: Scope
  /** Units go on where their history ends; after a restart they begin anew. */
  readonly #units = new Map<string, Unit>()
  #deviceIds: ReadonlySet<string> = new Set()
  #senders: Senders | undefined
  #isStarted = false
  #isStopping = false
  #stopListening: (() => void) | undefined
  #restartTimer: NodeJS.Timeout | undefined
  #turn: Promise<unknown> = Promise.resolve()

  constructor(context: Context, parts: DemoParts) {
    this.#context = context
    this.#parts = parts
    this.#scope = context.rootTenant
  }

  /** When the MQTT endpoint listens: finishes what a killed server left half done, and sends again. */
  async start(): Promise<void> {
    if (this.#isStarted) return
    this.#isStarted = true
    this.#isStopping = false
    this.#stopListening = this.#context.events.on('device.changed', ({ deviceId, change }) => {
      // A sender whose device was deleted, disabled or got other credentials would only be refused.
      if (change !== 'updated' && this.#deviceIds.has(deviceId)) this.#restartSoon()
    })
    await this.#inTurn(async () => {
      const product = await this.#findProduct()
      if (product && product.state !== 'loaded') await this.#removeAll(product.id)
      await this.#startSenders()
    })
  }

  /** A load that is under way breaks off; the next start removes what it made. */
  async stop(): Promise<void> {
    this.#isStarted = false
    this.#isStopping = true
    this.#stopListening?.()
    clearTimeout(this.#restartTimer)
    await this.#inTurn(() => this.#stopSenders())
  }

  async status(): Promise<DemoStatus> {
    const rows = await this.#context.db.withTenant(this.#scope, (tx) =>
      tx.execute<DemoStatus>(sql`select exists (select 1 from products where settings ->> 'demo' = 'loaded') as loaded,
        (select count(*)::int4 from devices where is_demo and deleted_at is null) as devices`),
    )
    return rows[0]!
  }

  /** Loaded already: nothing happens. A load that fails leaves nothing behind. */
  async load(): Promise<DemoStatus> {
    return this.#inTurn(async () => {
      const product = await this.#findProduct()
      if (product?.state === 'loaded') return this.status()
      if (product) await this.#removeAll(product.id)
      const startedAt = performance.now()
      const productId = await this.#createProduct()
      try {
        await this.#createDevices(productId)
        await this.#setState(productId, 'loaded')
      } catch (error) {
        if (!this.#isStopping) await this.#tidyUp(productId)
        throw error
      }
      this.#context.log.info({ ms: Math.round(performance.now() - startedAt) }, 'demo data is loaded')
      await this.#startSenders()
      return this.status()
    })
  }

  /** Everything goes for good, also demo devices in the bin. A product that real devices use by now stays as an ordinary one. */
  async remove(): Promise<void> {
    await this.#inTurn(async () => {
      const product = await this.#findProduct()
      if (product) await this.#removeAll(product.id)
    })
  }

  async #createProduct(): Promise<string> {
    const { product, keys, primaryKey } = coldChain
    const { product: created } = await withFreeName(product.name, (name) =>
      createProduct(this.#context, this.#scope, { ...product, name, model: { keys, primaryKey } }),
    )
    await this.#setState(created.id, 'loading')
    return created.id
  }

  async #createDevices(productId: string): Promise<void> {
    const { devices, registry } = this.#parts
    const endTs = Math.floor(this.#context.clock.now() / historyStepMs) * historyStepMs
    for (const [index, room] of demoRooms.entries()) {
      const { name, label, description, tags } = room
      const wanted = { label, description, tags: ['demo', ...tags], productId, isDemo: true, additionalInfo: { demoIndex: index } }
      const created = await withFreeName(name, (free) => devices.create({ scope: this.#scope }, { ...wanted, name: free }))
      const device = registry.get(created.id)
      if (!device) throw new Error(`demo device ${created.id} is not registered`)
      const startTs = endTs - (historySteps - 1) * historyStepMs
      const unit = coldChain.createUnit({ index, startTs, failsAt: endTs - failsBeforeEndMs })
      this.#units.set(created.id, unit)
      for (const points of measureHistory(unit, startTs)) {
        if (this.#isStopping) throw new ProblemError('OVERLOADED', { retryAfterS: 10 })
        await this.#parts.store.write([{ device, points }])
      }
    }
  }

  /** After a failed load; its error is the one to tell. */
  async #tidyUp(productId: string): Promise<void> {
    await this.#removeAll(productId).catch((err: unknown) => this.#context.log.error({ err }, 'half loaded demo data could not be removed'))
  }

  async #removeAll(productId: string): Promise<void> {
    const { devices, registry } = this.#parts
    const { db, events } = this.#context
    const startedAt = performance.now()
    await this.#stopSenders()
    await this.#setState(productId, 'removing')
    // Gone for everybody in one act; what takes longer follows.
    const ids = await db.withTenant(this.#scope, async (tx) => {
      const rows = await tx.execute<{ id: string }>(
        sql`update devices set deleted_at = coalesce(deleted_at, now()), deleted_by = coalesce(deleted_by, 'demo'), link = 'closed' where is_demo returning id`,
      )
      await tx.execute(
        sql`update device_credentials c set is_active = false from devices d where d.tenant_id = c.tenant_id and d.id = c.device_id and d.is_demo`,
      )
      return rows.map((row) => row.id)
    })
    for (const deviceId of ids) {
      await registry.refresh(this.#scope, deviceId)
      events.emit('device.changed', { tenantId: this.#scope.tenantId, deviceId, change: 'deleted' })
    }
    await devices.purge(this.#scope, ids)
    await deleteProduct(this.#context, this.#scope, productId).catch((error: unknown) => {
      if (error instanceof ProblemError && error.code === 'PRODUCT_IN_USE') return this.#setState(productId, undefined)
      throw error
    })
    this.#units.clear()
    this.#deviceIds = new Set()
    this.#context.log.info({ devices: ids.length, ms: Math.round(performance.now() - startedAt) }, 'demo data is removed')
  }

  async #startSenders(): Promise<void> {
    const port = this.#parts.mqttPort()
    const product = await this.#findProduct()
    if (!this.#isStarted || product?.state !== 'loaded' || port === undefined) return
    await this.#stopSenders()
    const devices = await this.#listSending()
    if (devices.length === 0) return
    this.#senders = new Senders({
      host: this.#loopback(),
      port,
      scenario: coldChain,
      devices,
      intervalMs: liveIntervalMs,
      now: () => this.#context.clock.now(),
    })
    this.#senders.start()
  }

  async #stopSenders(): Promise<void> {
    const senders = this.#senders
    this.#senders = undefined
    await senders?.stop(1000)
  }

  /** The devices that may connect, with their credentials and units. */
  async #listSending() {
    const { clock, db } = this.#context
    return db.withTenant(this.#scope, async (tx) => {
      const rows = await tx.execute<{ id: string; name: string; index: number | null; canConnect: boolean }>(sql`
        select id, name, (additional_info ->> 'demoIndex')::int4 as index, deleted_at is null and disabled_at is null as "canConnect" from devices where is_demo order by number`)
      this.#deviceIds = new Set(rows.map((row) => row.id))
      const sending = []
      for (const { id, name, index, canConnect } of rows) {
        const credentials = canConnect ? await findCredentials(this.#context, tx, this.#scope.tenantId, id) : undefined
        if (!credentials) continue
        const unit = this.#units.get(id) ?? coldChain.createUnit({ index: index ?? 0, startTs: clock.now() })
        this.#units.set(id, unit)
        sending.push({ name, credentials, unit })
      }
      return sending
    })
  }

  #restartSoon(): void {
    clearTimeout(this.#restartTimer)
    const restart = async () => {
      await this.#stopSenders()
      await this.#startSenders()
    }
    this.#restartTimer = setTimeout(() => {
      this.#inTurn(restart).catch((error: unknown) => this.#context.log.error({ err: error }, 'the demo senders could not start again'))
    }, restartMs).unref()
  }

  /** Our own endpoint, as this machine reaches it. */
  #loopback(): string {
    const { host } = this.#context.config.mqtt
    return host === undefined || host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  }

  async #findProduct(): Promise<{ id: string; state: State } | undefined> {
    const rows = await this.#context.db.withTenant(this.#scope, (tx) =>
      tx.execute<{ id: string; state: State }>(
        sql`select id, settings ->> 'demo' as state from products where settings ->> 'demo' is not null limit 1`,
      ),
    )
    return rows[0]
  }

  async #setState(productId: string, state: State | undefined): Promise<void> {
    const settings = state ? sql`settings || ${JSON.stringify({ demo: state })}::jsonb` : sql`settings - 'demo'`
    await this.#context.db.withTenant(this.#scope, (tx) =>
      tx.execute(sql`update products set settings = ${settings} where id = ${productId}`),
    )
  }

  /** One act after the other: two loads at once make one set of devices. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work)
    this.#turn = result.catch(() => {})
    return result
  }
}

/** A week of one room, a point per key and minute, in batches. */
function* measureHistory(unit: Unit, startTs: number): Generator<Point[]> {
  let points: Point[] = []
  for (let step = 0; step < historySteps; step++) {
    const ts = startTs + step * historyStepMs
    points.push(...toPoints(coldChain, unit.measure(ts), ts))
    if (points.length < batchPoints && step < historySteps - 1) continue
    yield points
    points = []
  }
}

/** People may have used the name for something of their own: then it gets a number. */
async function withFreeName<T>(name: string, create: (name: string) => Promise<T>): Promise<T> {
  for (let number = 1; ; number++) {
    try {
      return await create(number === 1 ? name : `${name} (${number})`)
    } catch (error) {
      const isTaken = error instanceof ProblemError && error.code === 'NAME_TAKEN'
      if (!isTaken || number === 100) throw error
    }
  }
}
