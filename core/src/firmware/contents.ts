// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUIDv7 } from 'node:crypto'
import type { Readable } from 'node:stream'
import { sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { otaParts } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { DiskGuard } from '../system/disk-guard.ts'
import { createChecksum } from './checksums.ts'
import type { ChecksumAlgorithm } from './checksums.ts'
import { lockUnassigned } from './packages.ts'

/** [O-1] */
export const maxContentBytes = 268_435_456
/** Stored and read in parts of this size; whoever changes it has to write the parts anew. */
const partBytes = 262_144
/** Parts kept in memory, 16 MiB: devices of one roll-out ask for the same ones at about the same time. */
const keptParts = 64
/** An upload that sends nothing for so long is given up; a whole one may take an hour. */
const stallMs = 60_000
const maxUploadMs = 3_600_000

/** Where the bytes of a package are. */
export type Content = { scope: Scope; contentId: string; sizeBytes: number }

export type UploadFacts = {
  fileName: string
  contentType: string
  /** What the caller expects; either may be absent. */
  checksum?: string
  size?: number
}

/** The bytes of packages, in parts in the database: no file is ever in memory as a whole. */
export class Contents {
  readonly #context: Context
  readonly #disk: DiskGuard
  /** Least recently used first. */
  readonly #parts = new Map<string, Promise<Buffer>>()

  constructor(context: Context, disk: DiskGuard) {
    this.#context = context
    this.#disk = disk
  }

  /**
   * Stores the body as the content of a package that nobody installs yet. Each part is a transaction of its
   * own, so that a slow line holds no connection; the last one makes the parts the content.
   *
   * @throws {ProblemError} `NOT_FOUND`, `OTA_PACKAGE_ASSIGNED`, `UNPROCESSABLE` for a package that has an address,
   *   `OTA_CONTENT_WRONG`, `BODY_TOO_LARGE`, `OTA_UPLOAD_REPLACED`, `OTA_UPLOAD_BROKEN`, `DISK_LOW`; the content is what it was then
   */
  async upload(scope: Scope, packageId: string, body: Readable, facts: UploadFacts): Promise<void> {
    const uploadId = randomUUIDv7()
    const algorithm = await this.#begin(scope, packageId, uploadId)
    try {
      const checksum = createChecksum(algorithm)
      let sizeBytes = 0
      let no = 0
      for await (const part of this.#split(body)) {
        sizeBytes += part.length
        if (sizeBytes > maxContentBytes) throw new ProblemError('BODY_TOO_LARGE', { params: { limit: maxContentBytes } })
        this.#disk.assertDiskHasRoom()
        checksum.update(part)
        const row = { tenantId: scope.tenantId, packageId, contentId: uploadId, no: no++, bytes: part }
        await this.#context.db.withTenant(scope, (tx) => tx.insert(otaParts).values(row))
      }
      const found = { sizeBytes, checksum: checksum.digest() }
      checkExpectations(found, facts)
      await this.#finish(scope, packageId, uploadId, { ...facts, ...found })
    } catch (error) {
      await this.#removeParts(scope, uploadId).catch((err: unknown) =>
        this.#context.log.warn({ err, package: packageId }, 'parts of a broken upload stay until the next upkeep'),
      )
      throw error
    }
  }

  /** Bytes `[from, to)` as they come from the store, at most a part at a time. */
  async *read(content: Content, from: number, to: number): AsyncGenerator<Buffer> {
    const end = Math.min(to, content.sizeBytes)
    for (let at = from; at < end;) {
      const no = Math.floor(at / partBytes)
      const start = no * partBytes
      const part = await this.#part(content, no)
      const piece = part.subarray(at - start, Math.min(end - start, part.length))
      if (piece.length === 0) throw new ProblemError('OTA_NOT_FOUND')
      yield piece
      at += piece.length
    }
  }

  /** Removes what uploads left behind that were broken off together with the server. */
  async removeOrphans(scope: Scope): Promise<void> {
    await this.#context.db.withTenant(scope, (tx) =>
      tx.execute(sql`
        delete from ota_parts q using ota_packages o
        where o.tenant_id = q.tenant_id and o.id = q.package_id and q.content_id is distinct from o.content_id
          and (q.content_id is distinct from o.upload_id or o.upload_at < now() - ${2 * maxUploadMs} * interval '1 millisecond')`),
    )
  }

  /** Several who ask for the same part wait for one query. */
  #part({ scope, contentId }: Content, no: number): Promise<Buffer> {
    const key = `${contentId} ${no}`
    const known = this.#parts.get(key)
    const part = known ?? this.#load(scope, contentId, no)
    this.#parts.delete(key)
    this.#parts.set(key, part)
    if (known) return part
    // A failure is not worth keeping.
    part.catch(() => this.#parts.delete(key))
    for (const oldest of this.#parts.keys()) {
      if (this.#parts.size <= keptParts) break
      this.#parts.delete(oldest)
    }
    return part
  }

  async #load(scope: Scope, contentId: string, no: number): Promise<Buffer> {
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx.execute<{ bytes: Buffer }>(sql`select bytes from ota_parts where content_id = ${contentId} and no = ${no}`),
    )
    // The package was taken away from the device and deleted while it was on its way.
    if (!rows[0]) throw new ProblemError('OTA_NOT_FOUND')
    return rows[0].bytes
  }

  async #begin(scope: Scope, packageId: string, uploadId: string): Promise<ChecksumAlgorithm> {
    return this.#context.db.withTenant(scope, async (tx) => {
      const { url } = await lockUnassigned(tx, packageId)
      if (url) {
        throw new ProblemError('UNPROCESSABLE', {
          errors: [{ pointer: '', detail: 'The package names an address; devices fetch it from there.' }],
        })
      }
      const [row] = await tx.execute<{ algorithm: ChecksumAlgorithm }>(sql`
        update ota_packages set upload_id = ${uploadId}, upload_at = now() where id = ${packageId} returning checksum_algorithm as algorithm`)
      await tx.execute(sql`
        delete from ota_parts q using ota_packages o
        where o.tenant_id = q.tenant_id and o.id = ${packageId} and q.package_id = o.id and q.content_id is distinct from o.content_id`)
      return row!.algorithm
    })
  }

  async #finish(
    scope: Scope,
    packageId: string,
    uploadId: string,
    facts: UploadFacts & { sizeBytes: number; checksum: string },
  ): Promise<void> {
    await this.#context.db.withTenant(scope, async (tx) => {
      const before = await lockUnassigned(tx, packageId)
      if (before.uploadId !== uploadId) throw new ProblemError('OTA_UPLOAD_REPLACED')
      await tx.execute(sql`
        update ota_packages set content_id = upload_id, upload_id = null, upload_at = null, size_bytes = ${facts.sizeBytes}, checksum = ${facts.checksum},
          file_name = ${facts.fileName}, content_type = ${facts.contentType}, updated_at = now() where id = ${packageId}`)
      if (before.contentId) await tx.execute(sql`delete from ota_parts where content_id = ${before.contentId}`)
      const { fileName, sizeBytes, checksum } = facts
      recordAudit(tx, {
        type: 'firmware.upload',
        subject: `ota-package:${packageId}`,
        changes: { from: null, to: { fileName, sizeBytes, checksum } },
      })
    })
  }

  async #removeParts(scope: Scope, contentId: string): Promise<void> {
    await this.#context.db.withTenant(scope, (tx) => tx.execute(sql`delete from ota_parts where content_id = ${contentId}`))
  }

  /** The body in parts of {@link partBytes}, the last one shorter. */
  async *#split(body: Readable): AsyncGenerator<Buffer> {
    const { clock } = this.#context
    const deadline = clock.monotonic() + maxUploadMs
    const giveUp = () => body.destroy(new Error('the upload sends nothing any more, or takes too long'))
    const watch = () => clock.after(Math.min(stallMs, deadline - clock.monotonic()), giveUp)
    let cancel = watch()
    let pieces: Buffer[] = []
    let length = 0
    try {
      // Not destroyed when we leave early: the answer goes over the same connection.
      for await (const chunk of body.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        cancel()
        for (let at = 0; at < chunk.length;) {
          const piece = chunk.subarray(at, at + partBytes - length)
          pieces.push(piece)
          length += piece.length
          at += piece.length
          if (length < partBytes) continue
          yield Buffer.concat(pieces)
          pieces = []
          length = 0
        }
        cancel = watch()
      }
    } catch (error) {
      throw new ProblemError('OTA_UPLOAD_BROKEN', { cause: error })
    } finally {
      cancel()
    }
    if (length > 0) yield Buffer.concat(pieces)
  }
}

function checkExpectations(found: { sizeBytes: number; checksum: string }, { size, checksum }: UploadFacts): void {
  const errors = [
    ...(found.sizeBytes === 0 ? [{ pointer: '', detail: 'The content is empty.' }] : []),
    ...(size !== undefined && size !== found.sizeBytes
      ? [{ pointer: '?size', detail: `${found.sizeBytes} bytes came, not ${size}.` }]
      : []),
    ...(checksum !== undefined && checksum.toLowerCase() !== found.checksum
      ? [{ pointer: '?checksum', detail: `The checksum of what came is ${found.checksum}.` }]
      : []),
  ]
  if (errors.length > 0) throw new ProblemError('OTA_CONTENT_WRONG', { errors })
}
