// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../clock.ts'
import type { Device } from './registry.ts'

export type PollKind = 'attributes' | 'rpc'

/** How a poll ended: with an answer, or with nothing: its time was over, a newer poll took its place, the client left. */
export type PollEnd = { answer: string } | 'timeout' | 'replaced' | 'gone' | 'full'

type Poll = { device: Device; end: (how: PollEnd) => void }

/** Default and greatest time of a poll [H-3]. */
const usualMs = 60_000
const longestMs = 300_000
/** Open polls of all devices; more are told to come later. */
const mostPolls = 10_000

/** Requests of HTTP devices that wait for something to come, one per device and kind [H-3]. */
export class LongPolls {
  readonly #clock: Clock
  readonly #polls = new Map<string, Poll>()
  readonly #listeners = new Set<(device: Device, kind: PollKind) => void>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  has(deviceId: string, kind: PollKind): boolean {
    return this.#polls.has(`${kind} ${deviceId}`)
  }

  /** Calls back when a poll has begun, which is how a device without a session says that it listens. */
  onOpen(listener: (device: Device, kind: PollKind) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Waits for an answer; a poll of the same kind by the same device ends.
   * @param timeoutMs 0 stands for 60 s; at most 300 s
   */
  wait(device: Device, kind: PollKind, timeoutMs: number, signal: AbortSignal): Promise<PollEnd> {
    const name = `${kind} ${device.id}`
    this.#polls.get(name)?.end('replaced')
    if (this.#polls.size >= mostPolls) return Promise.resolve('full')
    return new Promise((resolve) => {
      const end = (how: PollEnd): void => {
        if (this.#polls.get(name) === poll) this.#polls.delete(name)
        cancel()
        signal.removeEventListener('abort', leave)
        resolve(how)
      }
      const leave = (): void => end('gone')
      const cancel = this.#clock.after(Math.min(timeoutMs || usualMs, longestMs), () => end('timeout'))
      const poll: Poll = { device, end }
      this.#polls.set(name, poll)
      if (signal.aborted) return leave()
      signal.addEventListener('abort', leave)
      for (const listener of this.#listeners) listener(device, kind)
    })
  }

  /** Answers the poll of a device. @returns false when it has none */
  answer(deviceId: string, kind: PollKind, text: string): boolean {
    const poll = this.#polls.get(`${kind} ${deviceId}`)
    poll?.end({ answer: text })
    return poll !== undefined
  }

  /** Ends all polls, so that the server can stop. */
  stop(): void {
    for (const poll of this.#polls.values()) poll.end('timeout')
  }
}
