// SPDX-License-Identifier: AGPL-3.0-only
import type { ProductSettings } from '../../products/schemas.ts'
import { isMatch } from '../topic-filters.ts'
import type { UplinkKind } from '../uplink.ts'

type Transport = ProductSettings['transport']
type OwnFilter = { kind: UplinkKind; levels: readonly string[] }

/** Topics with a meaning of their own, which no filter of a product reaches. */
const fixedTopics = /^(?:v1\/|v2\/|\/provision|\$)/
/** Split once per product: its settings are one object for all its devices. */
const compiled = new WeakMap<Transport, readonly OwnFilter[]>()

/** What a message on this topic is by the product's own filters; telemetry where both kinds match. */
export function findOwnTopic(transport: Transport, topic: string): UplinkKind | undefined {
  if (transport.telemetryTopics.length === 0 && transport.attributesTopics.length === 0) return undefined
  if (isFixedTopic(topic)) return undefined
  const levels = topic.split('/')
  return compile(transport).find((filter) => isMatch(filter.levels, levels))?.kind
}

export function isFixedTopic(topic: string): boolean {
  return fixedTopics.test(topic)
}

function compile(transport: Transport): readonly OwnFilter[] {
  const known = compiled.get(transport)
  if (known !== undefined) return known
  const split = (kind: UplinkKind, filters: readonly string[]) => filters.map((filter) => ({ kind, levels: filter.split('/') }))
  const made = [...split('telemetry', transport.telemetryTopics), ...split('attributes', transport.attributesTopics)]
  compiled.set(transport, made)
  return made
}
