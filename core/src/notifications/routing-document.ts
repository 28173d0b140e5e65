// SPDX-License-Identifier: AGPL-3.0-only
import { eq, sql } from 'drizzle-orm'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { recordAudit } from '../audit.ts'
import type { Scope, Tx } from '../db/client.ts'
import { notifyChannels, notifyEscalations, notifyRouting } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { intervalProblem } from './intervals.ts'
import { parseMatcher } from './matchers.ts'

const Matchers = Type.Array(Type.String({ maxLength: 400 }), { maxItems: 20 })
const Name = Type.String({ minLength: 1, maxLength: 100 })
const Names = Type.Array(Name, { maxItems: 20 })

const node = {
  receiver: Type.Optional(Name),
  matchers: Type.Optional(Matchers),
  groupBy: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 100 }), { maxItems: 20 })),
  groupWaitMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 600_000 })),
  groupIntervalMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 86_400_000 })),
  repeatIntervalMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 30 * 86_400_000 })),
  continue: Type.Optional(Type.Boolean()),
  activeIntervals: Type.Optional(Names),
  muteIntervals: Type.Optional(Names),
  /** Of an escalation; inherited. */
  escalation: Type.Optional(Name),
}
/** Children are checked by {@link routingProblems}: the schema language of the API has no recursion. */
export const Route = Type.Object(
  { ...node, routes: Type.Optional(Type.Array(Type.Unknown(), { maxItems: 500 })) },
  { additionalProperties: false },
)
export type Route = Omit<Static<typeof Route>, 'routes'> & { routes?: Route[] }

const Target = Type.Object(
  {
    channelId: Type.Optional(Type.String({ format: 'uuid' })),
    userId: Type.Optional(Type.String({ format: 'uuid' })),
    email: Type.Optional(Type.String({ maxLength: 300 })),
    phone: Type.Optional(Type.String({ maxLength: 30 })),
    address: Type.Optional(Type.String({ maxLength: 300 })),
  },
  { additionalProperties: false, minProperties: 1 },
)
export type Target = Static<typeof Target>
export const Targets = Type.Array(Target, { maxItems: 100 })
export const Receiver = Type.Object(
  {
    name: Name,
    sendResolved: Type.Optional(Type.Boolean()),
    targets: Targets,
    fallback: Type.Optional(Type.Array(Targets, { maxItems: 5 })),
    fallbackAfterMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 86_400_000 })),
  },
  { additionalProperties: false },
)
export type Receiver = Static<typeof Receiver>

const Interval = Type.Object(
  {
    times: Type.Optional(
      Type.Array(Type.Object({ from: Type.String(), to: Type.String() }, { additionalProperties: false }), { maxItems: 20 }),
    ),
    weekdays: Type.Optional(Type.Array(Type.String(), { maxItems: 7 })),
    daysOfMonth: Type.Optional(Type.Array(Type.String(), { maxItems: 31 })),
    months: Type.Optional(Type.Array(Type.String(), { maxItems: 12 })),
    years: Type.Optional(Type.Array(Type.String(), { maxItems: 20 })),
    zone: Type.Optional(Type.String({ maxLength: 64 })),
  },
  { additionalProperties: false },
)
export type Interval = Static<typeof Interval>

export const Routing = Type.Object(
  {
    route: Route,
    inhibit: Type.Optional(
      Type.Array(
        Type.Object(
          { source: Matchers, target: Matchers, equal: Type.Optional(Type.Array(Type.String({ maxLength: 100 }), { maxItems: 20 })) },
          { additionalProperties: false },
        ),
        { maxItems: 100 },
      ),
    ),
    intervals: Type.Optional(Type.Record(Type.String({ maxLength: 100 }), Type.Array(Interval, { maxItems: 20 }), { maxProperties: 100 })),
    receivers: Type.Array(Receiver, { minItems: 1, maxItems: 200 }),
  },
  { additionalProperties: false },
)
export type Routing = Omit<Static<typeof Routing>, 'route'> & { route: Route }

const maxNodes = 500
const maxDepth = 10

export const defaultReceiver = '默认'

/** What there is before anybody has set anything: everything into the inbox of every administrator. */
export const firstRouting: Routing = {
  route: { receiver: defaultReceiver, groupBy: ['rule_id'] },
  receivers: [{ name: defaultReceiver, sendResolved: true, targets: [] }],
}

/** Everything that is wrong with a document that has the right shape. */
export function routingProblems(routing: Routing): FieldError[] {
  const problems: FieldError[] = []
  const receivers = new Set(routing.receivers.map((one) => one.name))
  const intervals = new Set(Object.keys(routing.intervals ?? {}))
  if (receivers.size !== routing.receivers.length) problems.push({ pointer: '/receivers', detail: 'Two receivers have the same name.' })
  if (routing.route.receiver === undefined) problems.push({ pointer: '/route/receiver', detail: 'The root needs a receiver.' })
  if ((routing.route.matchers ?? []).length > 0) problems.push({ pointer: '/route/matchers', detail: 'The root has no matchers.' })
  let nodes = 0
  const visit = (route: Route, pointer: string, depth: number): void => {
    nodes++
    if (depth > maxDepth) return void problems.push({ pointer, detail: `The tree is deeper than ${maxDepth}.` })
    if (route.receiver !== undefined && !receivers.has(route.receiver)) {
      problems.push({ pointer: `${pointer}/receiver`, detail: `There is no receiver ${route.receiver}.` })
    }
    checkMatchers(route.matchers, `${pointer}/matchers`, problems)
    for (const name of [...(route.activeIntervals ?? []), ...(route.muteIntervals ?? [])]) {
      if (!intervals.has(name)) problems.push({ pointer, detail: `There is no interval ${name}.` })
    }
    const { groupIntervalMs = 300_000, repeatIntervalMs } = route
    if (repeatIntervalMs !== undefined && repeatIntervalMs < groupIntervalMs) {
      problems.push({ pointer: `${pointer}/repeatIntervalMs`, detail: 'It is shorter than groupIntervalMs.' })
    }
    route.routes?.forEach((child, index) => visit(child, `${pointer}/routes/${index}`, depth + 1))
  }
  visit(routing.route, '/route', 1)
  if (nodes > maxNodes) problems.push({ pointer: '/route', detail: `There are more than ${maxNodes} routes.` })
  routing.inhibit?.forEach((rule, index) => {
    checkMatchers(rule.source, `/inhibit/${index}/source`, problems)
    checkMatchers(rule.target, `/inhibit/${index}/target`, problems)
  })
  for (const [name, parts] of Object.entries(routing.intervals ?? {})) {
    for (const part of parts) {
      const problem = intervalProblem(part)
      if (problem) problems.push({ pointer: `/intervals/${name}`, detail: problem })
    }
  }
  return problems
}

function checkMatchers(matchers: readonly string[] | undefined, pointer: string, problems: FieldError[]): void {
  matchers?.forEach((text, index) => {
    try {
      parseMatcher(text)
    } catch (error) {
      problems.push({ pointer: `${pointer}/${index}`, detail: error instanceof Error ? error.message : String(error) })
    }
  })
}

/** The routing of the tenant and its version; version 0 when nobody has set any. */
export async function readRouting(tx: Tx): Promise<{ routing: Routing; version: number }> {
  const [row] = await tx.select().from(notifyRouting)
  return row ? { routing: row.document as unknown as Routing, version: row.version } : { routing: firstRouting, version: 0 }
}

/** @throws {ProblemError} `ROUTING_INVALID` listing everything, `VERSION_CONFLICT` */
export async function saveRouting(tx: Tx, scope: Scope, routing: Routing, by: string, version?: number): Promise<number> {
  const problems = [...routingProblems(routing), ...(await unknownChannels(tx, routing)), ...(await unknownEscalations(tx, routing))]
  if (problems.length > 0) throw new ProblemError('ROUTING_INVALID', { errors: problems.slice(0, 50) })
  await tx.insert(notifyRouting).values({ tenantId: scope.tenantId, document: firstRouting, version: 0 }).onConflictDoNothing()
  const [current] = await tx.select({ version: notifyRouting.version }).from(notifyRouting).for('update')
  if (version !== undefined && version !== current!.version) throw new ProblemError('VERSION_CONFLICT')
  const next = current!.version + 1
  await tx
    .update(notifyRouting)
    .set({ document: routing, version: next, updatedBy: by, updatedAt: sql`now()` })
    .where(eq(notifyRouting.tenantId, scope.tenantId))
  recordAudit(tx, { type: 'notify_routing.update', subject: '-', changes: { from: null, to: { version: next } } })
  return next
}

async function unknownChannels(tx: Tx, routing: Routing): Promise<FieldError[]> {
  const known = new Set((await tx.select({ id: notifyChannels.id }).from(notifyChannels)).map((row) => row.id))
  return routing.receivers.flatMap((receiver, index) =>
    [...receiver.targets, ...(receiver.fallback ?? []).flat()]
      .filter((target) => target.channelId !== undefined && !known.has(target.channelId))
      .map((target) => ({ pointer: `/receivers/${index}`, detail: `There is no channel ${target.channelId}.` })),
  )
}

/** Names of the escalations that routes call for. */
export function escalationsIn(route: Route): string[] {
  return [...(route.escalation === undefined ? [] : [route.escalation]), ...(route.routes ?? []).flatMap(escalationsIn)]
}

async function unknownEscalations(tx: Tx, routing: Routing): Promise<FieldError[]> {
  const wanted = new Set(escalationsIn(routing.route))
  if (wanted.size === 0) return []
  for (const { name } of await tx.select({ name: notifyEscalations.name }).from(notifyEscalations)) wanted.delete(name)
  return [...wanted].map((name) => ({ pointer: '/route', detail: `There is no escalation ${name}.` }))
}

/** Names of the receivers and escalations that send to this channel. */
export async function isUsed(tx: Tx, channelId: string): Promise<string[]> {
  const { routing } = await readRouting(tx)
  const sendsThere = (target: { channelId?: string }) => target.channelId === channelId
  const receivers = routing.receivers.filter((one) => [...one.targets, ...(one.fallback ?? []).flat()].some(sendsThere))
  const escalations = await tx.select({ name: notifyEscalations.name, steps: notifyEscalations.steps }).from(notifyEscalations)
  const calling = escalations.filter(({ steps }) => (steps as { targets: Target[] }[]).some((step) => step.targets.some(sendsThere)))
  return [...receivers.map((one) => `Receiver ${one.name}.`), ...calling.map((one) => `Escalation ${one.name}.`)]
}
