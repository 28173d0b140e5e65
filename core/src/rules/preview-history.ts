// SPDX-License-Identifier: AGPL-3.0-only
import { setImmediate as nextTurn } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import type { Context } from '../context.ts'
import type { Scope } from '../db/client.ts'
import { ProblemError } from '../errors.ts'
import type { StoredPoint, TelemetryStore } from '../telemetry/store.ts'
import { compileRule } from './compile-rule.ts'
import type { CompiledRule } from './compile-rule.ts'
import type { RulePoint } from './device-values.ts'
import type { DeviceCard } from './live-scene.ts'
import { PreviewRun } from './preview.ts'
import type { History } from './preview.ts'
import { isObject } from './problems.ts'
import { loadAttributes, loadCards } from './rule-loader.ts'
import { targetSql } from './rule-targets.ts'
import type { RulePreview, RulePreviewed } from './schemas.ts'
import { toRuleValue } from './values.ts'
import type { Known } from './values.ts'

/** [10] */
const longestMs = 31 * 86_400_000
const mostPoints = 5_000_000
const mostTimeMs = 10_000
/** Work between two looks at sockets. */
const sliceMs = 5
const usualEpisodes = 1000
/** Keys of a device that a rule about any telemetry looks at. */
const mostKeys = 100

/** What a rule would have told, by the very engine that runs it live. Nothing is written, nothing is done. */
export class RulePreviews {
  readonly #context: Context
  readonly #store: TelemetryStore

  constructor(context: Context, store: TelemetryStore) {
    this.#context = context
    this.#store = store
  }

  /** @throws {ProblemError} `RULE_INVALID`, `PREVIEW_TOO_LARGE`, `NOT_FOUND` for a device that is not there */
  async run(scope: Scope, wanted: RulePreview): Promise<RulePreviewed> {
    if (scope.customerIds) throw new ProblemError('PERMISSION_DENIED', { params: { permission: 'rule.read' } })
    const startedAt = this.#context.clock.monotonic()
    const { levels, clear, schedule, manualClear } = wanted.rule
    const logic = Object.entries({ levels, clear, schedule, manualClear }).filter(([, value]) => value !== undefined)
    const rule = compileRule(Object.fromEntries(logic))
    if (!('levels' in rule)) throw new ProblemError('RULE_INVALID', { errors: [...rule] })
    const { from, to } = wanted
    if (to < from || to - from > longestMs) throw new ProblemError('PREVIEW_TOO_LARGE', { params: { limit: mostPoints } })
    const answer: RulePreviewed = { episodes: [], evaluations: 0, points: 0, late: 0, truncated: false, tookMs: 0 }
    if (wanted.points) add(answer, null, replayGiven(rule, wanted))
    else {
      for (const card of await this.#findDevices(scope, wanted)) {
        const isOver = () => this.#context.clock.monotonic() - startedAt > mostTimeMs
        add(answer, card.id, await this.#replay(scope, rule, { card, from, to, isOver, room: mostPoints - answer.points }))
        if (isOver()) answer.truncated = true
      }
    }
    const limit = wanted.limit ?? usualEpisodes
    if (answer.episodes.length > limit) {
      answer.episodes.length = limit
      answer.truncated = true
    }
    answer.tookMs = Math.round(this.#context.clock.monotonic() - startedAt)
    return answer
  }

  async #findDevices(scope: Scope, { deviceIds, sample, rule }: RulePreview): Promise<DeviceCard[]> {
    return this.#context.db.withTenant(scope, async (tx) => {
      if (deviceIds) {
        const cards = await loadCards(tx, scope, { ids: deviceIds })
        if (cards.length < deviceIds.length) throw new ProblemError('NOT_FOUND')
        return cards
      }
      if (!isObject(rule.target)) return []
      const rows = await tx.execute<{ id: string }>(sql`
        select d.id from devices d cross join (select ${JSON.stringify(rule)}::text::jsonb as document) r
        where d.deleted_at is null and ${targetSql} order by d.last_activity_at desc nulls last, d.id limit ${sample ?? 20}`)
      return loadCards(tx, scope, { ids: rows.map(({ id }) => id) })
    })
  }

  async #replay(
    scope: Scope,
    rule: CompiledRule,
    { card, from, to, isOver, room }: { card: DeviceCard; from: number; to: number; isOver: () => boolean; room: number },
  ): Promise<PreviewRun> {
    const { reads } = rule
    const keys = [...reads.keys.keys()]
    if (reads.isAnyKey) {
      const latest = await this.#store.latest(scope, [card.id], { maxKeys: mostKeys })
      keys.push(...(latest.get(card.id) ?? []).map(({ key }) => key).filter((key) => !reads.keys.has(key)))
    }
    const count = await this.#store.count(scope, card.id, keys, from, to + 1)
    if (count > room) throw new ProblemError('PREVIEW_TOO_LARGE', { params: { limit: mostPoints } })
    const found = await this.#context.db.withTenant(scope, (tx) => loadAttributes(tx, [card.id], reads.attributes))
    const all = new Map<string, Known>(found.map(({ name, value }) => [name, value]))
    const run = new PreviewRun(rule, {
      from,
      to,
      readAttribute: (attributeScope, name) => all.get(`${attributeScope}/${name}`),
      readField: (field) => {
        if (field === 'device.name') return card.name
        if (field === 'device.product') return card.product
        return field === 'device.label' ? (card.label ?? undefined) : undefined
      },
      createdAt: card.createdAt,
    })
    for (const key of keys) await this.#seed(scope, run, { deviceId: card.id, key, from, windowMs: reads.keys.get(key) ?? 0 })
    run.begin()
    const { clock } = this.#context
    let until = clock.monotonic() + sliceMs
    const series = keys.map((key) => pointsOf(this.#store.read(scope, { deviceId: card.id, key, from, to: to + 1 }), key))
    for await (const message of mergeByTime(series)) {
      run.take(message)
      if (clock.monotonic() < until) continue
      await nextTurn()
      if (isOver()) break
      until = clock.monotonic() + sliceMs
    }
    run.end()
    return run
  }

  /** What the device had sent before: its newest value, and as much as windows look back. */
  async #seed(
    scope: Scope,
    run: PreviewRun,
    { deviceId, key, from, windowMs }: { deviceId: string; key: string; from: number; windowMs: number },
  ): Promise<void> {
    const before = { deviceId, key, from: 1, to: from }
    const older: StoredPoint[] = []
    if (windowMs > 0) {
      for await (const block of this.#store.read(scope, { ...before, from: Math.max(1, from - 2 * windowMs) })) older.push(...block)
    } else {
      for await (const block of this.#store.read(scope, before, { newestFirst: true, limit: 2 })) older.unshift(...block.toReversed())
    }
    run.seed(
      key,
      older.map((point) => ({ ts: point.ts, value: toRuleValue(point) })),
    )
  }
}

function replayGiven(rule: CompiledRule, { from, to, points = [], attributes = {}, attributeChanges = [] }: RulePreview): PreviewRun {
  const history: History = {
    from,
    to,
    points: points.map(([key, ts, value, receivedAt = ts]) => ({ key, ts, value, receivedAt })),
    attributes: new Map(Object.entries(attributes)),
    attributeChanges: attributeChanges.map(([at, name, value]) => ({ at, name, value })),
  }
  return PreviewRun.over(rule, history)
}

function add(answer: RulePreviewed, deviceId: string | null, run: PreviewRun): void {
  const { episodes, evaluations, points, late, isTruncated } = run.result
  for (const episode of episodes) answer.episodes.push({ deviceId, ...episode })
  answer.evaluations += evaluations
  answer.points += points
  answer.late += late
  answer.truncated ||= isTruncated
}

async function* pointsOf(blocks: AsyncIterable<StoredPoint[]>, key: string): AsyncGenerator<RulePoint[]> {
  for await (const block of blocks) {
    yield block.map((point) => ({ key, ts: point.ts, value: toRuleValue(point), receivedAt: point.ts }))
  }
}

type Cursor = { blocks: AsyncGenerator<RulePoint[]>; block: RulePoint[]; at: number }

/** The points of all series in the order of their times, those of one instant together. */
async function* mergeByTime(series: readonly AsyncGenerator<RulePoint[]>[]): AsyncGenerator<RulePoint[]> {
  const cursors: Cursor[] = []
  const advance = async (cursor: Cursor): Promise<boolean> => {
    if (++cursor.at < cursor.block.length) return true
    for (;;) {
      const next = await cursor.blocks.next()
      if (next.done === true) return false
      if (next.value.length === 0) continue
      cursor.block = next.value
      cursor.at = 0
      return true
    }
  }
  for (const blocks of series) {
    const cursor: Cursor = { blocks, block: [], at: 0 }
    if (await advance(cursor)) cursors.push(cursor)
  }
  while (cursors.length > 0) {
    let ts = Number.POSITIVE_INFINITY
    for (const { block, at } of cursors) ts = Math.min(ts, block[at]!.ts)
    const message: RulePoint[] = []
    for (let i = cursors.length - 1; i >= 0; i--) {
      const cursor = cursors[i]!
      const point = cursor.block[cursor.at]!
      if (point.ts !== ts) continue
      message.push(point)
      // Mostly there is a next one at hand, and nothing to wait for.
      if (cursor.at + 1 < cursor.block.length) cursor.at++
      else if (!(await advance(cursor))) cursors.splice(i, 1)
    }
    yield message
  }
}
