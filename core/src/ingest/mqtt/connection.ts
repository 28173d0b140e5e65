// SPDX-License-Identifier: AGPL-3.0-only
import type { Duplex } from 'node:stream'
import type { DisconnectReason } from '../sessions.ts'
import { closings, encodeAcceptance, encodeDisconnect, encodeRefusal, reason } from './answers.ts'
import type { ConnectRefusal } from './answers.ts'
import type { ConnectionContext, Login, Peer } from './connection-context.ts'
import { judgeConnect } from './connect.ts'
import type { Connect, Credentials } from './connect.ts'
import type { Conversation, Hold, Mistake } from './conversation.ts'
import { DeviceConversation } from './device-conversation.ts'
import { FrameSplitter } from './frames.ts'
import type { FrameProblem } from './frames.ts'
import { Output } from './output.ts'
import { packetType } from './packets.ts'
import { ProvisioningSession } from './provisioning-session.ts'

const connectByte = packetType.connect << 4

/**
 * One socket from its first byte to its end: waits for CONNECT, then serves the session. Reading
 * stops while the session must be slowed down [M-32]; everything that waits then stays in the
 * splitter and in the kernel.
 */
export class Connection {
  readonly address: string
  /** Already on the endpoint's list of connections to flush. */
  isDirty = false
  readonly #context: ConnectionContext
  readonly #socket: Duplex
  readonly #peer: Peer
  readonly #splitter: FrameSplitter
  readonly #output: Output
  #state: 'connecting' | 'refusing' | 'open' | 'closing' | 'closed' = 'connecting'
  /** When the state began; while refusing, when the answer is due. */
  #since: number
  /** There while open and after. */
  #conversation: Conversation | undefined
  #lastPacketAt: number
  /** When the first byte of an unfinished packet came, 0 when there is none. */
  #partialSince = 0
  #unsentSince = 0
  #isPaused = false
  /** The CONNECT is here, and what it leads to is being looked up. */
  #isLoggingIn = false
  /** A message that came too fast and waits for its turn, with all that came after it. */
  #held: Buffer | undefined
  #isDraining = false

  constructor(context: ConnectionContext, socket: Duplex, peer: Peer, since: number) {
    this.#context = context
    this.#socket = socket
    this.#peer = peer
    this.address = peer.address
    this.#splitter = new FrameSplitter(context.limits.connectBytes)
    this.#output = new Output(socket)
    this.#since = since
    this.#lastPacketAt = since
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('drain', () => this.flush())
    socket.on('close', () => this.#onClose())
    socket.resume()
  }

  get isProvisioning(): boolean {
    return this.#conversation instanceof ProvisioningSession
  }

  /** Handles what has been read as far as it may be, then reads on or pauses. */
  pump(): void {
    try {
      this.#pump()
    } catch (err) {
      this.#crash(err)
    }
  }

  /** Writes the answers that are due, and goes on reading if they were what it waited for. */
  flush(): void {
    try {
      if (this.#state !== 'open') return
      const conversation = this.#conversation!
      const failure = conversation.writeAnswers()
      if (failure !== undefined) return failure === 'close' ? this.#close('protocol') : this.#fail(failure)
      this.#output.flush()
      if (this.#isDraining && conversation.isIdle) this.#close('shutdown')
      else if (this.#isPaused) this.#pump()
    } catch (err) {
      this.#crash(err)
    }
  }

  /** Ends the session for a reason from outside [M-17], [M-19]. */
  close(why: DisconnectReason): void {
    this.#close(why)
  }

  /** Stops reading, answers what is pending, then says that the server stops [M-20]. */
  drain(): void {
    this.#isDraining = true
    if (this.#state === 'connecting' || this.#state === 'refusing') this.destroy()
    else this.flush()
  }

  destroy(): void {
    this.#socket.destroy()
  }

  /** Looks at the time limits. `isAfterPause`: the process itself stood still, so nobody is late [RE-51]. */
  tick(now: number, isAfterPause: boolean): void {
    try {
      this.#tick(now, isAfterPause)
    } catch (err) {
      this.#crash(err)
    }
  }

  #receive(chunk: Buffer): void {
    if (this.#state !== 'connecting' && this.#state !== 'open') return
    this.#splitter.push(chunk)
    this.pump()
  }

  #pump(): void {
    const now = this.#context.clock.monotonic()
    while (!this.#isLoggingIn && (this.#state === 'connecting' || this.#state === 'open')) {
      const first = this.#splitter.peek()
      if (this.#state === 'connecting' && first !== -1 && first !== connectByte) return this.destroy()
      if (this.#state === 'open' && this.#mustWait(first)) return this.#pause()
      const frame = this.#splitter.next()
      if (frame === undefined) break
      if (typeof frame === 'string') return this.#onFrameProblem(frame)
      this.#partialSince = 0
      this.#lastPacketAt = now
      if (this.#state === 'connecting') this.#onConnect(frame)
      else this.#onPacket(frame, first >> 4, this.#splitter.bodyAt)
    }
    if (this.#isLoggingIn || (this.#state !== 'connecting' && this.#state !== 'open')) return
    if (this.#splitter.waiting > 0 && this.#partialSince === 0) this.#partialSince = now
    this.#resume(now)
  }

  /** Only a PUBLISH has to wait for room: a PING behind a full buffer is still answered [M-29]. */
  #mustWait(firstByte: number): boolean {
    if (this.#isDraining || this.#held !== undefined || this.#output.unsent > this.#context.limits.unsentBytes) return true
    return firstByte >> 4 === packetType.publish && this.#conversation!.mustWait(this.#waitForRoom)
  }

  readonly #waitForRoom = () => this.#context.waitForRoom(this)

  #pause(): void {
    this.#isPaused = true
    this.#socket.pause()
  }

  #resume(now: number): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    this.#restartTimers(now)
    this.#socket.resume()
  }

  #restartTimers(now: number): void {
    this.#lastPacketAt = now
    if (this.#partialSince !== 0) this.#partialSince = now
  }

  #onConnect(frame: Buffer): void {
    this.#context.leaveUnauthenticated(this)
    const judged = judgeConnect(frame, this.#splitter.bodyAt)
    if (judged.status === 'malformed') return this.destroy()
    if (judged.status === 'refused') return this.#refuse(judged.protocol, judged.refusal, judged.credentials)
    const login = this.#context.login(judged.connect, this.#peer)
    if (login instanceof Promise) this.#awaitLogin(judged.connect, login)
    else this.#onLogin(judged.connect, login)
  }

  /** [M-7] What comes meanwhile is read as far as it is here already, and handled after the answer. */
  #awaitLogin(connect: Connect, login: Promise<Login>): void {
    this.#isLoggingIn = true
    this.#pause()
    login.then(
      (result) => {
        this.#isLoggingIn = false
        if (this.#state !== 'connecting') return
        try {
          this.#onLogin(connect, result)
          this.#pump()
        } catch (err) {
          this.#crash(err)
        }
      },
      (err: unknown) => this.#crash(err),
    )
  }

  #onLogin(connect: Connect, login: Login): void {
    if ('refusal' in login) return this.#refuse(connect.protocol, login.refusal, connect.credentials)
    const changed = () => this.#context.markDirty(this)
    const output = this.#output
    if ('provision' in login) {
      const { clock, limits, log } = this.#context
      const { address } = this
      return this.#accept(
        connect,
        new ProvisioningSession({ connect, output, address, handle: login.provision, changed, clock, limits, log }),
      )
    }
    const close = (why: DisconnectReason) => this.#close(why)
    const conversation = new DeviceConversation(this.#context, {
      connect,
      device: login.device,
      peer: this.#peer,
      output,
      changed,
      close,
    })
    this.#accept(connect, conversation)
    this.#context.sessions.open(conversation.session)
  }

  #refuse(protocol: number, refusal: ConnectRefusal, credentials: Credentials | undefined): void {
    const delayMs = this.#context.noteRefusal(this.address, refusal, credentials)
    if (delayMs === undefined) return this.destroy()
    this.#output.add(encodeRefusal(refusal, protocol))
    this.#state = 'refusing'
    this.#since = this.#context.clock.monotonic() + delayMs
    if (delayMs === 0) this.#end()
    else this.#socket.pause()
  }

  #accept(connect: Connect, conversation: Conversation): void {
    const { limits } = this.#context
    this.#conversation = conversation
    this.#state = 'open'
    this.#splitter.limit = limits.payloadBytes
    this.#output.add(encodeAcceptance(connect, conversation.keepAliveS, limits))
    this.#context.markDirty(this)
  }

  #onPacket(frame: Buffer, type: number, bodyAt: number): void {
    const ending = this.#conversation!.serve({ frame, type, bodyAt })
    if (ending === undefined) {
      // A message that only waits for its commit has nothing to write yet.
      if (!this.#output.isEmpty) this.#context.markDirty(this)
    } else if (ending === 'client') this.#close('client')
    else if ('until' in ending) this.#hold(frame, bodyAt, ending)
    else this.#fail(ending)
  }

  #hold(frame: Buffer, bodyAt: number, { until, thenCloses }: Hold): void {
    // Alone in its memory, which it may hold for a minute.
    this.#held = Buffer.allocUnsafeSlow(frame.length)
    frame.copy(this.#held)
    until(() => {
      const held = this.#held
      this.#held = undefined
      if (held === undefined || this.#state !== 'open') return
      if (thenCloses) return this.#close('protocol')
      try {
        this.#onPacket(held, packetType.publish, bodyAt)
        this.#pump()
      } catch (err) {
        this.#crash(err)
      }
    })
  }

  #onFrameProblem(problem: FrameProblem): void {
    if (this.#state === 'connecting') return this.destroy()
    const { payloadBytes } = this.#context.limits
    if (problem === 'bad_length') this.#fail({ code: reason.malformedPacket, detail: 'length of more than four bytes' })
    else this.#fail({ code: reason.packetTooLarge, detail: `a packet may have ${payloadBytes} bytes`, logCode: 'PACKET_TOO_LARGE' })
  }

  /** Logs a mistake of the client that its session can't go on after, and closes [M-42]. */
  #fail(mistake: Mistake): void {
    this.#conversation?.record(mistake)
    this.#close('protocol', { code: mistake.code, text: mistake.detail })
  }

  #close(why: DisconnectReason, { code, text } = closings[why]): void {
    if (this.#state !== 'open') return
    const { protocol, maxPacketSize } = this.#conversation!
    if (why !== 'client' && protocol === 5) this.#output.add(encodeDisconnect(code, text, maxPacketSize))
    this.#end()
    this.#conversation!.end(why)
  }

  /** Sends what is left, then lets the client close: closing at once could lose our last packet. */
  #end(): void {
    this.#state = 'closing'
    this.#since = this.#context.clock.monotonic()
    this.#output.end()
    this.#socket.resume()
  }

  #onClose(): void {
    if (this.#state === 'connecting' && !this.#isLoggingIn) this.#context.leaveUnauthenticated(this)
    const wasOpen = this.#state === 'open'
    this.#state = 'closed'
    this.#held = undefined
    if (wasOpen) this.#conversation!.end('network')
    this.#context.closed(this)
  }

  #crash(err: unknown): void {
    const deviceId = this.#conversation instanceof DeviceConversation ? this.#conversation.session.device.id : undefined
    this.#context.log.error({ err, address: this.address, deviceId }, 'connection failed')
    this.destroy()
  }

  #tick(now: number, isAfterPause: boolean): void {
    const { limits } = this.#context
    if (isAfterPause && this.#state !== 'refusing') {
      this.#since = now
      this.#restartTimers(now)
    }
    switch (this.#state) {
      case 'connecting':
        if (!this.#isLoggingIn && now - this.#since > limits.connectMs) this.destroy()
        return
      case 'refusing':
        if (now >= this.#since) this.#end()
        return
      case 'closing':
        if (now - this.#since > limits.lingerMs) this.destroy()
        return
      case 'open':
        return this.#tickOpen(now)
      case 'closed':
    }
  }

  #tickOpen(now: number): void {
    const { limits, pausesKeepAlive } = this.#context
    const conversation = this.#conversation!
    const overdue = conversation.findOverdue(now)
    if (overdue !== undefined) return this.#close('admin', overdue)
    if (this.#output.unsent <= limits.unsentBytes) this.#unsentSince = 0
    else if (this.#unsentSince === 0) this.#unsentSince = now
    else if (now - this.#unsentSince > limits.unsentMs) return this.#close('network')

    // Standing still while we don't read for our own reasons, and starting anew after [RE-51].
    if (this.#isPaused && pausesKeepAlive) return this.#restartTimers(now)
    const keepAliveMs = conversation.keepAliveS * 1000
    if (this.#partialSince !== 0) {
      const isLate = now - this.#partialSince > Math.max(limits.packetMs, keepAliveMs)
      if (isLate) this.#fail({ code: reason.malformedPacket, detail: 'the packet was not complete in time' })
      return
    }
    const patienceMs = keepAliveMs > 0 ? 1.5 * keepAliveMs : conversation.inactivityTimeoutMs
    if (now - this.#lastPacketAt > patienceMs) this.#close('keepalive')
  }
}
