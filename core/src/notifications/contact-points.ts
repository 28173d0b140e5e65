// SPDX-License-Identifier: AGPL-3.0-only
import { randomInt, randomUUIDv7, timingSafeEqual } from 'node:crypto'
import { and, eq, sql } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { notifyContactPoints, notifySuppressions } from '../db/notify-tables.ts'
import type { ContactType } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import type { Language } from '../errors.ts'
import { takeInside } from '../jobs/limiter.ts'
import { toE164 } from './channels/sms.ts'
import type { Messages } from './messages.ts'

export type ContactPoint = typeof notifyContactPoints.$inferSelect
export type PointOwner = { scope: Scope; userId: string; language: Language }

/** [notifications 7.5] A code is good for so long, and for so many tries. */
const codeMs = 600_000
const mostTries = 5
const mostPoints = 20
const codesPerHour = [{ count: 5, perMs: 3_600_000 }]

/** A user's own addresses. One counts when its owner has said the code that was sent to it. */
export class ContactPoints {
  readonly #context: Context
  readonly #messages: Messages

  constructor(context: Context, messages: Messages) {
    this.#context = context
    this.#messages = messages
  }

  list(scope: Scope, userId: string): Promise<ContactPoint[]> {
    return this.#context.db.withTenant(scope, (tx) =>
      tx.select().from(notifyContactPoints).where(eq(notifyContactPoints.userId, userId)).orderBy(notifyContactPoints.createdAt),
    )
  }

  /** Takes the address in and sends a code to it. @throws {ProblemError} `UNPROCESSABLE`, `NO_RECIPIENT`, `NAME_TAKEN`, `RATE_LIMITED` */
  async create(owner: PointOwner, type: ContactType, given: string): Promise<ContactPoint> {
    const { scope, userId } = owner
    const address = type === 'sms' ? toE164(given) : given.trim()
    const isGood = type === 'email' ? /^[^\s@,;<>]+@[^\s@,;<>]+$/.test(given) : type === 'telegram' ? /^-?\d{1,20}$/.test(given) : address
    if (address === undefined || !isGood) refuse('/address', 'This is no such address.')
    return this.#context.db.withTenant(scope, async (tx) => {
      const known = await tx.select({ id: notifyContactPoints.id }).from(notifyContactPoints).where(eq(notifyContactPoints.userId, userId))
      if (known.length >= mostPoints) refuse('', `At most ${mostPoints}.`)
      const [row] = await tx
        .insert(notifyContactPoints)
        .values({ tenantId: scope.tenantId, id: randomUUIDv7(), userId, type, address })
        .returning()
        .catch((error: unknown) => {
          throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name: address }, cause: error }) : error
        })
      recordAudit(tx, { type: 'notify_contact.create', subject: `user:${userId}`, changes: { from: null, to: { type } } })
      return this.#sendCode(tx, owner, row!)
    })
  }

  /** Another code in place of the one before. @throws {ProblemError} `NOT_FOUND`, `RATE_LIMITED` */
  async sendCode(owner: PointOwner, id: string): Promise<void> {
    await this.#context.db.withTenant(owner.scope, async (tx) => {
      recordAudit(tx, { type: 'notify_contact.send_code', subject: `user:${owner.userId}` })
      await this.#sendCode(tx, owner, await readOwn(tx, owner.userId, id))
    })
  }

  /** @throws {ProblemError} `NOT_FOUND`, `CODE_INVALID` also for one that is too old, or was tried too often */
  async verify(scope: Scope, userId: string, id: string, code: string): Promise<ContactPoint> {
    const isRight = await this.#context.db.withTenant(scope, async (tx) => {
      const point = await readOwn(tx, userId, id)
      const { codeHash, codeExpiresAt, codeTries } = point
      const isOpen = codeHash !== null && (codeExpiresAt?.getTime() ?? 0) > this.#context.clock.now() && codeTries < mostTries
      const right = isOpen && timingSafeEqual(Buffer.from(codeHash), Buffer.from(this.#hash(id, code)))
      recordAudit(tx, { type: 'notify_contact.verify', subject: `user:${userId}`, ...(right ? {} : { outcome: 'denied' as const }) })
      await tx
        .update(notifyContactPoints)
        .set(right ? { verifiedAt: sql`now()`, codeHash: null, codeExpiresAt: null } : { codeTries: codeTries + 1 })
        .where(eq(notifyContactPoints.id, id))
      if (right) await tx.delete(notifySuppressions).where(eq(notifySuppressions.address, point.address))
      return right
    })
    // After the transaction: a wrong try counts.
    if (!isRight) throw new ProblemError('CODE_INVALID')
    return this.#context.db.withTenant(scope, (tx) => readOwn(tx, userId, id))
  }

  /** @throws {ProblemError} `NOT_FOUND` */
  async delete(scope: Scope, userId: string, id: string): Promise<void> {
    await this.#context.db.withTenant(scope, async (tx) => {
      await readOwn(tx, userId, id)
      recordAudit(tx, { type: 'notify_contact.delete', subject: `user:${userId}` })
      await tx.delete(notifyContactPoints).where(eq(notifyContactPoints.id, id))
    })
  }

  async #sendCode(tx: Tx, { scope, userId, language }: PointOwner, point: ContactPoint): Promise<ContactPoint> {
    const allowed = await takeInside(tx, scope, `notify/verify/${userId}`, codesPerHour)
    if (!allowed.ok) throw new ProblemError('RATE_LIMITED', { retryAfterS: Math.ceil(allowed.waitMs / 1000) })
    const code = String(randomInt(1_000_000)).padStart(6, '0')
    const codeExpiresAt = new Date(this.#context.clock.now() + codeMs)
    const [row] = await tx
      .update(notifyContactPoints)
      .set({ codeHash: this.#hash(point.id, code), codeExpiresAt, codeTries: 0 })
      .where(eq(notifyContactPoints.id, point.id))
      .returning()
    const to = { email: { email: point.address }, sms: { phone: point.address }, telegram: { telegram: point.address } }[point.type]
    await this.#messages.accept(tx, scope, {
      to: [to],
      title: language === 'en' ? 'Your code' : '验证码',
      text: language === 'en' ? `${code} is your code for IoT PMS, good for 10 minutes.` : `${code} 是您的 IoT PMS 验证码，10 分钟内有效。`,
      format: 'text',
      priority: 2,
      topic: 'verify',
      source: 'system',
      ttlMs: codeMs,
      createdBy: 'system',
    })
    return row!
  }

  #hash(id: string, code: string): string {
    return this.#context.secrets.hmac('pepper', 'contact point', id, code).toString('base64url')
  }
}

function refuse(pointer: string, detail: string): never {
  throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer, detail }] })
}

async function readOwn(tx: Tx, userId: string, id: string): Promise<ContactPoint> {
  const [row] = await tx
    .select()
    .from(notifyContactPoints)
    .where(and(eq(notifyContactPoints.id, id), eq(notifyContactPoints.userId, userId)))
    .for('update')
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}
