// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Tx } from '../db/client.ts'
import type { Actor } from '../http/actor.ts'
import { actorOf, languageOf } from '../http/actor.ts'
import { ProblemError, toProblem } from '../errors.ts'
import { IdParams, NoContent, pageQuery, problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { listInbox, markRead } from './delivery-log.ts'
import type { NotificationHub } from './hub.ts'
import { fillStored } from './templates.ts'
import type { MessageDraft, Accepted as Taken } from './messages.ts'
import { Accepted, Batch, BatchAnswer, InboxPage, InboxRead, MessageCreate, priorityNumber } from './schemas.ts'

const tags = ['notifications']
const EmptyQuery = Type.Object({}, { additionalProperties: false })
const EmptyBody = Type.Optional(Type.Object({}, { additionalProperties: false }))
const ListQuery = Type.Object(pageQuery, { additionalProperties: false })
const furthestMs = 90 * 86_400_000
const maxDataBytes = 16_384

/** Saying something, and what became of it. */
export function registerMessageRoutes(app: App, context: Context, hub: NotificationHub): void {
  registerSending(app, context, hub)
  registerInbox(app, context)
}

function registerSending(app: App, context: Context, hub: NotificationHub): void {
  const send = { config: { permission: 'notify.send' as const } }
  app.post(
    '/api/v1/notifications/messages',
    {
      ...send,
      schema: {
        tags,
        summary: 'Send a message',
        querystring: EmptyQuery,
        body: MessageCreate,
        response: { 200: Accepted, 202: Accepted, ...problems(400, 401, 403, 409, 413, 422, 429) },
      },
    },
    async (request, reply) => {
      const taken = await accept(context, hub, actorOf(request), request.body)
      return reply.code(taken.deduplicated ? 200 : 202).send({ ...taken, status: 'accepted' as const })
    },
  )
  app.post(
    '/api/v1/notifications/messages/batch',
    {
      ...send,
      schema: {
        tags,
        summary: 'Send up to 1,000 messages; one that is wrong does not fail the others',
        querystring: EmptyQuery,
        body: Batch,
        response: { 202: BatchAnswer, ...problems(400, 401, 403, 409, 413, 422) },
      },
    },
    async (request, reply) => {
      const results = await acceptBatch(context, hub, actorOf(request), request.body.messages)
      const items = results.map((one, index) => {
        if (!(one instanceof ProblemError)) return { index, id: one.id }
        const { code, detail } = toProblem(one, languageOf(request), request.id)
        return { index, error: { code, detail } }
      })
      return reply.code(202).send({ items })
    },
  )
  app.post(
    '/api/v1/notifications/messages/:id/cancel',
    {
      ...send,
      schema: {
        tags,
        summary: 'Cancel what is not under way',
        params: IdParams,
        querystring: EmptyQuery,
        body: EmptyBody,
        response: { 200: Type.Object({ canceled: Type.Integer() }), ...problems(400, 401, 403, 404) },
      },
    },
    async (request) => ({
      canceled: await context.db.withTenant(actorOf(request).scope, (tx) => {
        recordAudit(tx, { type: 'notification.cancel', subject: `message:${request.params.id}` })
        return hub.messages.cancel(tx, request.params.id)
      }),
    }),
  )
}

async function accept(context: Context, hub: NotificationHub, actor: Actor, body: MessageCreate): Promise<Taken> {
  assertSize(context, body)
  return context.db.withTenant(actor.scope, async (tx) => {
    const taken = await hub.messages.accept(tx, actor.scope, await toDraft(tx, actor, body))
    recordAudit(tx, { type: 'notification.send', subject: `message:${taken.id}` })
    return taken
  })
}

/** So many commit together; those that must be told apart from others by their key commit alone. */
const perTransaction = 100

async function acceptBatch(
  context: Context,
  hub: NotificationHub,
  actor: Actor,
  given: readonly unknown[],
): Promise<(Taken | ProblemError)[]> {
  const results: (Taken | ProblemError)[] = []
  const together: { index: number; body: MessageCreate }[] = []
  for (const [index, body] of given.entries()) {
    if (!Value.Check(MessageCreate, body)) results[index] = new ProblemError('VALIDATION_FAILED')
    else if (body.dedupKey === undefined) together.push({ index, body })
    else results[index] = await accept(context, hub, actor, body).catch(asProblem)
  }
  for (let from = 0; from < together.length; from += perTransaction) {
    const some = together.slice(from, from + perTransaction)
    await context.db.withTenant(actor.scope, async (tx) => {
      const drafts: { index: number; draft: MessageDraft }[] = []
      for (const { index, body } of some) {
        try {
          assertSize(context, body)
          drafts.push({ index, draft: await toDraft(tx, actor, body) })
        } catch (error) {
          results[index] = asProblem(error)
        }
      }
      const accepted = await hub.messages.acceptMany(
        tx,
        actor.scope,
        drafts.map((one) => one.draft),
      )
      for (const [at, taken] of accepted.entries()) {
        results[drafts[at]!.index] = taken
        if (!(taken instanceof ProblemError)) recordAudit(tx, { type: 'notification.send', subject: `message:${taken.id}` })
      }
    })
  }
  return results
}

/** What the caller did wrong; anything else is ours. */
function asProblem(error: unknown): ProblemError {
  if (!(error instanceof ProblemError)) throw error
  return error
}

/** What the schema cannot say. @throws {ProblemError} `UNPROCESSABLE`, `BODY_TOO_LARGE`, `MESSAGE_CONTENT` */
function assertSize(context: Context, { scheduledAt, data, text, template }: MessageCreate): void {
  if (scheduledAt !== undefined && Date.parse(scheduledAt) > context.clock.now() + furthestMs) {
    throw new ProblemError('UNPROCESSABLE', { errors: [{ pointer: '/scheduledAt', detail: 'At most 90 days ahead.' }] })
  }
  if (data !== undefined && Buffer.byteLength(JSON.stringify(data)) > maxDataBytes) {
    throw new ProblemError('BODY_TOO_LARGE', { params: { limit: maxDataBytes } })
  }
  if ((text === undefined) === (template === undefined)) throw new ProblemError('MESSAGE_CONTENT')
}

/** @throws {ProblemError} as templates do */
async function toDraft(tx: Tx, actor: Actor, body: MessageCreate): Promise<MessageDraft> {
  const { to, scheduledAt, data, priority, text, template, locale, ...said } = body
  const filled = template === undefined ? { text: text ?? '' } : await fillStored(tx, template, data ?? {}, locale)
  return {
    ...said,
    ...filled,
    ...(template === undefined ? {} : { template }),
    to: Array.isArray(to) ? to : [to],
    priority: priorityNumber(priority),
    ...(scheduledAt === undefined ? {} : { scheduledAt: new Date(scheduledAt) }),
    ...(data === undefined ? {} : { data: { title: body.title ?? '', text: filled.text, ...data } }),
    createdBy: actor.name,
  }
}

function registerInbox(app: App, context: Context): void {
  const own = { config: { permission: 'session' as const } }
  app.get(
    '/api/v1/notifications/inbox',
    {
      ...own,
      schema: { tags, summary: 'The own inbox, newest first', querystring: ListQuery, response: { 200: InboxPage, ...problems(400, 401) } },
    },
    async (request) => {
      const { scope, userId } = actorOf(request)
      const { items, nextCursor, unread } = await listInbox(context, scope, userId, request.query.limit ?? 50, request.query.cursor)
      return {
        items: items.map(({ id, title, text, priority, links, createdAt, readAt }) => ({
          id,
          title,
          text,
          priority,
          links,
          createdAt: createdAt.toISOString(),
          readAt: readAt?.toISOString() ?? null,
        })),
        nextCursor,
        unread,
      }
    },
  )
  app.post(
    '/api/v1/notifications/inbox/read',
    {
      ...own,
      schema: {
        tags,
        summary: 'Mark entries of the own inbox as read, all when none are named',
        querystring: EmptyQuery,
        body: InboxRead,
        response: { 204: NoContent, ...problems(400, 401) },
      },
    },
    async (request, reply) => {
      const { scope, userId } = actorOf(request)
      await markRead(context, scope, userId, request.body.ids)
      return reply.code(204).send(null)
    },
  )
}
