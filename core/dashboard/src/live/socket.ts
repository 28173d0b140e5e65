// SPDX-License-Identifier: AGPL-3.0-only
import { readFrame } from './topics.ts'
import type { Topic, Topics } from './topics.ts'

/** Waits before the next try, ±20 % [D-39]. */
const retryMs = [500, 1000, 2000, 4000, 8000, 15_000]
const pingMs = 10_000
/** No pong for this long means the line is dead [D-39]. */
const lostMs = 20_000
/** So many failures while HTTP works mean that sockets do not get through here. */
const giveUpFailures = 3

export type LiveStatus = 'idle' | 'connecting' | 'open' | 'polling'

export type Listener = {
  items(items: unknown[]): void
  /**
   * Something was told to nobody: what is shown has to be fetched again. `isFirst`: all that is missing is what
   * happened since the page's own fetch; a stream that begins with what is current has made up for it.
   */
  resync?(isFirst: boolean): void
}

type Subscription = {
  id: string
  topic: Topic
  params: object
  listeners: Set<Listener>
  isOpen: boolean
  /** The server has said that items come, on this line or on one before it. */
  isKnown: boolean
}

export type SocketOptions = {
  /** A fresh one-time address, or undefined when nobody is signed in. */
  address(): Promise<URL | undefined>
  status(status: LiveStatus): void
  sessionEnded(): void
  /** Something happened that concerns the whole application. */
  event(topic: string): void
}

/** One WebSocket per tab for everything [D-37]. Equal subscriptions share one [D-38]. */
export class LiveSocket {
  readonly #options: SocketOptions
  readonly #subscriptions = new Map<string, Subscription>()
  #socket: WebSocket | undefined
  #isStarted = false
  #isSuspended = false
  #failures = 0
  #attempt = 0
  #isConnecting = false
  #nextId = 1
  #retryTimer: ReturnType<typeof setTimeout> | undefined
  #pingTimer: ReturnType<typeof setInterval> | undefined
  #lastPong = 0

  constructor(options: SocketOptions) {
    this.#options = options
  }

  start(): void {
    if (this.#isStarted) return
    this.#isStarted = true
    void this.#connect()
  }

  /** Goes on after a pause in which nobody was signed in. */
  wake(): void {
    if (!this.#isStarted || this.#isConnecting || this.#socket) return
    clearTimeout(this.#retryTimer)
    this.#attempt = 0
    void this.#connect()
  }

  stop(): void {
    this.#isStarted = false
    clearTimeout(this.#retryTimer)
    clearInterval(this.#pingTimer)
    const socket = this.#socket
    this.#socket = undefined
    socket?.close(1000)
    this.#failures = 0
    this.#options.status('idle')
  }

  /** @returns the function that ends it */
  subscribe<T extends Topic>(topic: T, params: Topics[T]['params'], listener: Listener): () => void {
    const key = `${topic} ${JSON.stringify(params)}`
    let subscription = this.#subscriptions.get(key)
    if (!subscription) {
      subscription = { id: String(this.#nextId++), topic, params, listeners: new Set(), isOpen: false, isKnown: false }
      this.#subscriptions.set(key, subscription)
      this.#open(subscription)
    } else if (subscription.isKnown) {
      // It was begun for others: this listener heard nothing of its beginning.
      listener.resync?.(false)
    }
    subscription.listeners.add(listener)
    return () => {
      subscription.listeners.delete(listener)
      if (subscription.listeners.size > 0 || this.#subscriptions.get(key) !== subscription) return
      this.#subscriptions.delete(key)
      if (subscription.isOpen) this.#send({ op: 'unsub', id: subscription.id })
    }
  }

  /** A tab nobody looks at needs no stream [D-38]. */
  suspend(isHidden: boolean): void {
    if (this.#isSuspended === isHidden) return
    this.#isSuspended = isHidden
    for (const subscription of this.#subscriptions.values()) {
      if (isHidden && subscription.isOpen) {
        this.#send({ op: 'unsub', id: subscription.id })
        subscription.isOpen = false
      } else if (!isHidden) this.#open(subscription)
    }
  }

  #open(subscription: Subscription): void {
    if (this.#isSuspended || this.#socket?.readyState !== 1) return
    subscription.isOpen = true
    this.#send({ op: 'sub', id: subscription.id, topic: subscription.topic, params: subscription.params })
  }

  #send(frame: object): void {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame))
  }

  async #connect(): Promise<void> {
    this.#options.status('connecting')
    this.#isConnecting = true
    let url: URL | undefined
    try {
      url = await this.#options.address()
    } catch {
      // The server is away; HTTP failing is no sign that sockets do not get through.
      if (this.#isStarted) this.#retry()
      return
    } finally {
      this.#isConnecting = false
    }
    if (!this.#isStarted || !url) return
    const socket = new WebSocket(url)
    this.#socket = socket
    let wasOpen = false
    socket.addEventListener('open', () => {
      wasOpen = true
      this.#opened(socket)
    })
    socket.addEventListener('message', (event: MessageEvent<unknown>) => this.#receive(event.data))
    socket.addEventListener('close', (event) => {
      if (this.#socket !== socket) return
      this.#socket = undefined
      clearInterval(this.#pingTimer)
      for (const subscription of this.#subscriptions.values()) subscription.isOpen = false
      if (!this.#isStarted) return
      if (event.code === 4401) this.#options.sessionEnded()
      if (!wasOpen) this.#failures++
      this.#retry()
    })
  }

  #opened(socket: WebSocket): void {
    this.#failures = 0
    this.#attempt = 0
    this.#lastPong = Date.now()
    this.#options.status('open')
    this.#pingTimer = setInterval(() => {
      if (Date.now() - this.#lastPong > lostMs) socket.close(4000)
      else this.#send({ op: 'ping', t: Date.now() })
    }, pingMs)
    // What happened meanwhile was told to nobody.
    this.#options.event('open')
    for (const subscription of this.#subscriptions.values()) this.#open(subscription)
  }

  #retry(): void {
    this.#options.status(this.#failures >= giveUpFailures ? 'polling' : 'connecting')
    const wait = retryMs[Math.min(this.#attempt++, retryMs.length - 1)]! * (0.8 + Math.random() * 0.4)
    clearTimeout(this.#retryTimer)
    this.#retryTimer = setTimeout(() => void this.#connect(), wait)
  }

  #resync(subscription: Subscription, isFirst = false): void {
    for (const listener of subscription.listeners) listener.resync?.(isFirst)
  }

  #receive(text: unknown): void {
    const frame = readFrame(text)
    if (!frame) return
    if (frame.op === 'pong') {
      this.#lastPong = Date.now()
      return
    }
    if (frame.op === 'event') {
      if (frame.topic === 'session') this.#options.sessionEnded()
      else this.#options.event(frame.topic)
      return
    }
    for (const subscription of this.#subscriptions.values()) {
      if (subscription.id !== frame.id) continue
      if (frame.op === 'ok') {
        // Only now nothing is missed any more; what happened before, first or after a loss, is fetched [D-39].
        const isFirst = !subscription.isKnown
        subscription.isKnown = true
        this.#resync(subscription, isFirst)
      }
      // Refused, such as for a device that is gone: fetching tells the page what there is.
      if (frame.op === 'resync' || frame.op === 'err') this.#resync(subscription)
      if (frame.op === 'data') for (const listener of subscription.listeners) listener.items(frame.items)
    }
  }
}
