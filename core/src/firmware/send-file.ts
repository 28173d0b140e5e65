// SPDX-License-Identifier: AGPL-3.0-only
import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ProblemError } from '../errors.ts'
import type { Contents } from './contents.ts'
import type { OtaFile } from './packages.ts'
import type { Scope } from '../db/client.ts'

export type FileAnswer = {
  scope: Scope
  file: OtaFile
  /** Bytes `[from, to)` of the file; without it the file, or the range that the request asks for. */
  piece?: { from: number; to: number } | undefined
  /** Called once, with the end of what was sent, when all of it was handed to the connection. */
  sent?: (to: number) => void
}

/**
 * Answers with a package's content as a stream, part by part. `Range` (RFC 9110 §14) serves those who go on
 * where they were interrupted: one range is served, several are answered by the whole file.
 *
 * @throws {ProblemError} `OTA_NOT_FOUND` without content
 */
export function sendFile(request: FastifyRequest, reply: FastifyReply, contents: Contents, answer: FileAnswer): FastifyReply {
  const { scope, file, piece, sent } = answer
  const { contentId, sizeBytes, checksum } = file
  if (contentId === null || sizeBytes === null) throw new ProblemError('OTA_NOT_FOUND')
  const etag = `"${checksum}"`
  const range = piece ? undefined : readRange(request, sizeBytes, etag)
  reply.headers({ ...fileHeaders(file), etag, 'accept-ranges': 'bytes' })
  if (range === 'outside') {
    return reply.code(416).header('content-range', `bytes */${sizeBytes}`).header('content-length', '0').send()
  }
  const { from, to } = piece ?? range ?? { from: 0, to: sizeBytes }
  if (range) reply.code(206).header('content-range', `bytes ${from}-${to - 1}/${sizeBytes}`)
  const body = Readable.from(contents.read({ scope, contentId, sizeBytes }, from, to), { objectMode: false })
  if (sent) body.once('end', () => sent(to))
  return reply.header('content-length', String(to - from)).send(body)
}

function fileHeaders({ fileName, contentType }: OtaFile): Record<string, string> {
  const name = fileName ?? 'content.bin'
  // Headers hold no other characters; both forms are given, RFC 6266 §4.3.
  const isPlain = /^[\u0020-\u007e]+$/.test(name)
  const encoded = encodeURIComponent(name).replaceAll(/['()*]/g, (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`)
  return {
    'content-type': contentType ?? 'application/octet-stream',
    'content-disposition': isPlain
      ? `attachment;filename=${/[\s;,]/.test(name) ? `"${name}"` : name}`
      : `attachment;filename*=UTF-8''${encoded}`,
    'x-filename': isPlain ? name : encoded,
  }
}

/** What of the file is asked for; undefined for all of it. */
function readRange(request: FastifyRequest, sizeBytes: number, etag: string): { from: number; to: number } | 'outside' | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(request.headers.range ?? '')
  const condition = request.headers['if-range']
  // Another content than the one that was begun: from its start.
  if (!match || (condition !== undefined && condition !== etag)) return undefined
  const [, first = '', last = ''] = match
  if (first === '' && last === '') return undefined
  if (first === '') return last === '0' ? 'outside' : { from: Math.max(0, sizeBytes - Number(last)), to: sizeBytes }
  const from = Number(first)
  if (last !== '' && Number(last) < from) return undefined
  return from >= sizeBytes ? 'outside' : { from, to: last === '' ? sizeBytes : Math.min(Number(last) + 1, sizeBytes) }
}
