// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { and, eq, isNull, lt, sql } from 'drizzle-orm'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { idempotencyKeys } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { SealPlace } from '../secrets.ts'
import type { Actor } from './actor.ts'
import type { App } from './server.ts'

/** An answer is repeated for this long. */
const keptHours = 24
/** A first request that never came to an answer (the server died) blocks its key no longer than this. */
const abandonedMinutes = 5
const keyPattern = /^[\x21-\x7e]{1,128}$/

type Held = { actor: Actor; key: string }

/**
 * `Idempotency-Key` on every POST of the native API: a repeat of the same request by the same user
 * gets the first answer again (header `Idempotency-Replayed: true`) and creates nothing. Answers of
 * 5xx are not kept, so that the caller can try again.
 */
export function useIdempotency(app: App, context: Context): void {
  const held = new WeakMap<FastifyRequest, Held>()

  app.addHook('preHandler', async (request, reply) => {
    const key = request.headers['idempotency-key']
    const { actor } = request
    if (request.method !== 'POST' || key === undefined || !actor || !request.url.startsWith('/api/v1/')) return
    if (typeof key !== 'string' || !keyPattern.test(key)) {
      throw new ProblemError('VALIDATION_FAILED', {
        errors: [{ pointer: 'Idempotency-Key', detail: 'Idempotency-Key needs 1 to 128 visible ASCII characters.' }],
      })
    }
    const answer = await claim(context, actor, key, fingerprint(request))
    if (answer) return replay(reply, answer)
    held.set(request, { actor, key })
  })

  app.addHook('onSend', async (request, reply, payload) => {
    const mine = held.get(request)
    if (!mine) return payload
    held.delete(request)
    await settle(context, mine, reply.statusCode, typeof payload === 'string' ? payload : undefined)
    return payload
  })
}

/** Takes the key for this request. @returns the kept answer when it was answered before */
async function claim(context: Context, actor: Actor, key: string, request: Buffer): Promise<{ status: number; body: string } | undefined> {
  const { scope, userId } = actor
  return context.db.withTenant(scope, async (tx) => {
    const mine = and(eq(idempotencyKeys.userId, userId), eq(idempotencyKeys.key, key))
    await tx
      .delete(idempotencyKeys)
      .where(
        and(mine, isNull(idempotencyKeys.status), lt(idempotencyKeys.createdAt, sql`now() - ${abandonedMinutes} * interval '1 minute'`)),
      )
    const taken = await tx
      .insert(idempotencyKeys)
      .values({ tenantId: scope.tenantId, userId, key, requestSha256: request })
      .onConflictDoNothing()
      .returning({ key: idempotencyKeys.key })
    if (taken.length > 0) return undefined
    const [known] = await tx.select().from(idempotencyKeys).where(mine)
    if (known && !known.requestSha256.equals(request)) throw new ProblemError('IDEMPOTENCY_MISMATCH')
    if (!known || known.status === null || known.sealedBody === null) throw new ProblemError('IDEMPOTENCY_RUNNING', { retryAfterS: 1 })
    return { status: known.status, body: context.secrets.open(known.sealedBody, placeOf(actor, key)) }
  })
}

async function settle(context: Context, { actor, key }: Held, status: number, body: string | undefined): Promise<void> {
  const mine = and(eq(idempotencyKeys.userId, actor.userId), eq(idempotencyKeys.key, key))
  await context.db.withTenant(actor.scope, async (tx) => {
    if (status >= 500) await tx.delete(idempotencyKeys).where(mine)
    else {
      await tx
        .update(idempotencyKeys)
        .set({ status, sealedBody: context.secrets.seal(body ?? '', placeOf(actor, key)) })
        .where(mine)
    }
  })
}

function replay(reply: FastifyReply, answer: { status: number; body: string }): FastifyReply {
  const type = answer.status >= 400 ? 'application/problem+json' : 'application/json; charset=utf-8'
  reply.header('idempotency-replayed', 'true').code(answer.status)
  return answer.body === '' ? reply.send() : reply.type(type).serializer(String).send(answer.body)
}

/** What makes two requests the same: where they go and what they say. */
function fingerprint(request: FastifyRequest): Buffer {
  return createHash('sha256')
    .update(`${request.method} ${request.url}\n`)
    .update(JSON.stringify(request.body ?? null))
    .digest()
}

function placeOf(actor: Actor, key: string): SealPlace {
  return { column: 'idempotency_keys.sealed_body', tenantId: actor.scope.tenantId, rowId: `${actor.userId} ${key}` }
}

export async function removeOldIdempotencyKeys(context: Context, scope: Scope): Promise<void> {
  await context.db.withTenant(scope, (tx) =>
    tx.delete(idempotencyKeys).where(lt(idempotencyKeys.createdAt, sql`now() - ${keptHours} * interval '1 hour'`)),
  )
}
