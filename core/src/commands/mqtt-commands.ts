// SPDX-License-Identifier: AGPL-3.0-only
import type { DownlinkProgress } from '../ingest/downlink.ts'
import { isTooDeep, maxDepth } from '../ingest/json.ts'
import { rpcRequestFilters } from '../ingest/mqtt/topics.ts'
import type { Reject } from '../ingest/rejects.ts'
import { served } from '../ingest/requests.ts'
import type { RequestHandler } from '../ingest/requests.ts'
import type { Session, Sessions } from '../ingest/sessions.ts'
import type { Commands } from './commands.ts'
import type { CommandMessage, CommandReceiver } from './lane.ts'

/** As many as may be unacknowledged in a session [M-25]. */
const mqttRoom = 50

export const stale: Reject = { code: 'RPC_STALE', detail: 'no command with this number waits for an answer' }
const tooDeep: Reject = { code: 'JSON_TOO_DEEP', detail: `nested deeper than ${maxDepth} levels` }

/** Brings commands to MQTT sessions that have subscribed to them, in the form subscribed last [M-39]. */
export function serveMqttCommands(commands: Commands, sessions: Sessions): void {
  const receivers = new WeakMap<Session, CommandReceiver>()
  sessions.on('subscribed', (session, filters) => {
    if (!rpcRequestFilters.some((filter) => filters.includes(filter))) return
    const receiver = receivers.get(session) ?? new SessionReceiver(session)
    receivers.set(session, receiver)
    commands.attach(session.device, receiver)
  })
  sessions.on('closed', (session) => {
    const receiver = receivers.get(session)
    if (receiver) commands.detach(session.device, receiver)
  })
}

class SessionReceiver implements CommandReceiver {
  readonly #session: Session

  constructor(session: Session) {
    this.#session = session
  }

  /** None after the last of the filters was given up [M-36]. */
  get room(): number {
    return this.#filter === undefined ? 0 : mqttRoom
  }

  get acknowledges(): boolean {
    return this.#filter !== undefined && this.#session.subscriptions.get(this.#filter) !== 0
  }

  get #filter(): string | undefined {
    return this.#session.pushTopic(rpcRequestFilters)
  }

  send({ no, method, params }: CommandMessage, done: (progress: DownlinkProgress) => void): () => boolean {
    const topic = this.#session.pushTopic(rpcRequestFilters, no)
    if (topic === undefined) {
      queueMicrotask(() => done('closed'))
      return () => false
    }
    const payload = Buffer.from(`{"method":${JSON.stringify(method)},"params":${params}}`)
    return this.#session.send({ topic, payload, done })
  }

  close(): void {
    this.#session.close('admin')
  }
}

/** Takes answers of MQTT devices to commands. */
export function takeAnswers(commands: Commands): RequestHandler {
  return async ({ device, id, payload }) => {
    const answer = readAnswer(payload)
    if (typeof answer !== 'string') return { status: 'refused', reject: answer }
    return (await commands.answer(device, id, answer)) ? served : { status: 'refused', reject: stale }
  }
}

/**
 * The answer of a device as JSON text: JSON as it was sent, other text as a JSON string, nothing as null;
 * a refusal when it is nested too deep [M-26].
 */
export function readAnswer(payload: Buffer): string | Reject {
  const text = payload.toString('utf8').replace(/^\ufeff/, '')
  if (text.trim() === '') return 'null'
  if (isTooDeep(payload)) return tooDeep
  try {
    JSON.parse(text)
    return text
  } catch {
    return JSON.stringify(text)
  }
}
