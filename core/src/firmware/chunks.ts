// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { OtaKind } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { DownlinkProgress } from '../ingest/downlink.ts'
import { filterOf } from '../ingest/mqtt/topics.ts'
import type { Log } from '../log.ts'
import type { DeviceRequest, RequestHandler } from '../ingest/requests.ts'
import { served } from '../ingest/requests.ts'
import type { Session } from '../ingest/sessions.ts'
import type { Outcome } from '../ingest/uplink.ts'
import type { Contents } from './contents.ts'
import { prefixOf } from './keys.ts'
import type { OtaTargets, Target } from './targets.ts'

export type ChunkParts = { targets: OtaTargets; contents: Contents; clock: Clock; log: Log }

/** [O-5] The largest chunk, our `maxPayloadSize`, and the largest file that is sent in one piece. */
const maxChunkBytes = 65_536
const maxWholeBytes = 16_777_216
/** Pieces larger than a chunk that are in memory at a time, all devices together. */
const wholeBudgetBytes = 33_554_432
/** Requests of a session that wait for their answer; beyond this its PUBLISHes wait for their PUBACK. */
const mostWaiting = 1000
/** Downloads a session is remembered to have begun; a client that counts its `{id}` up for each chunk begins many. */
const mostDownloads = 64
/** A chunk that is not acknowledged by then does not hold the next one any longer. */
const patienceMs = 10_000

const notDecimal: Outcome = {
  status: 'refused',
  reject: { code: 'SHAPE_INVALID', detail: 'expected the chunk size in bytes as decimal text, or nothing' },
}

/** A download as its `{id}` began it: later assignments do not change it [O-4]. */
type Download = { target: Target; size: number }
type Job = () => Promise<void>

/** Requests for chunks of firmware and software over MQTT [O-4, O-5]. */
export function createChunkHandlers(parts: ChunkParts): { firmwareChunk: RequestHandler; softwareChunk: RequestHandler } {
  const budget = new ByteBudget(wholeBudgetBytes)
  const states = new WeakMap<Session, SessionDownloads>()
  const handle = (kind: OtaKind) => (request: DeviceRequest) => {
    const state = states.get(request.session) ?? new SessionDownloads(parts, budget, request.session)
    states.set(request.session, state)
    return state.serve(kind, request)
  }
  return { firmwareChunk: handle('firmware'), softwareChunk: handle('software') }
}

/**
 * What one session downloads. Answers leave one after the other, each when the one before has arrived: a
 * slow device has one chunk in memory, however many it has asked for.
 */
class SessionDownloads {
  readonly #parts: ChunkParts
  readonly #budget: ByteBudget
  readonly #session: Session
  readonly #downloads = new Map<string, Download>()
  /** Packages of which a chunk was sent in this session, and those sent to their end. */
  readonly #begun = new Set<string>()
  readonly #ended = new Set<string>()
  /** Errors that stand in the trace: one of a kind per session is enough. */
  readonly #told = new Set<string>()
  readonly #jobs: Job[] = []
  #isRunning = false
  #isClosed = false
  readonly #roomWaiters: (() => void)[] = []

  constructor(parts: ChunkParts, budget: ByteBudget, session: Session) {
    this.#parts = parts
    this.#budget = budget
    this.#session = session
  }

  serve(kind: OtaKind, { id, chunk = 0, payload }: DeviceRequest): Outcome | Promise<Outcome> {
    const text = payload.toString('latin1')
    if (!/^\d{0,15}$/.test(text)) return notDecimal
    const topic = `v2/${prefixOf[kind]}/response/${id}/chunk/${chunk}`
    const job = this.#prepare(kind, id, chunk, text === '' ? undefined : Number(text), topic)
    this.#jobs.push(job)
    if (!this.#isRunning) void this.#run()
    if (this.#jobs.length < mostWaiting) return served
    return new Promise((resolve) => this.#roomWaiters.push(() => resolve(served)))
  }

  #prepare(kind: OtaKind, id: number, chunk: number, asked: number | undefined, topic: string): Job {
    const key = `${kind} ${id}`
    const target = this.#parts.targets.find(this.#session.device.id, kind)
    const known = this.#downloads.get(key) ?? (target && { target, size: 0 })
    if (!known?.target.file.contentId) return () => this.#fail(kind, 'NOT_FOUND', known?.target)
    const { sizeBytes } = known.target.file
    // 0 stands for the whole file, as in the HTTP API.
    const size = asked ?? known.size
    if (size > maxChunkBytes || (size === 0 && sizeBytes! > maxWholeBytes)) {
      return () => this.#fail(kind, 'PAYLOAD_TOO_LARGE', known.target)
    }
    this.#remember(key, { target: known.target, size })
    known.target.lastAskedAt = this.#parts.clock.now()
    const step = size === 0 ? sizeBytes! : size
    const from = Math.min(chunk * step, sizeBytes!)
    return () => this.#answer(known.target, topic, from, Math.min(from + step, sizeBytes!))
  }

  #remember(key: string, download: Download): void {
    this.#downloads.delete(key)
    this.#downloads.set(key, download)
    const oldest = this.#downloads.keys().next()
    if (this.#downloads.size > mostDownloads && !oldest.done) this.#downloads.delete(oldest.value)
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    for (let job = this.#jobs.shift(); job; job = this.#jobs.shift()) {
      if (this.#jobs.length < mostWaiting) for (const resolve of this.#roomWaiters.splice(0)) resolve()
      if (this.#isClosed) continue
      await job().catch((error: unknown) =>
        this.#parts.log.warn({ err: error, device: this.#session.device.id }, 'a chunk could not be sent'),
      )
    }
    this.#isRunning = false
  }

  async #answer(target: Target, topic: string, from: number, to: number): Promise<void> {
    const release = to - from > maxChunkBytes ? await this.#budget.take(to - from) : undefined
    try {
      const payload = await this.#read(target, from, to)
      if (!payload) return await this.#fail(target.kind, 'NOT_FOUND', target)
      const progress = await this.#send(topic, payload)
      if (progress === 'too_large') await this.#fail(target.kind, 'PAYLOAD_TOO_LARGE', target)
      else if (progress === 'written' || progress === 'acknowledged') this.#noteSent(target, from, to)
    } finally {
      release?.()
    }
  }

  /** Undefined when the content is gone: taken away and deleted while the device was downloading it. */
  async #read({ scope, file }: Target, from: number, to: number): Promise<Buffer | undefined> {
    const content = { scope, contentId: file.contentId!, sizeBytes: file.sizeBytes! }
    const pieces: Buffer[] = []
    try {
      for await (const piece of this.#parts.contents.read(content, from, to)) pieces.push(piece)
    } catch (error) {
      if (error instanceof ProblemError && error.code === 'OTA_NOT_FOUND') return undefined
      throw error
    }
    return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces)
  }

  async #fail(kind: OtaKind, code: 'NOT_FOUND' | 'PAYLOAD_TOO_LARGE', target: Target | undefined): Promise<void> {
    if (target && !this.#told.has(code)) this.#parts.targets.addEvent(target, 'error', { code })
    this.#told.add(code)
    await this.#send(`v2/${prefixOf[kind]}/error`, Buffer.from(code))
  }

  /** Ends when the message has arrived as far as anybody can know, or never will. */
  #send(topic: string, payload: Buffer): Promise<DownlinkProgress> {
    return new Promise((resolve) => {
      let last: DownlinkProgress = 'dropped'
      const cancel = this.#parts.clock.after(patienceMs, () => resolve(last))
      const qos = this.#session.subscriptions.get(filterOf(topic)) === 0 ? 0 : 1
      const done = (progress: DownlinkProgress) => {
        last = progress
        if (progress === 'closed') this.#isClosed = true
        if (progress === 'written' && qos === 1) return
        cancel()
        resolve(progress)
      }
      this.#session.send({ topic, payload, qos, done })
    })
  }

  #noteSent(target: Target, from: number, to: number): void {
    const { targets } = this.#parts
    const { packageId, sizeBytes } = target.file
    if (to > from && !this.#begun.has(packageId)) {
      this.#begun.add(packageId)
      targets.addEvent(target, 'first_chunk', { from, bytes: to - from })
    }
    if (to === sizeBytes && to > from && !this.#ended.has(packageId)) {
      this.#ended.add(packageId)
      targets.addEvent(target, 'last_chunk', { bytes: sizeBytes })
    }
    targets.setSent(target, to)
  }
}

/** Lets so many bytes be in memory at a time; whoever asks first gets first. */
class ByteBudget {
  #left: number
  readonly #waiting: { bytes: number; go: () => void }[] = []

  constructor(bytes: number) {
    this.#left = bytes
  }

  /** @returns what gives the bytes back */
  async take(bytes: number): Promise<() => void> {
    if (this.#waiting.length > 0 || this.#left < bytes) await new Promise<void>((resolve) => this.#waiting.push({ bytes, go: resolve }))
    else this.#left -= bytes
    return () => this.#giveBack(bytes)
  }

  #giveBack(bytes: number): void {
    this.#left += bytes
    for (let next = this.#waiting[0]; next && next.bytes <= this.#left; next = this.#waiting[0]) {
      this.#left -= next.bytes
      this.#waiting.shift()
      next.go()
    }
  }
}
