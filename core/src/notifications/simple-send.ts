// SPDX-License-Identifier: AGPL-3.0-only
import { eq } from 'drizzle-orm'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifySendKeys } from '../db/notify-tables.ts'
import { apiKeys } from '../db/tables.ts'
import { ProblemError, toProblem } from '../errors.ts'
import type { LiveKey } from '../users/api-keys.ts'
import type { NotificationHub } from './hub.ts'
import { readRouting } from './routing-document.ts'

/** An API key by its text, as requests bring it. */
export type FindKey = (text: string, address: string) => Promise<LiveKey | undefined>
export type SimpleAnswer = { status: number; body: Record<string, unknown> }

const maxTitle = 100
const maxText = 20_000

const refuse = (code: number, message: string, more: Record<string, unknown> = {}): SimpleAnswer => ({
  status: 400,
  body: { code, message, ...more },
})

/**
 * `/send/{key}.send` as scripts know it from Server酱: the key in the address, `title` and `desp` in the query, a form
 * or JSON. It goes to the receiver that the key is bound to, else to the one of the root route.
 */
export async function sendSimply(
  context: Context,
  hub: NotificationHub,
  findKey: FindKey,
  given: { key: string; address: string; fields: Readonly<Record<string, unknown>> },
): Promise<SimpleAnswer> {
  const key = await findKey(given.key, given.address)
  // Keys of a customer see only what is theirs, and receivers are the tenant's.
  if (!key?.permissions.has('notify.send') || key.customerId !== null) return refuse(40001, '[AUTH]错误的Key', { scode: 461 })
  const title = textOf(given.fields['title'] ?? given.fields['text'])
    .replaceAll(/[\r\n]+/g, ' ')
    .trim()
  const text = textOf(given.fields['desp']).slice(0, maxText)
  if (title === '') return refuse(20001, '[INPUT]消息标题不能为空')
  const scope = context.rootTenant
  try {
    const { id } = await context.db.withTenant(scope, async (tx) => {
      const taken = await hub.messages.accept(tx, scope, {
        to: [{ receiver: await receiverOf(tx, key.id) }],
        title: [...title].slice(0, maxTitle).join(''),
        text: text === '' ? title : text,
        createdBy: key.name,
      })
      recordAudit(tx, { type: 'notification.send', subject: `message:${taken.id}`, actor: `api_key:${key.id}` })
      return taken
    })
    return { status: 200, body: { code: 0, message: '', data: { pushid: id, readkey: id, error: 'SUCCESS', errno: 0 } } }
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error
    return refuse(20001, `[INPUT]${toProblem(error, 'zh', '').detail}`)
  }
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

async function receiverOf(tx: Tx, keyId: string): Promise<string> {
  const [bound] = await tx.select().from(notifySendKeys).where(eq(notifySendKeys.apiKeyId, keyId))
  return bound?.receiver ?? (await readRouting(tx)).routing.route.receiver ?? ''
}

export async function listSendKeys(context: Context, scope: Scope) {
  return context.db.withTenant(scope, (tx) =>
    tx
      .select({ apiKeyId: notifySendKeys.apiKeyId, receiver: notifySendKeys.receiver, name: apiKeys.name, last4: apiKeys.last4 })
      .from(notifySendKeys)
      .innerJoin(apiKeys, eq(apiKeys.id, notifySendKeys.apiKeyId))
      .orderBy(apiKeys.name),
  )
}

/** @throws {ProblemError} `NOT_FOUND` for the key, `NO_RECIPIENT` for the receiver */
export async function bindSendKey(context: Context, scope: Scope, apiKeyId: string, receiver: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const [key] = await tx.select({ id: apiKeys.id }).from(apiKeys).where(eq(apiKeys.id, apiKeyId))
    if (!key) throw new ProblemError('NOT_FOUND')
    const { routing } = await readRouting(tx)
    if (!routing.receivers.some((one) => one.name === receiver)) {
      throw new ProblemError('NO_RECIPIENT', { errors: [{ pointer: '/receiver', detail: `There is no receiver ${receiver}.` }] })
    }
    await tx
      .insert(notifySendKeys)
      .values({ tenantId: scope.tenantId, apiKeyId, receiver })
      .onConflictDoUpdate({ target: [notifySendKeys.tenantId, notifySendKeys.apiKeyId], set: { receiver } })
    recordAudit(tx, { type: 'notify_send_key.bind', subject: `api_key:${apiKeyId}`, changes: { from: null, to: { receiver } } })
  })
}

/** @throws {ProblemError} `NOT_FOUND` */
export async function unbindSendKey(context: Context, scope: Scope, apiKeyId: string): Promise<void> {
  await context.db.withTenant(scope, async (tx) => {
    const gone = await tx.delete(notifySendKeys).where(eq(notifySendKeys.apiKeyId, apiKeyId)).returning()
    if (gone.length === 0) throw new ProblemError('NOT_FOUND')
    recordAudit(tx, { type: 'notify_send_key.unbind', subject: `api_key:${apiKeyId}` })
  })
}
