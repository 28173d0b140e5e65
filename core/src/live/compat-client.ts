// SPDX-License-Identifier: AGPL-3.0-only
import type { AttributeChange, Attributes } from '../attributes/attributes.ts'
import { attributeScopes } from '../attributes/columns.ts'
import type { AttributeScope } from '../attributes/columns.ts'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import type { Stored } from '../ingest/pipeline.ts'
import type { Log } from '../log.ts'
import { readLatest } from '../telemetry/answers.ts'
import type { TelemetryDevice } from '../telemetry/answers.ts'
import { planValues, readValues } from '../telemetry/compat.ts'
import type { Source } from '../telemetry/series.ts'
import type { TelemetryStore } from '../telemetry/store.ts'
import { toCompatJsonText } from '../telemetry/values.ts'
import type { BadCommand, CompatCommand, Ending } from './compat-commands.ts'
import { FrameQueue, compatErrors, formatError, keepNewest } from './compat-frames.ts'
import type { CompatValues } from './compat-frames.ts'
import type { Topics } from './topics.ts'

export type CompatParts = {
  topics: Topics
  store: TelemetryStore
  attributes: Attributes
  /** Undefined for devices the scope may not see. */
  findDevice(scope: Scope, id: string): Promise<TelemetryDevice | undefined>
  log: Log
}

type Socket = { readonly bufferedAmount: number; send(text: string): void }
type Telemetry = Extract<CompatCommand, { what: 'telemetry' }>
type AttributeCommand = Extract<CompatCommand, { what: 'attributes' }>

/** [W-6] */
const maxSubscriptions = 500
/** Values of one answer; it is made in memory. */
const maxValues = 100_000

/** One signed-in socket of the ThingsBoard-style WebSocket: what it subscribed to, and what waits for it. */
export class CompatClient {
  readonly actor: Actor
  readonly #parts: CompatParts
  readonly #socket: Socket
  readonly #queue: FrameQueue
  /** What ends each, by the number the client has given it. */
  readonly #subscriptions = new Map<number, () => void>()

  constructor(parts: CompatParts, actor: Actor, socket: Socket) {
    this.#parts = parts
    this.actor = actor
    this.#socket = socket
    this.#queue = new FrameQueue(socket)
  }

  /** Frames that wait because the client is slow. */
  get waiting(): number {
    return this.#queue.length
  }

  flush(): void {
    this.#queue.flush()
  }

  close(): void {
    for (const end of this.#subscriptions.values()) end()
    this.#subscriptions.clear()
  }

  /** Does what a command says, and answers it; never fails [W-5]. */
  async run(command: CompatCommand | Ending | BadCommand): Promise<void> {
    const { id } = command
    if (command.do === 'refuse') return this.#refuse(id, compatErrors.badRequest, command.message)
    if (command.do === 'unsubscribe') return this.#end(id)
    try {
      const permission = command.do === 'subscribe' && command.what === 'attributes' ? 'device.read' : 'telemetry.read'
      const mayRead = this.actor.permissions.has(permission)
      const device = mayRead ? await this.#parts.findDevice(this.actor.scope, command.deviceId) : undefined
      if (!device) return this.#refuse(id, compatErrors.forbidden, mayRead ? 'device not found' : 'no permission')
      const source = { store: this.#parts.store, scope: this.actor.scope, deviceId: device.id }
      if (command.do === 'history') this.#queue.push({ id, values: await readHistory(source, command, device.timeZone) })
      else await this.#subscribe(command, source, device.timeZone)
    } catch (error) {
      this.#end(id)
      if (error instanceof ProblemError && error.status < 500) {
        const details = error.errors?.map(({ detail }) => detail).join(' ')
        return this.#refuse(id, compatErrors.badRequest, details || error.message)
      }
      this.#parts.log.error({ err: error }, 'a command of a compatible WebSocket failed')
      this.#refuse(id, compatErrors.internal, 'internal error')
    }
  }

  async #subscribe(command: Telemetry | AttributeCommand, source: Source, timeZone: string): Promise<void> {
    const { id } = command
    this.#end(id)
    if (this.#subscriptions.size >= maxSubscriptions) {
      return this.#refuse(id, compatErrors.badRequest, `a socket has at most ${maxSubscriptions} subscriptions`)
    }
    // Listens before it reads, so that nothing is lost in between; what comes early is looked at after the first answer.
    const update = {}
    const feed = command.what === 'telemetry' ? new PointFeed(command) : new AttributeFeed(command)
    const deliver = (values: CompatValues) => {
      if (values.size > 0) this.#queue.push({ id, values, update })
    }
    const end = this.#parts.topics.watch(source.deviceId, feed.watch(deliver))
    this.#subscriptions.set(id, () => {
      end()
      this.#queue.drop(update)
    })
    this.#queue.push({ id, values: await this.#readFirst(command, source, timeZone, feed) })
    feed.open()
  }

  async #readFirst(
    command: Telemetry | AttributeCommand,
    source: Source,
    timeZone: string,
    feed: PointFeed | AttributeFeed,
  ): Promise<CompatValues> {
    const values: CompatValues = new Map()
    if (command.what === 'attributes') {
      for (const scope of command.scopes ?? attributeScopes) {
        const { attributes } = this.#parts
        const found = attributes.listAll(source.scope, source.deviceId, scope, command.keys)
        for await (const one of found) keepNewest(values, one.key, [one.updatedAt, toCompatJsonText(one, false)])
      }
      return values
    }
    const latest = await readLatest(source, command.keys)
    for (const point of latest) values.set(point.key, [[point.ts, toCompatJsonText(point, false)]])
    feed.knows(values)
    return command.stretch ? readHistory(source, { ...command, stretch: command.stretch }, timeZone) : values
  }

  #end(id: number): void {
    this.#subscriptions.get(id)?.()
    this.#subscriptions.delete(id)
  }

  #refuse(id: number, code: number, message: string): void {
    this.#socket.send(formatError(id, code, message))
  }
}

/** The points of a device as one client wants them; holds back what comes before the first answer. */
class PointFeed {
  readonly #command: Telemetry
  readonly #keys: ReadonlySet<string> | undefined
  /** The newest value of each key that the client knows. */
  readonly #newest: CompatValues = new Map()
  #early: Stored[] | undefined = []
  #deliver: (values: CompatValues) => void = () => {}

  constructor(command: Telemetry) {
    this.#command = command
    this.#keys = command.keys && new Set(command.keys)
  }

  watch(deliver: (values: CompatValues) => void): { message: (stored: Stored) => void } {
    this.#deliver = deliver
    return { message: (stored) => (this.#early ? this.#early.push(stored) : deliver(this.#take(stored))) }
  }

  knows(values: CompatValues): void {
    for (const [key, [newest]] of values) if (newest) this.#newest.set(key, [newest])
  }

  open(): void {
    const early = this.#early ?? []
    this.#early = undefined
    for (const stored of early) this.#deliver(this.#take(stored, true))
  }

  /** One message: with scope LATEST_TELEMETRY nothing that is older than what the client knows [W-4]. */
  #take({ points }: Stored, isEarly = false): CompatValues {
    const values: CompatValues = new Map()
    for (const point of points) {
      const { key, ts } = point
      if (this.#keys && !this.#keys.has(key)) continue
      const value = [ts, toCompatJsonText(point, false)] as const
      const known = this.#newest.get(key)?.[0]
      // What came early may be in the first answer already.
      if (isEarly && known?.[0] === ts && known[1] === value[1]) continue
      if (!this.#command.isLatestOnly) addValue(values, key, value)
      else if (!known || ts >= known[0]) keepNewest(values, key, value)
      keepNewest(this.#newest, key, value)
    }
    if (!this.#command.isLatestOnly) for (const list of values.values()) list.sort(([one], [other]) => other - one)
    return values
  }
}

/** The attributes of a device as one client wants them; each change is one frame. */
class AttributeFeed {
  readonly #keys: ReadonlySet<string> | undefined
  readonly #scopes: readonly AttributeScope[] | undefined
  #early: AttributeChange[] | undefined = []
  #deliver: (values: CompatValues) => void = () => {}

  constructor({ keys, scopes }: AttributeCommand) {
    this.#keys = keys && new Set(keys)
    this.#scopes = scopes
  }

  watch(deliver: (values: CompatValues) => void): { attributes: (change: AttributeChange) => void } {
    this.#deliver = deliver
    return { attributes: (change) => (this.#early ? this.#early.push(change) : deliver(this.#take(change))) }
  }

  knows(): void {}

  open(): void {
    const early = this.#early ?? []
    this.#early = undefined
    // May repeat what is in the first answer: telling a value twice is better than losing a deletion.
    for (const change of early) this.#deliver(this.#take(change))
  }

  #take({ scope, values, deleted }: AttributeChange): CompatValues {
    const taken: CompatValues = new Map()
    if (this.#scopes && !this.#scopes.includes(scope)) return taken
    const isWanted = (key: string) => !this.#keys || this.#keys.has(key)
    for (const one of values) if (isWanted(one.key)) taken.set(one.key, [[one.updatedAt, toCompatJsonText(one, false)]])
    // A deleted attribute is an empty text of no time, as ThingsBoard tells it.
    for (const key of deleted) if (isWanted(key)) taken.set(key, [[0, '""']])
    return taken
  }
}

/** @throws {ProblemError} `VALIDATION_FAILED`, `RANGE_TOO_LARGE` */
async function readHistory(
  source: Source,
  { keys, stretch }: { keys: string[] | undefined; stretch: Telemetry['stretch'] & object },
  timeZone: string,
): Promise<CompatValues> {
  const values: CompatValues = new Map()
  const wanted = keys ?? (await readLatest(source, undefined)).map(({ key }) => key)
  if (wanted.length === 0) return values
  let count = 0
  for await (const block of readValues(source, planValues({ ...stretch, key: wanted }, timeZone))) {
    count += block.values.length
    if (count > maxValues) throw new ProblemError('RANGE_TOO_LARGE', { params: { limit: maxValues } })
    for (const { ts, text } of block.values) addValue(values, block.key, [ts, text])
  }
  return values
}

function addValue(values: CompatValues, key: string, value: readonly [ts: number, text: string]): void {
  const list = values.get(key)
  if (list) list.push(value)
  else values.set(key, [value])
}
