// SPDX-License-Identifier: AGPL-3.0-only
import { Readable } from 'node:stream'
import type { FastifyRequest } from 'fastify'
import type { Audit } from '../audit.ts'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import type { App } from '../http/server.ts'
import type { Reject } from '../ingest/rejects.ts'
import type { Source } from './series.ts'
import type { LatestPoint, TelemetryStore } from './store.ts'

/** `timeZone`: the device's own zone, else the installation's. */
export type TelemetryDevice = { id: string; name: string; timeZone: string }

export type WriteOptions = {
  /** Numeric strings become numbers [V-17]. */
  cast: boolean
  /** Nothing is stored when any point is refused (§16.4). */
  allOrNothing: boolean
}

/** What the telemetry routes need from the parts that know devices and take in points. */
export type TelemetryParts = {
  store: TelemetryStore
  audit: Audit
  /** Undefined for devices the scope may not see. Only called with well-formed ids. */
  findDevice(scope: Scope, id: string): Promise<TelemetryDevice | undefined>
  /**
   * Takes in a telemetry message of §4.2 that a user sends for a device.
   * @throws {ProblemError} when the message as a whole is refused (`PAYLOAD_MALFORMED`, `SHAPE_INVALID`,
   *   `TOO_MANY_POINTS`) or can't be stored now (`STORE_UNAVAILABLE`)
   */
  writeAsUser(
    actor: Actor,
    deviceId: string,
    payload: Buffer,
    options: WriteOptions,
  ): Promise<{ accepted: number; rejected: readonly Reject[] }>
}

/** Text sent at a time; a shorter answer is sent whole, so that a failure still gets its status. */
const chunkLength = 65_536
/** Most details of one refusal. */
const maxListedRejects = 20

type Reply = { header(name: string, value: string): unknown; send(payload: unknown): unknown }

export const json = { 'content-type': 'application/json; charset=utf-8' }

/** `fileName` in any script; headers get a plain form beside it (RFC 6266). */
export async function sendFile(
  reply: Reply,
  { fileName, contentType, chunks }: { fileName: string; contentType: string; chunks: AsyncIterable<string | Buffer> },
): Promise<void> {
  await sendChunks(reply, chunks, {
    'content-type': contentType,
    'content-disposition': `attachment; filename="${fileName.replace(/[^ -~]/g, '_')}"; filename*=UTF-8''${encodeURIComponent(fileName)}`,
  })
}

/** Sends pieces as they are made, no faster than the reader takes them. */
export async function sendChunks(reply: Reply, pieces: AsyncIterable<string | Buffer>, headers: Record<string, string>): Promise<void> {
  const chunks = joinPieces(pieces)
  const first = await chunks.next()
  const second = first.done ? first : await chunks.next()
  for (const [name, value] of Object.entries(headers)) reply.header(name, value)
  if (second.done) {
    reply.send(first.value ?? '')
    return
  }
  const rest = async function* () {
    yield first.value ?? ''
    yield second.value
    yield* chunks
  }
  reply.send(Readable.from(rest(), { objectMode: false }))
}

async function* joinPieces(pieces: AsyncIterable<string | Buffer>): AsyncGenerator<string | Buffer, undefined> {
  let text = ''
  let bytes: Buffer[] = []
  let length = 0
  // An answer is made of texts or of bytes, never of both.
  const held = () => (bytes.length > 0 ? Buffer.concat(bytes) : text)
  for await (const piece of pieces) {
    if (typeof piece === 'string') text += piece
    else bytes.push(piece)
    length += piece.length
    if (length < chunkLength) continue
    yield held()
    text = ''
    bytes = []
    length = 0
  }
  if (length > 0) yield held()
}

/** A scope whose bodies arrive as the bytes that were sent, for the payload rules of §4.1. */
export async function registerRawScope(
  app: App,
  isAccepted: (contentType: string) => boolean,
  register: (scope: App) => void,
): Promise<void> {
  await app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => {
      const type = (request.headers['content-type'] ?? '').toLowerCase().replace(/;\s*charset="?utf-8"?\s*$/, '')
      const isPlain = ['', 'identity'].includes(request.headers['content-encoding'] ?? '')
      if (isPlain && isAccepted(type.trim())) done(null, body)
      else done(new ProblemError('CONTENT_TYPE'))
    })
    register(scope)
  })
}

/** The bytes of a body in a raw scope. */
export function bytesOf({ body }: Pick<FastifyRequest, 'body'>): Buffer {
  return Buffer.isBuffer(body) ? body : Buffer.alloc(0)
}

/** Newest points of the named keys, or of all. */
export async function readLatest({ store, scope, deviceId }: Source, keys: string[] | undefined): Promise<LatestPoint[]> {
  const latest = await store.latest(scope, [deviceId], keys ? { keys } : {})
  return latest.get(deviceId) ?? []
}

export function describeRejects(rejects: readonly Reject[]): FieldError[] {
  return rejects.slice(0, maxListedRejects).map(({ code, detail, key, ts }) => {
    const pointer = key === undefined ? '' : `/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`
    return { pointer, detail: `${code}: ${detail}${key === undefined ? '' : ` (${key}${ts === undefined ? '' : ` at ${ts}`})`}` }
  })
}
