// SPDX-License-Identifier: AGPL-3.0-only
import { and, eq, inArray, sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { recordAudit } from '../audit.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyContactPoints, notifyPreferences, notifySuppressions } from '../db/notify-tables.ts'
import type { PlannedTarget } from '../db/notify-tables.ts'
import { tenants } from '../db/tables.ts'
import type { users } from '../db/tables.ts'
import { ProblemError } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { takeInside } from '../jobs/limiter.ts'
import type { Priority } from './channel-type.ts'
import { isZone } from './intervals.ts'
import { QuietHours, quietUntil } from './quiet-hours.ts'

const severities = ['critical', 'major', 'minor', 'warning'] as const
const Kind = Type.Union([Type.Literal('sms'), Type.Literal('telegram'), Type.Literal('email'), Type.Literal('inapp')])
type Kind = Static<typeof Kind>
const Kinds = Type.Array(Kind, { minItems: 1, maxItems: 4, uniqueItems: true })
const choice = Type.Optional(Type.Boolean())

export const Preferences = Type.Object(
  {
    /** Of quiet hours; the tenant's when absent. */
    zone: Type.Optional(Type.String({ maxLength: 64 })),
    /** Alerts below it go to the inbox alone. */
    minSeverity: Type.Optional(
      Type.Union([Type.Literal('critical'), Type.Literal('major'), Type.Literal('minor'), Type.Literal('warning')]),
    ),
    /** By topic and kind of channel: `false` where nothing shall come. */
    topics: Type.Optional(
      Type.Record(
        Type.String({ pattern: '^[a-z][a-z0-9_.-]{0,49}$' }),
        Type.Object({ sms: choice, telegram: choice, email: choice, inapp: choice }, { additionalProperties: false }),
        { maxProperties: 50, additionalProperties: false },
      ),
    ),
    quietHours: Type.Optional(QuietHours),
    /** By priority, the kinds to try in this order, each when those before it did not arrive. */
    order: Type.Optional(
      Type.Partial(Type.Object({ '1': Kinds, '2': Kinds, '3': Kinds, '4': Kinds, '5': Kinds }), { additionalProperties: false }),
    ),
  },
  { additionalProperties: false },
)
export type Preferences = Static<typeof Preferences>

export type About = { priority: Priority; topic: string; now: number }
type Way = { id: string; type: string }
type Wanted = { kind: Kind; type: string; channelId: string; address?: string }
type Person = Pick<typeof users.$inferSelect, 'id' | 'email'>

/** What nobody can do without [notifications 7.5]. */
const mandatory = new Set(['security', 'license', 'verify'])
/** Each step is tried when the one before did not arrive. Push comes with a later release. */
const usualOrder: Record<Priority, readonly (readonly Kind[])[]> = {
  1: [['sms'], ['telegram', 'email']],
  2: [['telegram', 'email']],
  3: [['telegram']],
  4: [],
  5: [],
}
/** [notifications 7.6] What is not urgent or high, to one person in an hour. */
const perRecipient = [{ count: 60, perMs: 3_600_000 }]
const digestEveryMs = 600_000

export async function readPreferences(tx: Tx, userId: string): Promise<Preferences> {
  const [row] = await tx.select().from(notifyPreferences).where(eq(notifyPreferences.userId, userId))
  return (row?.document as Preferences | undefined) ?? {}
}

/** @throws {ProblemError} `UNPROCESSABLE` with pointers */
export async function savePreferences(tx: Tx, scope: Scope, userId: string, document: Preferences): Promise<void> {
  const errors: FieldError[] = []
  for (const [pointer, zone] of [
    ['/zone', document.zone],
    ['/quietHours/zone', document.quietHours?.zone],
  ] as const) {
    if (zone !== undefined && !isZone(zone)) errors.push({ pointer, detail: `Unknown time zone ${zone}.` })
  }
  if (document.quietHours?.from !== undefined && document.quietHours.from === document.quietHours.to) {
    errors.push({ pointer: '/quietHours/to', detail: 'Quiet hours end at another time than they begin.' })
  }
  for (const topic of Object.keys(document.topics ?? {})) {
    if (mandatory.has(topic)) errors.push({ pointer: `/topics/${topic}`, detail: 'This topic cannot be turned off.' })
  }
  if (errors.length > 0) throw new ProblemError('UNPROCESSABLE', { errors })
  await tx
    .insert(notifyPreferences)
    .values({ tenantId: scope.tenantId, userId, document })
    .onConflictDoUpdate({ target: [notifyPreferences.tenantId, notifyPreferences.userId], set: { document, updatedAt: sql`now()` } })
  recordAudit(tx, { type: 'notify_preferences.update', subject: `user:${userId}` })
}

/**
 * Where a person is reached: into the inbox always, and by what they gave in the order they want, or the usual one.
 * What they do not want, and what quiet hours keep back, stays in the plan with its reason.
 *
 * @param channelFor the tenant's channel for a kind; undefined when there is none
 */
export async function planPerson(
  tx: Tx,
  person: Person,
  about: About,
  channelFor: (kind: Kind) => Promise<Way | undefined>,
): Promise<PlannedTarget[][]> {
  const preferences = await readPreferences(tx, person.id)
  const points = await tx
    .select()
    .from(notifyContactPoints)
    .where(and(eq(notifyContactPoints.userId, person.id), sql`${notifyContactPoints.verifiedAt} is not null`))
    .orderBy(notifyContactPoints.createdAt)
  const addressOf = (kind: Kind) => points.find((one) => one.type === kind)?.address ?? (kind === 'email' ? person.email : undefined)
  const own = preferences.order?.[`${about.priority}`]?.map((kind) => [kind])
  const steps: Wanted[][] = []
  for (const wanted of own ?? usualOrder[about.priority]) {
    const step: Wanted[] = []
    for (const kind of wanted) {
      const address = addressOf(kind)
      const way = kind === 'inapp' || address !== undefined ? await channelFor(kind) : undefined
      if (way === undefined) continue
      step.push({ kind, type: way.type, channelId: way.id, ...(kind === 'inapp' || address === undefined ? {} : { address }) })
    }
    if (step.length > 0) steps.push(step)
  }
  if (!steps.flat().some((one) => one.kind === 'inapp')) {
    const inbox = (await channelFor('inapp'))!
    steps[0] = [{ kind: 'inapp', type: inbox.type, channelId: inbox.id }, ...(steps[0] ?? [])]
  }
  return steps.map((step) => step.map((one) => toTarget(one, person, preferences, about)))
}

/** Takes out what preferences do not want; alerts that are not bad enough go to the inbox alone. */
function toTarget(one: Wanted, person: Person, preferences: Preferences, about: About): PlannedTarget {
  const { kind, ...rest } = one
  const target: PlannedTarget = { ...rest, userId: person.id }
  if (mandatory.has(about.topic)) return target
  const least = preferences.minSeverity === undefined ? 5 : severities.indexOf(preferences.minSeverity) + 1
  const isMild = kind !== 'inapp' && about.topic === 'alarm' && about.priority > least
  return isMild || preferences.topics?.[about.topic]?.[kind] === false ? { ...target, suppressed: 'preference' } : target
}

/**
 * Applies to plans what holds people's messages back: quiet hours, and too many in an hour. The inbox is looked at when
 * its owner wants to: nothing holds that.
 *
 * @returns the plans in the same order
 */
export async function holdBack(
  tx: Tx,
  scope: Scope,
  wanted: readonly { plan: PlannedTarget[][]; about: About }[],
): Promise<PlannedTarget[][][]> {
  const isHeld = (one: PlannedTarget) => one.userId !== undefined && one.type !== 'inapp' && one.suppressed === undefined
  const asked = wanted.flatMap(({ plan, about }, at) => {
    const people = mandatory.has(about.topic) ? [] : plan.flat().flatMap((one) => (isHeld(one) ? one.userId! : []))
    return [...new Set(people)].map((userId) => ({ at, userId, about }))
  })
  // In the order of their ids: two transactions that tell the same people never wait for each other.
  asked.sort((a, b) => (a.userId === b.userId ? a.at - b.at : a.userId < b.userId ? -1 : 1))
  const holdings = new Map<string, Holding>()
  for (const { at, userId, about } of asked) holdings.set(`${at} ${userId}`, await decideHolding(tx, scope, userId, about))
  return wanted.map(({ plan }, at) =>
    plan.map((step) =>
      step.map((one) => {
        const holding = isHeld(one) ? holdings.get(`${at} ${one.userId}`) : undefined
        if (!holding) return one
        return holding.drops ? { ...one, suppressed: 'quiet_hours_drop' } : { ...one, heldUntil: holding.until.toISOString() }
      }),
    ),
  )
}

type Holding = { until: Date; drops: boolean } | undefined

async function decideHolding(tx: Tx, scope: Scope, userId: string, about: About): Promise<Holding> {
  const preferences = await readPreferences(tx, userId)
  const { quietHours } = preferences
  if (quietHours && about.priority > (quietHours.breakThrough ?? 1)) {
    const [tenant] = await tx.select({ timeZone: tenants.timeZone }).from(tenants)
    const until = quietUntil(quietHours, preferences.zone ?? tenant?.timeZone ?? 'UTC', new Date(about.now))
    if (until) return { until, drops: quietHours.mode === 'drop' }
  }
  if (about.priority < 3) return undefined
  const taken = await takeInside(tx, scope, `notify/person/${userId}`, perRecipient)
  return taken.ok ? undefined : { until: new Date(Math.ceil((about.now + 1) / digestEveryMs) * digestEveryMs), drops: false }
}

/** Addresses that a provider said are dead: nothing more goes there until a person says otherwise. */
export async function markDeadAddresses(tx: Tx, plan: readonly PlannedTarget[][]): Promise<PlannedTarget[][]> {
  const addresses = [...new Set(plan.flat().flatMap((one) => one.address ?? []))]
  if (addresses.length === 0) return plan.map((step) => [...step])
  const rows = await tx.select().from(notifySuppressions).where(inArray(notifySuppressions.address, addresses))
  const dead = new Set(rows.map((row) => `${row.type} ${row.address}`))
  return plan.map((step) =>
    step.map((one) => (dead.has(`${one.type} ${one.address ?? ''}`) ? { ...one, suppressed: 'address_invalid' } : one)),
  )
}
