// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { ProblemError } from '../errors.ts'
import { actorOf } from '../http/actor.ts'
import type { Actor } from '../http/actor.ts'
import { isUuid } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import type { Aggregation } from './aggregate.ts'
import { bytesOf, describeRejects, readLatest, registerRawScope, sendChunks } from './answers.ts'
import type { TelemetryDevice, TelemetryParts } from './answers.ts'
import { cutRange, parseTimeZone } from './buckets.ts'
import type { BucketRule } from './buckets.ts'
import { maxTs, parseKeys } from './history.ts'
import { DeviceParams, keyQuery } from './schemas.ts'
import { readRows, createTally } from './series.ts'
import type { Order, Reading, Source } from './series.ts'
import { toCompatJsonText } from './values.ts'

const maxBuckets = 10_000
const intervalTypes = ['MILLISECONDS', 'WEEK', 'WEEK_ISO', 'MONTH', 'QUARTER'] as const
type IntervalType = (typeof intervalTypes)[number]
const aggs = ['NONE', 'MIN', 'MAX', 'AVG', 'SUM', 'COUNT'] as const

// Parameters nobody knows are ignored here: existing scripts send many [TB-4].
const ValuesQuery = Type.Object({
  ...keyQuery,
  startTs: Type.Optional(Type.Integer()),
  endTs: Type.Optional(Type.Integer()),
  interval: Type.Integer({ minimum: 0, default: 0 }),
  intervalType: Type.Optional(Type.Unsafe<IntervalType>({ type: 'string', enum: intervalTypes })),
  timeZone: Type.Optional(Type.String()),
  limit: Type.Integer({ minimum: 1, maximum: 100_000, default: 100 }),
  agg: Type.Unsafe<(typeof aggs)[number]>({ type: 'string', enum: aggs, default: 'NONE' }),
  orderBy: Type.Unsafe<'ASC' | 'DESC'>({ type: 'string', enum: ['ASC', 'DESC'], default: 'DESC' }),
  useStrictDataTypes: Type.Boolean({ default: false }),
})
type ValuesQuery = Static<typeof ValuesQuery>

const DeleteQuery = Type.Object({
  ...keyQuery,
  deleteAllDataForKeys: Type.Boolean({ default: false }),
  startTs: Type.Optional(Type.Integer()),
  endTs: Type.Optional(Type.Integer()),
})

const Values = Type.Record(Type.String(), Type.Array(Type.Object({ ts: Type.Integer(), value: Type.Unknown() })))

const prefix = '/api/plugins/telemetry/DEVICE/:id'
const tags = ['compat']
const json = { 'content-type': 'application/json; charset=utf-8' }
const canRead = { permission: 'telemetry.read', compat: true } as const
const canWrite = { permission: 'telemetry.write', compat: true } as const

/** ThingsBoard-style reading and writing of telemetry (device API §16.4). */
export async function registerCompatTelemetryRoutes(app: App, parts: TelemetryParts): Promise<void> {
  app.get(
    `${prefix}/keys/timeseries`,
    { config: canRead, schema: { tags, summary: 'Telemetry keys', params: DeviceParams, response: { 200: Type.Array(Type.String()) } } },
    async (request) => {
      const { source } = await open(parts, actorOf(request), request.params.id)
      return (await readLatest(source, undefined)).map((point) => point.key)
    },
  )
  for (const path of ['values/timeseries', 'values/timeseries/history', 'timeseries/history']) {
    app.get(
      `${prefix}/${path}`,
      {
        config: canRead,
        exposeHeadRoute: false,
        schema: { tags, summary: 'Newest values, or history', params: DeviceParams, querystring: ValuesQuery, response: { 200: Values } },
      },
      async (request, reply) => {
        const { source, device } = await open(parts, actorOf(request), request.params.id)
        const { query } = request
        const isHistory = path.endsWith('history') || query.startTs !== undefined || query.endTs !== undefined
        await sendChunks(reply, isHistory ? historyJson(source, planValues(query, device.timeZone)) : latestJson(source, query), json)
        return reply
      },
    )
  }
  app.delete(
    `${prefix}/timeseries/delete`,
    { config: canWrite, schema: { tags, summary: 'Delete telemetry', params: DeviceParams, querystring: DeleteQuery } },
    async (request, reply) => {
      const actor = actorOf(request)
      const { source } = await open(parts, actor, request.params.id)
      const { deleteAllDataForKeys: isEverything, startTs, endTs } = request.query
      const keys = requireKeys(request.query)
      const range = isEverything ? { from: 0, to: maxTs + 1 } : parseTimes(startTs, endTs)
      // The newest value is always the newest stored point: deleteLatest and rewriteLatestIfDeleted need no work.
      const draft = { type: 'telemetry.delete', subject: `device:${source.deviceId}`, changes: { from: { keys, ...range }, to: null } }
      await parts.audit.around(source.scope, draft, () => source.store.delete(source.scope, source.deviceId, keys, range.from, range.to))
      return reply.code(200).send()
    },
  )
  await registerRawScope(
    app,
    (type) => ['application/json', 'text/plain', ''].includes(type),
    (scope) => {
      for (const path of ['timeseries/:scope', 'timeseries/:scope/:ttl']) {
        const params = Type.Object({ ...DeviceParams.properties, scope: Type.String(), ttl: Type.Optional(Type.String()) })
        scope.post(
          `${prefix}/${path}`,
          { config: canWrite, schema: { tags, summary: 'Write telemetry', params } },
          async (request, reply) => {
            const actor = actorOf(request)
            const { device } = await open(parts, actor, request.params.id)
            const { rejected } = await parts.writeAsUser(actor, device.id, bytesOf(request), { cast: true, allOrNothing: true })
            if (rejected.length > 0) throw new ProblemError('VALIDATION_FAILED', { errors: describeRejects(rejected) })
            return reply.code(200).send()
          },
        )
      }
    },
  )
}

/** @throws {ProblemError} `VALIDATION_FAILED` for a malformed id [TB-3], `NOT_FOUND` */
async function open(parts: TelemetryParts, { scope }: Actor, id: string): Promise<{ device: TelemetryDevice; source: Source }> {
  if (!isUuid(id)) fail('the device id is no UUID')
  const device = await parts.findDevice(scope, id)
  if (!device) throw new ProblemError('NOT_FOUND')
  return { device, source: { store: parts.store, scope, deviceId: device.id } }
}

type ValuesPlan = {
  keys: string[]
  from: number
  to: number
  order: Order
  reading: Reading
  isStrict: boolean
  /** Times of buckets in the answer, by their starts; a raw point has its own. */
  middles: ReadonlyMap<number, number> | undefined
}

/** @throws {ProblemError} `VALIDATION_FAILED` for what makes no sense */
export function planValues(query: ValuesQuery, zone: string): ValuesPlan {
  const { agg, interval, intervalType, useStrictDataTypes: isStrict } = query
  const keys = requireKeys(query)
  const { from, to } = parseTimes(query.startTs, query.endTs)
  if (agg === 'NONE' || (interval === 0 && intervalType === undefined)) {
    const order = query.orderBy === 'ASC' ? 'asc' : 'desc'
    return { keys, from, to, order, reading: { form: 'raw', limit: query.limit }, isStrict, middles: undefined }
  }
  const edges = from === to ? [from, to] : cutFromStart(parseRule(intervalType, interval, query.timeZone ?? zone), from, to)
  const middles = new Map(edges.slice(1).map((end, i) => [edges[i]!, edges[i]! + Math.floor((end - edges[i]!) / 2)]))
  return { keys, from, to, order: 'asc', reading: bucketReading(agg, edges), isStrict, middles }
}

function bucketReading(agg: Aggregation, edges: number[]): Reading {
  return { form: 'buckets', aggs: [agg], edges, counter: 'monotonic', rules: 'compat' }
}

/** Buckets begin at the start of the range, whatever the calendar says, and the last ends with it. */
function cutFromStart(rule: BucketRule, from: number, to: number): number[] {
  // Fixed buckets count from the start instead of 1970: cut the range moved to there, then move back.
  const shift = rule.type === 'fixed' ? from : 0
  const edges = cutRange(rule, from - shift, to - shift, maxBuckets).map((edge) => edge + shift)
  return [from, ...edges.slice(1, -1), to]
}

function parseRule(intervalType: IntervalType = 'MILLISECONDS', interval: number, zone: string): BucketRule {
  if (intervalType === 'MILLISECONDS') return interval > 0 ? { type: 'fixed', ms: interval } : fail('"interval" must be above 0')
  const calendar = { count: 1, timeZone: parseTimeZone(zone) }
  switch (intervalType) {
    case 'WEEK':
      return { type: 'week', weekStart: 'SUN', ...calendar }
    case 'WEEK_ISO':
      return { type: 'week', weekStart: 'MON', ...calendar }
    case 'MONTH':
      return { type: 'month', weekStart: 'MON', ...calendar }
    case 'QUARTER':
      return { type: 'quarter', weekStart: 'MON', ...calendar }
  }
}

async function* latestJson(source: Source, query: ValuesQuery): AsyncGenerator<string> {
  const points = await readLatest(source, parseKeys(query))
  const members = points.map(
    (point) => `${JSON.stringify(point.key)}:[{"ts":${point.ts},"value":${toCompatJsonText(point, query.useStrictDataTypes)}}]`,
  )
  yield `{${members.join(',')}}`
}

/** A member per key with points; made while they are read. */
async function* historyJson(source: Source, plan: ValuesPlan): AsyncGenerator<string> {
  let last: string | undefined
  for await (const { key, values } of readValues(source, plan)) {
    const start = last === key ? ',' : `${last === undefined ? '{' : '],'}${JSON.stringify(key)}:[`
    last = key
    yield start + values.map(({ ts, text }) => `{"ts":${ts},"value":${text}}`).join(',')
  }
  yield last === undefined ? '{}' : ']}'
}

/** What a plan asks for, key after key, in blocks of at least one value as JSON text. */
export async function* readValues(
  source: Source,
  plan: ValuesPlan,
): AsyncGenerator<{ key: string; values: { ts: number; text: string }[] }> {
  const { keys, from, to, order, reading, isStrict, middles } = plan
  const tally = createTally()
  for (const key of keys) {
    for await (const rows of readRows(source, { key, from, to, order }, reading, tally)) {
      const values = []
      for (const { ts, values: found } of rows) {
        if (found[0] !== undefined) values.push({ ts: middles?.get(ts) ?? ts, text: toCompatJsonText(found[0], isStrict) })
      }
      if (values.length > 0) yield { key, values }
    }
  }
}

function requireKeys(query: Parameters<typeof parseKeys>[0]): string[] {
  return parseKeys(query) ?? fail('"keys" is needed')
}

function parseTimes(startTs: number | undefined, endTs: number | undefined): { from: number; to: number } {
  if (startTs === undefined || endTs === undefined) fail('"startTs" and "endTs" are needed')
  if (startTs > endTs) fail('"startTs" must not be after "endTs"')
  const clamp = (ts: number) => Math.max(0, Math.min(ts, maxTs + 1))
  return { from: clamp(startTs), to: clamp(endTs) }
}

function fail(detail: string): never {
  throw new ProblemError('VALIDATION_FAILED', { errors: [{ pointer: '', detail }] })
}
