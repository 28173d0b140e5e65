// SPDX-License-Identifier: AGPL-3.0-only
import type { CompiledRule } from './compile-rule.ts'
import { DeviceValues } from './device-values.ts'
import type { RulePoint } from './device-values.ts'
import { Lane } from './lane.ts'
import type { AttributeScope, DeviceField, DeviceScene } from './moment.ts'
import type { Transition } from './pair.ts'
import type { Severity } from './schemas.ts'
import type { Known, RuleValue } from './values.ts'

export type SeverityStep = { ts: number; severity: Severity }
/** One stretch from confirmed to cleared; ends are null while it is open. */
export type Episode = { startTs: number; confirmedTs: number; endTs: number | null; clearedTs: number | null; severities: SeverityStep[] }

/** What happened to a device, in the order in which the server got it. */
export type History = {
  from: number
  to: number
  /** In order of receipt. Neighbours with the same ts and receipt are one message. */
  points: Iterable<RulePoint>
  /** Attributes of scope server at `from`, and how they changed: ascending. */
  attributes?: ReadonlyMap<string, Known>
  attributeChanges?: readonly { at: number; name: string; value: Known }[]
  readField?: (field: DeviceField) => Known
}

export type PreviewResult = { episodes: Episode[]; evaluations: number; points: number; late: number; isTruncated: boolean }

export type PreviewScene = {
  from: number
  to: number
  readAttribute: (scope: AttributeScope, name: string) => Known
  readField?: ((field: DeviceField) => Known) | undefined
  createdAt?: number
}

/** A rule over a device in virtual time, with the very engine that runs it live [10]. */
export class PreviewRun {
  readonly #rule: CompiledRule
  readonly #lane: Lane
  readonly #scene: PreviewScene
  readonly #episodes: Episode[] = []
  #points = 0

  constructor(rule: CompiledRule, scene: PreviewScene) {
    this.#rule = rule
    this.#scene = scene
    this.#lane = new Lane<DeviceScene>(
      {
        values: new DeviceValues(),
        readAttribute: scene.readAttribute,
        readField: scene.readField ?? (() => undefined),
        connection: undefined,
        createdAt: scene.createdAt ?? scene.from,
      },
      (_, transitions) => transitions.forEach((transition) => record(this.#episodes, transition)),
    )
    this.#lane.hold(rule)
  }

  /** Everything of a history that is at hand. */
  static over(rule: CompiledRule, history: History): PreviewRun {
    const attributes = new Map(history.attributes)
    const readAttribute = (scope: AttributeScope, name: string) => (scope === 'server' ? attributes.get(name) : undefined)
    const run = new PreviewRun(rule, { from: history.from, to: history.to, readAttribute, readField: history.readField })
    run.begin()
    const changes = [...(history.attributeChanges ?? [])]
    const changeUntil = (before: number): void => {
      while (changes.length > 0 && changes[0]!.at < before) {
        const { at, name, value } = changes.shift()!
        const isConcerned = ({ reads }: CompiledRule) => reads.attributes.has(`server/${name}`)
        run.#lane.change(at, isConcerned, () => attributes.set(name, value))
      }
    }
    for (const message of messagesOf(history.points)) {
      changeUntil(message[0]!.receivedAt)
      run.take(message)
    }
    changeUntil(history.to + 1)
    run.end()
    return run
  }

  /** What was measured before it begins, ascending. */
  seed(key: string, older: readonly { ts: number; value: RuleValue }[]): void {
    const newest = older.at(-1)
    if (!newest) return
    const { values } = this.#lane.device
    values.seed(key, { ts: newest.ts, value: newest.value, previous: older.at(-2)?.value, receivedAt: newest.ts })
    values.samples.get(key)?.prepend(older)
  }

  begin(): void {
    this.#lane.add(this.#rule, this.#scene.from)
  }

  take(message: readonly RulePoint[]): void {
    this.#points += message.length
    this.#lane.apply(message)
  }

  end(): void {
    this.#lane.runTimers(this.#scene.to + 1, this.#scene.to + 1)
  }

  get result(): PreviewResult {
    const { evaluationCount: evaluations, lateCount: late, device } = this.#lane
    const isTruncated = [...device.values.samples.values()].some((samples) => samples.isTruncated)
    return { episodes: this.#episodes, evaluations, points: this.#points, late, isTruncated }
  }
}

/** Runs a rule over a history in virtual time. */
export function previewRule(rule: CompiledRule, history: History): PreviewResult {
  return PreviewRun.over(rule, history).result
}

function* messagesOf(points: Iterable<RulePoint>): Iterable<RulePoint[]> {
  let message: RulePoint[] = []
  for (const point of points) {
    const first = message[0]
    const isOther =
      first && (first.ts !== point.ts || first.receivedAt !== point.receivedAt || message.some(({ key }) => key === point.key))
    if (isOther) {
      yield message
      message = []
    }
    message.push(point)
  }
  if (message.length > 0) yield message
}

/** Takes a transition into the list of episodes. */
export function record(episodes: Episode[], transition: Transition): void {
  const open = episodes.at(-1)
  switch (transition.kind) {
    case 'raised': {
      const { startTs, confirmedTs, severity } = transition
      episodes.push({ startTs, confirmedTs, endTs: null, clearedTs: null, severities: [{ ts: confirmedTs, severity }] })
      return
    }
    case 'severity':
      open?.severities.push({ ts: transition.ts, severity: transition.severity })
      return
    case 'cleared':
      if (open) Object.assign(open, { endTs: transition.endTs, clearedTs: transition.clearedTs })
      return
    default:
      transition satisfies never
  }
}
