// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { AuditDraft } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { classifyDbError } from '../db/errors.ts'
import { listTenants } from '../db/installation.ts'
import { ProblemError } from '../errors.ts'
import type { DeviceRegistry } from '../ingest/device-registry.ts'
import type { Device } from '../ingest/registry.ts'
import {
  answerCommand,
  countOpen,
  insertCommand,
  moveCommands,
  recoverCommands,
  removeOldCommands,
  selectCommands,
  takeNumber,
  takeQueued,
} from './command-table.ts'
import type { CommandView, Move, Moved } from './command-table.ts'
import { Expiry } from './expiry.ts'
import { Lane } from './lane.ts'
import type { CommandReceiver, LaneParts } from './lane.ts'

/** What a user wants of a device. `params` is JSON text. */
export type CommandWish = {
  method: string
  params: string
  oneway: boolean
  timeoutMs?: number | undefined
  /** ms since 1970; counts before `timeoutMs`. */
  expiresAt?: number | undefined
}
export type PersistentWish = CommandWish & { retries?: number | undefined; additionalInfo?: string | undefined; createdBy: string }

/** [R-4], [R-10], [R-11] */
const usualTimeoutMs = 10_000
const shortestTimeoutMs = 5_000
const longestCallMs = 300_000
const usualLifeMs = 7 * 86_400_000
const mostOpen = 1_000
/** Calls of all devices that wait; more are told to come later. */
const mostCalls = 2_000
/** Ended commands are kept this long. */
const keptMs = 30 * 86_400_000
const retryMs = 1_000
/** At the stop; the start finds out about the rest by itself. */
const flushMs = 1_000

/**
 * Commands from users to devices (device API §6.1, §6.2). Persistent ones are rows; what is in memory is who
 * takes commands now, what is on its way, and the callers that wait for an answer.
 */
export class Commands {
  readonly #context: Context
  readonly #registry: DeviceRegistry
  readonly #lanes = new Map<string, Lane>()
  /** Devices that commands may wait for: all others need no query when they subscribe. */
  readonly #waitedFor = new Set<string>()
  readonly #giveUps = new Set<() => void>()
  readonly #laneParts: LaneParts
  readonly #expiry: Expiry
  readonly #stopping = new AbortController()
  #calls = 0
  #isGivingUp = false

  constructor(context: Context, registry: DeviceRegistry) {
    this.#context = context
    this.#registry = registry
    this.#expiry = new Expiry(context, (command) => this.#end(command))
    this.#laneParts = {
      move: (device, moves) => this.#move(device, moves),
      take: (device, limit, isNoted) => this.#take(device, limit, isNoted),
      answer: async (device, no, response) => {
        const command = await this.#persist(device, (tx, now) => answerCommand(tx, now, device.id, no, response))
        if (command) this.#tell(device, [command])
        return command
      },
      after: (ms, callback) => context.clock.after(ms, callback),
      idle: (lane) => this.#forgetIdle(lane),
      failed: (error) => context.log.error({ err: error }, 'a step of the commands of a device failed'),
    }
  }

  async start(): Promise<void> {
    for (const tenant of await listTenants(this.#context.db)) {
      const devices = await this.#context.db.withTenant(tenant, (tx) => recoverCommands(tx, this.#context.clock.now()))
      for (const id of devices) this.#waitedFor.add(id)
    }
    await this.#expiry.start()
  }

  /** Ends the calls that wait, so that their requests are answered. */
  giveUp(): void {
    this.#isGivingUp = true
    for (const giveUp of this.#giveUps) giveUp()
  }

  /** Stores what is known of commands on their way. */
  async stop(): Promise<void> {
    this.giveUp()
    this.#expiry.stop()
    for (const lane of this.#lanes.values()) lane.stop()
    const flushed = Promise.all([...this.#lanes.values()].map((lane) => lane.flush()))
    await Promise.race([flushed, new Promise<void>((resolve) => this.#context.clock.after(flushMs, resolve))])
    this.#stopping.abort()
  }

  /** Somebody takes the commands of this device from now on, or listens again. */
  attach(device: Device, receiver: CommandReceiver): void {
    this.#laneOf(device).attach(receiver)
  }

  detach(device: Device, receiver: CommandReceiver): void {
    const lane = this.#lanes.get(device.id)
    lane?.detach(receiver)
    if (lane) this.#forgetIdle(lane)
  }

  /**
   * Brings a command to the device and waits: until it is written, or for the answer [R-2].
   *
   * @param waitsForDevice false refuses at once while nobody listens
   * @returns the number of the command, and the JSON text of the answer to a two-way one
   * @throws {ProblemError} `NOT_FOUND`, `DEVICE_OFFLINE`, `COMMAND_TIMEOUT` [R-3], `COMMAND_FAILED`, `OVERLOADED`
   */
  async call(
    scope: Scope,
    deviceId: string,
    wish: CommandWish,
    waitsForDevice = true,
  ): Promise<{ no: number; response: string | undefined }> {
    if (this.#calls >= mostCalls) throw new ProblemError('OVERLOADED', { retryAfterS: 5 })
    this.#calls++
    try {
      return await this.#call(scope, deviceId, wish, waitsForDevice)
    } finally {
      this.#calls--
    }
  }

  async #call(
    scope: Scope,
    deviceId: string,
    wish: CommandWish,
    waitsForDevice: boolean,
  ): Promise<{ no: number; response: string | undefined }> {
    const { clock, db } = this.#context
    const start = clock.now()
    const no = await db.withTenant(scope, async (tx) => {
      const taken = await takeNumber(tx, deviceId)
      if (taken !== undefined) recordAudit(tx, draftOf(deviceId, wish))
      return taken
    })
    const device = this.#registry.get(deviceId)
    if (no === undefined || !device) throw new ProblemError('NOT_FOUND')
    const lane = this.#laneOf(device)
    if (!waitsForDevice && !lane.hasReceiver) throw this.#offline(lane)
    const expiresAt = Math.min(
      wish.expiresAt ?? start + Math.max(wish.timeoutMs ?? usualTimeoutMs, shortestTimeoutMs),
      start + longestCallMs,
    )
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
    const leave = lane.call({
      no,
      method: wish.method,
      params: wish.params,
      oneway: wish.oneway,
      done: resolve,
      failed: (why) => reject(new ProblemError('COMMAND_FAILED', { errors: [{ pointer: '', detail: failures[why] }] })),
    })
    const giveUp = () => reject(new ProblemError('OVERLOADED', { retryAfterS: 5 }))
    this.#giveUps.add(giveUp)
    if (this.#isGivingUp) giveUp()
    const cancel = clock.after(Math.max(expiresAt - clock.now(), 0), () => reject(new ProblemError('COMMAND_TIMEOUT')))
    try {
      return { no, response: await promise }
    } finally {
      cancel()
      leave()
      this.#giveUps.delete(giveUp)
      this.#forgetIdle(lane)
    }
  }

  /**
   * Stores a command that waits for its device; it is committed when this returns [R-6].
   *
   * @throws {ProblemError} `NOT_FOUND`, `DEVICE_OFFLINE`, `COMMAND_QUEUE_FULL`, `UNPROCESSABLE` when it has expired already
   */
  async queue(scope: Scope, deviceId: string, wish: PersistentWish, waitsForDevice = true): Promise<CommandView> {
    const { clock, db } = this.#context
    const now = clock.now()
    const { method, params, oneway, createdBy } = wish
    const life = wish.timeoutMs === undefined ? usualLifeMs : Math.max(wish.timeoutMs, shortestTimeoutMs)
    const expiresAt = wish.expiresAt ?? now + life
    if (expiresAt <= now) {
      throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/expiresAt', detail: 'The command would be expired already.' }] })
    }
    const device = this.#registry.get(deviceId)
    const id = randomUUIDv7()
    await db.withTenant(scope, async (tx) => {
      const no = await takeNumber(tx, deviceId)
      if (no === undefined || !device) throw new ProblemError('NOT_FOUND')
      if (!waitsForDevice && !this.#lanes.get(deviceId)?.hasReceiver) throw new ProblemError('DEVICE_OFFLINE')
      if ((await countOpen(tx, deviceId)) >= mostOpen) throw new ProblemError('COMMAND_QUEUE_FULL', { params: { limit: mostOpen } })
      const retries = wish.retries ?? device.settings.rpc.retries
      const additionalInfo = wish.additionalInfo ?? null
      await insertCommand(tx, scope, {
        id,
        deviceId,
        no,
        method,
        params,
        oneway,
        retries,
        additionalInfo,
        createdBy,
        createdAt: now,
        expiresAt,
      })
      recordAudit(tx, draftOf(deviceId, wish))
    })
    this.#waitedFor.add(deviceId)
    this.#expiry.note(expiresAt)
    const command = await this.get(scope, id)
    this.#tell(device!, [{ ...command, detail: null }])
    this.#lanes.get(deviceId)?.wake()
    return command
  }

  /** @throws {ProblemError} `NOT_FOUND` also for a command of another device */
  async get(scope: Scope, id: string, deviceId?: string): Promise<CommandView> {
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      selectCommands(tx, sql`c.id = ${id} ${deviceId ? sql`and c.device_id = ${deviceId}` : sql``}`, 1),
    )
    if (!rows[0]) throw new ProblemError('NOT_FOUND')
    return rows[0]
  }

  /** Commands of a device, the newest first; `before` is the id of the last one of the page before. */
  async list(scope: Scope, deviceId: string, limit: number, before?: string): Promise<CommandView[]> {
    const older = before ? sql`and c.id < ${before}` : sql``
    return this.#context.db.withTenant(scope, (tx) => selectCommands(tx, sql`c.device_id = ${deviceId} ${older}`, limit))
  }

  /**
   * Takes a command back; one that was not sent is never sent. One that has ended stays as it is.
   *
   * @throws {ProblemError} `NOT_FOUND`
   */
  async cancel(scope: Scope, id: string, by: string, deviceId?: string): Promise<void> {
    await this.get(scope, id, deviceId)
    const { clock, db } = this.#context
    const moved = await db.withTenant(scope, async (tx) => {
      recordAudit(tx, { type: 'command.cancel', subject: `command:${id}` })
      return moveCommands(tx, clock.now(), [{ id, state: 'DELETED', detail: by }])
    })
    for (const command of moved) this.#end(command)
  }

  /** An answer of the device. @returns false when no command waits for it [R-5] */
  async answer(device: Device, no: number, response: string): Promise<boolean> {
    return this.#laneOf(device).answer(no, response)
  }

  async removeOld(scope: Scope): Promise<void> {
    const { clock, db } = this.#context
    await db.withTenant(scope, (tx) => removeOldCommands(tx, clock.now() - keptMs))
  }

  /** A command has ended, whatever its device does. */
  #end(command: Moved): void {
    this.#lanes.get(command.deviceId)?.forget(command.id)
    const device = this.#registry.get(command.deviceId)
    if (device) this.#tell(device, [command])
  }

  async #move(device: Device, moves: readonly Move[]): Promise<Moved[]> {
    if (moves.length === 0) return []
    const moved = await this.#persist(device, (tx, now) => moveCommands(tx, now, moves))
    if (moved.some(({ state }) => state === 'QUEUED')) this.#waitedFor.add(device.id)
    this.#tell(device, moved)
    return moved
  }

  async #take(device: Device, limit: number, isNoted: boolean): Promise<Moved[]> {
    // Forgotten before the query: a command added from here on is waited for again.
    if (!this.#waitedFor.delete(device.id)) return []
    const taken = await this.#persist(device, (tx, now) => takeQueued(tx, now, device.id, limit, isNoted))
    if (taken.length === limit) this.#waitedFor.add(device.id)
    if (isNoted) this.#tell(device, taken)
    return taken
  }

  /** One transaction; repeated while the database is away, since the device has acted and does not repeat that. */
  async #persist<T>(device: Device, work: (tx: Tx, now: number) => Promise<T>): Promise<T> {
    const { clock, db, log } = this.#context
    for (;;) {
      try {
        return await db.withTenant({ tenantId: device.tenantId, tenantNo: device.tenantNo }, (tx) => work(tx, clock.now()))
      } catch (error) {
        if (this.#stopping.signal.aborted || classifyDbError(error) !== 'unavailable') throw error
        log.warn({ err: error, device: device.id }, 'commands could not be stored yet')
        await new Promise<void>((resolve) => clock.after(retryMs, resolve))
      }
    }
  }

  #tell({ tenantId, id: deviceId }: Device, moved: readonly Moved[]): void {
    for (const command of moved) this.#context.events.emit('command.moved', { tenantId, deviceId, command })
  }

  #laneOf(device: Device): Lane {
    const known = this.#lanes.get(device.id)
    if (known) return known
    const lane = new Lane(this.#laneParts, device)
    this.#lanes.set(device.id, lane)
    return lane
  }

  #forgetIdle(lane: Lane): void {
    if (lane.isIdle && this.#lanes.get(lane.device.id) === lane) this.#lanes.delete(lane.device.id)
  }

  #offline(lane: Lane): ProblemError {
    this.#forgetIdle(lane)
    return new ProblemError('DEVICE_OFFLINE')
  }
}

const failures = {
  too_large: 'The command is larger than the device takes.',
  dropped: 'Too many messages wait for the device.',
} as const

/** The method only: parameters are payload of a device [AU-3]. */
function draftOf(deviceId: string, { method, oneway }: CommandWish): AuditDraft {
  return { type: 'command.send', subject: `device:${deviceId}`, changes: { from: null, to: { method, oneway } } }
}
