// SPDX-License-Identifier: AGPL-3.0-only
import type { Point } from '../telemetry/points.ts'

/** How a key is shown. `decimals` is absent for booleans. */
export type SimulatedKey = { title: { zh: string; en: string }; unit?: string; decimals?: number; min?: number; max?: number }

/** What a unit measures at one moment; numbers are already rounded to the decimals of their key. */
export type Values = Record<string, number | boolean>

/** One simulated device. Its state goes on from call to call, so that the values follow each other like real ones. */
export type Unit = { measure(ts: number): Values }

export type UnitOptions = {
  index: number
  /** ms; the first measurement comes at or after it. */
  startTs: number
  /** When the failing unit of a scenario begins to fail; absent: it has been failing for a while. */
  failsAt?: number
}

export type Scenario = {
  name: string
  product: { name: string; description: string }
  keys: Record<string, SimulatedKey>
  primaryKey: string
  createUnit(options: UnitOptions): Unit
}

/** The payload of one measurement; a number with decimals always shows them, so that it stays a double. */
export function formatValues(scenario: Scenario, values: Values): string {
  const members = Object.entries(values).map(
    ([key, value]) => `${JSON.stringify(key)}:${typeof value === 'number' ? value.toFixed(scenario.keys[key]?.decimals ?? 0) : value}`,
  )
  return `{${members.join(',')}}`
}

/** The same as the points the server makes of that payload. */
export function toPoints(scenario: Scenario, values: Values, ts: number): Point[] {
  return Object.entries(values).map(([key, value]) => {
    if (typeof value === 'boolean') return { key, ts, kind: 'boolean', value }
    return { key, ts, kind: scenario.keys[key]?.decimals ? 'double' : 'integer', value }
  })
}
