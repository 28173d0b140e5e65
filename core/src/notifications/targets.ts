// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes, randomUUIDv7 } from 'node:crypto'
import { and, eq, inArray, isNull } from 'drizzle-orm'
import type { Scope, Tx } from '../db/client.ts'
import { notifyChannels } from '../db/notify-tables.ts'
import { users } from '../db/tables.ts'
import type { PlannedTarget } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import { toE164 } from './channels/sms.ts'
import { markDeadAddresses, planPerson } from './preferences.ts'
import type { About } from './preferences.ts'
import { readRouting } from './routing-document.ts'
import type { Routing, Target } from './routing-document.ts'

/** `telegram` is the number of a chat with one of the tenant's robots. */
export type WantedTarget = Target & { receiver?: string; telegram?: string }

const smsTypes = ['aliyun_sms', 'tencent_sms', 'twilio_sms']

/**
 * Whom a message goes to: steps of addresses on channels, the first step first. People get it into their inbox and by
 * what they have chosen.
 *
 * @throws {ProblemError} `NO_RECIPIENT` naming the entry that nobody can receive
 */
export async function planTargets(
  tx: Tx,
  scope: Scope,
  wanted: readonly WantedTarget[],
  about: About,
): Promise<{ plan: PlannedTarget[][]; fallbackAfterMs: number | undefined }> {
  const needsRouting = wanted.some((one) => one.receiver !== undefined)
  const { routing } = needsRouting ? await readRouting(tx) : { routing: undefined }
  const steps: PlannedTarget[][] = [[]]
  const add = async (from: number, target: WantedTarget, pointer: string) => {
    for (const [at, some] of (await resolve(tx, scope, target, about, pointer)).entries()) (steps[from + at] ??= []).push(...some)
  }
  let fallbackAfterMs: number | undefined
  for (const [index, target] of wanted.entries()) {
    const pointer = `/to/${index}`
    if (target.receiver === undefined) {
      await add(0, target, pointer)
      continue
    }
    const receiver = findReceiver(routing!, target.receiver, pointer)
    if (receiver.targets.length === 0) steps[0]!.push(...(await administrators(tx, scope)))
    for (const one of receiver.targets) await add(0, one, pointer)
    for (const [at, fallback] of (receiver.fallback ?? []).entries()) for (const one of fallback) await add(at + 1, one, pointer)
    if (receiver.fallbackAfterMs !== undefined) fallbackAfterMs = Math.min(fallbackAfterMs ?? Infinity, receiver.fallbackAfterMs)
  }
  const plan = Array.from(steps, (step) => unique(step ?? [])).filter((step) => step.length > 0)
  return { plan: await markDeadAddresses(tx, plan), fallbackAfterMs }
}

function findReceiver(routing: Routing, name: string, pointer: string) {
  const receiver = routing.receivers.find((one) => one.name === name)
  if (!receiver) throw new ProblemError('NO_RECIPIENT', { errors: [{ pointer, detail: `There is no receiver ${name}.` }] })
  return receiver
}

/** @returns steps; all but people have one */
async function resolve(tx: Tx, scope: Scope, target: WantedTarget, about: About, pointer: string): Promise<PlannedTarget[][]> {
  const missing = (detail: string) => new ProblemError('NO_RECIPIENT', { errors: [{ pointer, detail }] })
  if (target.channelId !== undefined) {
    const [channel] = await tx.select().from(notifyChannels).where(eq(notifyChannels.id, target.channelId))
    if (!channel) throw missing(`There is no channel ${target.channelId}.`)
    const address = addressOn(channel.type, target)
    if (channel.type === 'inapp') return [await administrators(tx, scope)]
    if (channel.type === 'email' && !address && !channel.config['to']) throw missing(`The channel ${channel.name} needs an address.`)
    if (smsTypes.includes(channel.type) && !address && !channel.config['phone']) {
      throw missing(`The channel ${channel.name} needs a number.`)
    }
    return [[{ channelId: channel.id, type: channel.type, ...(address ? { address } : {}) }]]
  }
  if (target.userId !== undefined) {
    const [user] = await tx
      .select()
      .from(users)
      .where(and(eq(users.id, target.userId), isNull(users.disabledAt)))
    if (!user) throw missing('There is no such user, or it is disabled.')
    return planPerson(tx, user, about, async (kind) => {
      if (kind === 'inapp') return { id: await inboxChannel(tx, scope), type: 'inapp' }
      return firstChannel(tx, kind === 'sms' ? smsTypes : [kind])
    })
  }
  if (target.telegram !== undefined) {
    const robot = await firstChannel(tx, ['telegram'])
    if (!robot) throw missing('There is no channel of this kind.')
    return [[{ channelId: robot.id, type: 'telegram', address: target.telegram }]]
  }
  const kind = target.email === undefined ? smsTypes : ['email']
  const address = target.email ?? (target.phone === undefined ? undefined : toE164(target.phone))
  if (address === undefined) throw missing('The number is not written as +86… or another country code.')
  if (target.email !== undefined && !/^[^\s@,;<>]+@[^\s@,;<>]+$/.test(address)) throw missing('This is no e-mail address.')
  const channel = await firstChannel(tx, kind)
  if (!channel) throw missing('There is no channel of this kind.')
  return [[{ channelId: channel.id, type: channel.type, address }]]
}

function addressOn(type: string, target: Target): string | undefined {
  const given = target.address ?? target.email ?? target.phone
  if (given === undefined || !smsTypes.includes(type)) return given
  const number = toE164(given)
  if (number === undefined) {
    throw new ProblemError('NO_RECIPIENT', { errors: [{ pointer: '', detail: `${given} is no telephone number.` }] })
  }
  return number
}

async function firstChannel(tx: Tx, types: readonly string[]) {
  const [channel] = await tx
    .select()
    .from(notifyChannels)
    .where(and(inArray(notifyChannels.type, [...types]), eq(notifyChannels.enabled, true)))
    .orderBy(notifyChannels.createdAt)
    .limit(1)
  return channel
}

/** Whoever administers, by the inbox. */
async function administrators(tx: Tx, scope: Scope): Promise<PlannedTarget[]> {
  const channelId = await inboxChannel(tx, scope)
  const rows = await tx
    .select({ id: users.id })
    .from(users)
    .where(and(eq(users.role, 'admin'), isNull(users.disabledAt)))
  return rows.map(({ id }) => ({ channelId, type: 'inapp', userId: id }))
}

/** The one in-app channel, made when it is first needed. */
async function inboxChannel(tx: Tx, scope: Scope): Promise<string> {
  const find = () => tx.select({ id: notifyChannels.id }).from(notifyChannels).where(eq(notifyChannels.type, 'inapp')).limit(1)
  const [known] = await find()
  if (known) return known.id
  const made = {
    tenantId: scope.tenantId,
    id: randomUUIDv7(),
    name: '站内信',
    type: 'inapp',
    callbackToken: randomBytes(32).toString('base64url'),
  }
  await tx.insert(notifyChannels).values(made).onConflictDoNothing()
  return (await find())[0]!.id
}

function unique(step: readonly PlannedTarget[]): PlannedTarget[] {
  const seen = new Set<string>()
  return step.filter((one) => {
    const key = `${one.channelId} ${one.address ?? ''} ${one.type === 'inapp' ? one.userId : ''}`
    return !seen.has(key) && seen.add(key)
  })
}
