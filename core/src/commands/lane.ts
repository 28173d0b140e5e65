// SPDX-License-Identifier: AGPL-3.0-only
import type { DownlinkProgress } from '../ingest/downlink.ts'
import type { Device } from '../ingest/registry.ts'
import type { Move, Moved } from './command-table.ts'

/** A command on its way: the number of its topic, and its method and params as JSON text. */
export type CommandMessage = { no: number; method: string; params: string }

/** What takes the commands of one device at the moment: an MQTT session, a poll over HTTP, a gateway for its child. */
export type CommandReceiver = {
  /** How many commands it takes now; 0 when it does not listen. */
  readonly room: number
  /** True when the device acknowledges what it gets: a command counts as delivered then, else when it is written. */
  readonly acknowledges: boolean
  /** Sends a command, and reports how far it got; the returned function takes it back, which works until it is written. */
  send(message: CommandMessage, done: (progress: DownlinkProgress) => void): () => boolean
  /** Ends the connection because of a missing acknowledgement. */
  close(): void
}

/** A command somebody waits for, in memory only. */
export type Call = CommandMessage & {
  oneway: boolean
  /** The JSON text of the answer, `undefined` for a one-way command that was written. */
  done(answer: string | undefined): void
  failed(why: 'too_large' | 'dropped'): void
}

export type LaneParts = {
  /** Stores moves in one commit, tells everybody, and repeats that while the database is away. */
  move(device: Device, moves: readonly Move[]): Promise<Moved[]>
  /** Takes commands that wait; none, and no query, when none do. */
  take(device: Device, limit: number, isNoted: boolean): Promise<Moved[]>
  /** @returns the command that has its answer by this, undefined when none waits for one */
  answer(device: Device, no: number, response: string): Promise<Moved | undefined>
  after(ms: number, callback: () => void): () => void
  /** The lane does nothing and waits for nothing: it may be forgotten. */
  idle(lane: Lane): void
  /** A step failed for a reason that waiting does not mend. */
  failed(error: unknown): void
}

/** A persistent command handed to a receiver and not delivered yet. */
type Flight = {
  message: CommandMessage
  id: string
  retries: number
  attempts: number
  receiver: CommandReceiver
  isWritten: boolean
  /** What came of it is known, and stored by the next step. */
  isOver: boolean
  withdraw: () => boolean
  cancelTimer: () => void
}
type HandedCall = { call: Call; isHanded: boolean; isWritten: boolean; withdraw: () => boolean }

const nothing = () => {}
const notYet = () => false

/**
 * The commands of one device, one step after the other: what was stored is sent, what the device has said is stored.
 * A step first commits and then acts, so that a crash between the two repeats a command and loses none.
 */
export class Lane {
  readonly device: Device
  readonly #parts: LaneParts
  readonly #receivers: CommandReceiver[] = []
  readonly #calls = new Map<number, HandedCall>()
  readonly #flights = new Map<string, Flight>()
  /** Moves that happened and are stored by the next step. */
  #moves: Move[] = []
  #isStepDue = false
  #turn: Promise<unknown> = Promise.resolve()
  #stepsOpen = 0
  /** The delivered command whose answer the next one waits for. */
  #awaited: { id: string; cancel: () => void } | undefined

  constructor(parts: LaneParts, device: Device) {
    this.#parts = parts
    this.device = device
  }

  /** Nothing is on its way, nobody listens and nobody waits. */
  get isIdle(): boolean {
    return this.#receivers.length === 0 && this.#calls.size === 0 && this.#flights.size === 0 && this.#stepsOpen === 0 && !this.#awaited
  }

  get hasReceiver(): boolean {
    return this.#receiver !== undefined
  }

  /** The newest of those who listen. */
  get #receiver(): CommandReceiver | undefined {
    return this.#receivers.findLast((receiver) => receiver.room > 0)
  }

  /** A receiver listens from now on; one that is known has begun to listen again. */
  attach(receiver: CommandReceiver): void {
    if (!this.#receivers.includes(receiver)) this.#receivers.push(receiver)
    this.wake()
  }

  /** Gets no more commands; those it has report their end by themselves. */
  detach(receiver: CommandReceiver): void {
    const at = this.#receivers.indexOf(receiver)
    if (at !== -1) this.#receivers.splice(at, 1)
  }

  /** Sends what waits, as far as the device takes it. */
  wake(): void {
    if (this.#isStepDue) return
    this.#isStepDue = true
    this.#run(async () => {
      this.#isStepDue = false
      await this.#store()
      await this.#deliver()
    })
  }

  /** @returns what gives the call up */
  call(call: Call): () => void {
    this.#calls.set(call.no, { call, isHanded: false, isWritten: false, withdraw: notYet })
    this.wake()
    return () => {
      this.#calls.get(call.no)?.withdraw()
      this.#calls.delete(call.no)
    }
  }

  /** The device has answered a command. @returns false when none of this number waits for an answer */
  async answer(no: number, response: string): Promise<boolean> {
    const called = this.#calls.get(no)
    if (called) {
      if (called.call.oneway) return false
      this.#calls.delete(no)
      called.call.done(response)
      return true
    }
    const answered = await this.#enqueue(async () => {
      // An acknowledgement that came just before is told only now, and has to be stored first.
      await this.#store()
      return this.#parts.answer(this.device, no, response)
    })
    if (answered) this.forget(answered.id)
    return answered !== undefined
  }

  /** A command has ended without this lane. */
  forget(id: string): void {
    const flight = this.#flights.get(id)
    flight?.cancelTimer()
    flight?.withdraw()
    this.#flights.delete(id)
    if (this.#awaited?.id === id) this.#endAwaiting()
    this.wake()
  }

  /** All steps that are under way. */
  async flush(): Promise<void> {
    while (this.#stepsOpen > 0) await this.#turn
  }

  stop(): void {
    for (const flight of this.#flights.values()) flight.cancelTimer()
    this.#awaited?.cancel()
  }

  #enqueue<T>(step: () => Promise<T>): Promise<T> {
    this.#stepsOpen++
    const result = this.#turn.then(step).finally(() => {
      this.#stepsOpen--
      if (this.isIdle) this.#parts.idle(this)
    })
    this.#turn = result.catch(nothing)
    return result
  }

  #run(step: () => Promise<void>): void {
    this.#enqueue(step).catch((error: unknown) => this.#parts.failed(error))
  }

  /** Stores what happened. */
  async #store(): Promise<void> {
    const moves = this.#moves
    this.#moves = []
    for (const { id } of moves) this.#flights.delete(id)
    const moved = await this.#parts.move(this.device, moves)
    for (const command of moved) if (command.state === 'DELIVERED' && !command.oneway) this.#awaitAnswer(command)
  }

  async #deliver(): Promise<void> {
    const receiver = this.#receiver
    if (!receiver) return
    const calls = [...this.#calls.values()].filter((one) => !one.isHanded).slice(0, receiver.room)
    const room = Math.min(receiver.room - calls.length, this.#roomFor(receiver))
    const taken = room > 0 ? await this.#parts.take(this.device, room, receiver.acknowledges) : []
    // In the order of their numbers, which is that of their creation.
    const sends = [
      ...calls.map((one) => ({ no: one.call.no, send: () => this.#sendCall(receiver, one) })),
      ...taken.map((command) => ({ no: command.no, send: () => this.#sendCommand(receiver, command) })),
    ].toSorted((a, b) => a.no - b.no)
    for (const { send } of sends) send()
    if (calls.length > 0 && calls.length === receiver.room) this.wake()
  }

  /** How many persistent commands may be on their way besides those that are. */
  #roomFor(receiver: CommandReceiver): number {
    if (this.device.settings.rpc.submit === 'burst') return receiver.room - this.#flights.size
    return this.#flights.size === 0 && !this.#awaited ? 1 : 0
  }

  #sendCall(receiver: CommandReceiver, handed: HandedCall): void {
    const { call } = handed
    // It may have been given up while others were read from the database.
    if (this.#calls.get(call.no) !== handed) return
    handed.isHanded = true
    handed.withdraw = receiver.send(call, (progress) => {
      if (this.#calls.get(call.no) !== handed) return
      if (progress === 'written') handed.isWritten = true
      if (progress === 'written' && call.oneway) {
        this.#calls.delete(call.no)
        call.done(undefined)
      } else if (progress === 'too_large' || progress === 'dropped') {
        this.#calls.delete(call.no)
        call.failed(progress)
      } else if (progress === 'closed' && !handed.isWritten) {
        handed.isHanded = false
        this.wake()
      }
    })
  }

  #sendCommand(receiver: CommandReceiver, command: Moved): void {
    const { id, no, method, params, retries, attempts } = command
    const flight: Flight = {
      message: { no, method, params },
      id,
      retries,
      attempts,
      receiver,
      isWritten: false,
      isOver: false,
      withdraw: notYet,
      cancelTimer: nothing,
    }
    this.#flights.set(id, flight)
    this.#send(flight)
  }

  #send(flight: Flight): void {
    flight.isWritten = false
    flight.withdraw = flight.receiver.send(flight.message, (progress) => this.#onProgress(flight, progress))
  }

  #onProgress(flight: Flight, progress: DownlinkProgress): void {
    if (!this.#isOnItsWay(flight)) return
    const { id, receiver } = flight
    switch (progress) {
      case 'written':
        flight.isWritten = true
        if (receiver.acknowledges) this.#startAckTimer(flight)
        else this.#note(flight, { id, state: 'DELIVERED' })
        return
      case 'acknowledged':
        return this.#note(flight, { id, state: 'DELIVERED' })
      case 'too_large':
        return this.#note(flight, { id, state: 'FAILED', detail: 'larger than the device takes' })
      case 'dropped':
        return this.#note(flight, { id, state: 'QUEUED', detail: 'too many messages waited for the device' })
      case 'closed':
        return this.#note(flight, { id, state: 'QUEUED', detail: 'the session ended' })
    }
  }

  /** The command is on its way no more; what came of it is stored by the next step. */
  #note(flight: Flight, move: Move): void {
    flight.cancelTimer()
    flight.isOver = true
    this.#moves.push(move)
    this.wake()
  }

  #isOnItsWay(flight: Flight): boolean {
    return !flight.isOver && this.#flights.get(flight.id) === flight
  }

  #startAckTimer(flight: Flight): void {
    flight.cancelTimer()
    flight.cancelTimer = this.#parts.after(this.device.settings.rpc.ackTimeoutMs, () => this.#onAckTimeout(flight))
  }

  /** */
  #onAckTimeout(flight: Flight): void {
    if (this.device.settings.rpc.closeOnAckTimeout) return flight.receiver.close()
    flight.attempts++
    if (flight.attempts <= flight.retries) return this.#run(() => this.#resend(flight))
    const detail = `not acknowledged, sent ${flight.attempts} times`
    this.#note(flight, { id: flight.id, state: 'FAILED', detail })
  }

  async #resend(flight: Flight): Promise<void> {
    const { id, attempts } = flight
    if (!this.#isOnItsWay(flight)) return
    const [late] = await this.#parts.move(this.device, [{ id, state: 'TIMEOUT', attempts }])
    // It has ended meanwhile.
    if (!late) return this.forget(id)
    await this.#parts.move(this.device, [{ id, state: 'SENT' }])
    if (!this.#isOnItsWay(flight)) return
    // One that is still behind others in the session needs no second copy there, only more time.
    if (flight.isWritten) this.#send(flight)
    else this.#startAckTimer(flight)
  }

  #awaitAnswer({ id }: Moved): void {
    const { submit, responseTimeoutMs } = this.device.settings.rpc
    if (submit !== 'sequential-response') return
    this.#awaited?.cancel()
    const cancel = this.#parts.after(responseTimeoutMs, () => {
      if (this.#awaited?.id !== id) return
      this.#endAwaiting()
      this.wake()
    })
    this.#awaited = { id, cancel }
  }

  #endAwaiting(): void {
    this.#awaited?.cancel()
    this.#awaited = undefined
  }
}
