// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Clock } from '../clock.ts'
import type { Commands } from '../commands/commands.ts'
import type { CommandMessage, CommandReceiver } from '../commands/lane.ts'
import { readAnswer, stale } from '../commands/mqtt-commands.ts'
import { ProblemError } from '../errors.ts'
import { problems } from '../http/schemas.ts'
import { plainAddress } from '../http/client-address.ts'
import type { DownlinkProgress } from './downlink.ts'
import { sendPoll, withinCommitWait } from './http.ts'
import type { DeviceCalls } from './http.ts'
import type { LongPolls } from './long-polls.ts'
import type { Device } from './registry.ts'
import type { Reject } from './rejects.ts'

export type HttpRpcParts = {
  commands: Commands
  polls: LongPolls
  clock: Clock
  active: (device: Device) => void
  /** For the reject log of the device. */
  refused: (device: Device, address: string, reject: Reject) => void
}

const tags = ['device api']
const config = { public: true, beforeSetup: true } as const
const token = Type.String({ maxLength: 128 })
/** [H-4] */
const maxAnswerBytes = 65_536
const largestId = 2 ** 31 - 1

/** Commands over HTTP (device API §11): a device waits for the next one, and answers it. */
export function httpRpcCalls({ commands, polls, clock, active, refused }: HttpRpcParts): DeviceCalls {
  return (scope, findDevice) => {
    scope.get(
      '/api/v1/:token/rpc',
      {
        config: { ...config, waits: true },
        exposeHeadRoute: false,
        schema: {
          tags,
          summary: 'A device waits for the next command',
          params: Type.Object({ token }),
          querystring: Type.Object({ timeout: Type.Optional(Type.Integer({ minimum: 0 })) }),
          security: [],
          response: { 200: Type.Unknown(), ...problems(400, 401, 408, 429, 503) },
        },
      },
      async (request, reply) => {
        const device = findDevice(request)
        active(device)
        const receiver = new PollReceiver(polls, device.id)
        reply.raw.once('finish', () => receiver.end('written'))
        reply.raw.once('close', () => receiver.end('closed'))
        return sendPoll(reply, (signal) => {
          const answered = polls.wait(device, 'rpc', request.query.timeout ?? 0, signal)
          receiver.isOpen = polls.has(device.id, 'rpc')
          commands.attach(device, receiver)
          return answered.finally(() => {
            receiver.isOpen = false
            commands.detach(device, receiver)
          })
        })
      },
    )
    scope.post(
      '/api/v1/:token/rpc/:requestId',
      {
        config,
        bodyLimit: maxAnswerBytes,
        schema: {
          tags,
          summary: 'A device answers a command',
          params: Type.Object({ token, requestId: Type.String({ maxLength: 20 }) }),
          security: [],
          response: { 200: Type.Unknown(), ...problems(400, 401, 413, 415, 429, 503) },
        },
      },
      async (request, reply) => {
        const device = findDevice(request)
        active(device)
        const refuse = (reject: Reject) => refused(device, plainAddress(request.ip), reject)
        const id = readId(request.params.requestId)
        const answer = readAnswer(Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0))
        const reject = id === undefined ? badId : typeof answer === 'string' ? undefined : answer
        if (id === undefined || typeof answer !== 'string') {
          refuse(reject!)
          throw new ProblemError('SHAPE_INVALID', { errors: [{ pointer: '', code: reject!.code, detail: reject!.detail }] })
        }
        //
        if (!(await withinCommitWait(clock, commands.answer(device, id, answer)))) refuse(stale)
        return reply.code(200).header('content-length', '0').send()
      },
    )
  }
}

const badId: Reject = { code: 'SHAPE_INVALID', detail: `the path ends in a decimal number of at most ${largestId}` }

function readId(text: string): number | undefined {
  return /^(?:0|[1-9]\d{0,9})$/.test(text) && Number(text) <= largestId ? Number(text) : undefined
}

/** Takes one command; it is delivered when the answer to the poll has been written. */
class PollReceiver implements CommandReceiver {
  readonly acknowledges = false
  isOpen = false
  readonly #polls: LongPolls
  readonly #deviceId: string
  #done: ((progress: DownlinkProgress) => void) | undefined

  constructor(polls: LongPolls, deviceId: string) {
    this.#polls = polls
    this.#deviceId = deviceId
  }

  get room(): number {
    return this.isOpen && this.#done === undefined ? 1 : 0
  }

  send({ no, method, params }: CommandMessage, done: (progress: DownlinkProgress) => void): () => boolean {
    const text = `{"id":${no},"method":${JSON.stringify(method)},"params":${params}}`
    if (this.isOpen && this.#polls.answer(this.#deviceId, 'rpc', text)) this.#done = done
    else queueMicrotask(() => done('closed'))
    return () => false
  }

  close(): void {
    this.end('closed')
  }

  /** The request is over: written, or broken off before that. */
  end(progress: 'written' | 'closed'): void {
    const done = this.#done
    this.#done = undefined
    this.isOpen = false
    done?.(progress)
  }
}
