// SPDX-License-Identifier: AGPL-3.0-only
import type { CompiledRule } from './compile-rule.ts'
import { DeviceValues } from './device-values.ts'
import type { RulePoint } from './device-values.ts'
import { Lane } from './lane.ts'
import type { AttributeScope, DeviceField } from './moment.ts'
import type { Transition } from './pair.ts'
import type { Severity } from './schemas.ts'
import type { Known } from './values.ts'

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

/** Runs a rule over a history in virtual time, with the very engine that runs it live [10]. */
export function previewRule(rule: CompiledRule, history: History): PreviewResult {
  const { from, to } = history
  const attributes = new Map(history.attributes)
  const episodes: Episode[] = []
  const lane = new Lane(
    {
      values: new DeviceValues(),
      readAttribute: (scope: AttributeScope, name) => (scope === 'server' ? attributes.get(name) : undefined),
      readField: history.readField ?? (() => undefined),
      connection: undefined,
      createdAt: from,
    },
    (_, transitions) => transitions.forEach((transition) => record(episodes, transition)),
  )
  lane.add(rule, from)
  const changes = [...(history.attributeChanges ?? [])]
  const changeUntil = (before: number): void => {
    while (changes.length > 0 && changes[0]!.at < before) {
      const { at, name, value } = changes.shift()!
      lane.change(
        at,
        ({ reads }) => reads.attributes.has(`server/${name}`),
        () => attributes.set(name, value),
      )
    }
  }
  let count = 0
  for (const message of messagesOf(history.points)) {
    count += message.length
    changeUntil(message[0]!.receivedAt)
    lane.apply(message)
  }
  changeUntil(to + 1)
  lane.runTimers(to + 1, to + 1)
  const isTruncated = [...lane.device.values.samples.values()].some((samples) => samples.isTruncated)
  return { episodes, evaluations: lane.evaluationCount, points: count, late: lane.lateCount, isTruncated }
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
