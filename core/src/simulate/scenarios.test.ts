// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { defaultPayloadRules } from '../ingest/registry.ts'
import { decodeTelemetry } from '../ingest/codecs.ts'
import { formatValues, toPoints } from './scenario.ts'
import type { Values } from './scenario.ts'
import { scenarios } from './scenarios.ts'

const dayMs = 86_400_000
const start = Date.UTC(2025, 5, 1)

function run(name: string, index: number, stepMs: number, durationMs: number, failsAt?: number): Values[] {
  const scenario = scenarios.find((one) => one.name === name)!
  const unit = scenario.createUnit({ index, startTs: start, ...(failsAt === undefined ? {} : { failsAt }) })
  return Array.from({ length: durationMs / stepMs }, (_, count) => unit.measure(start + count * stepMs))
}
const numbers = (rows: Values[], key: string) => rows.map((row) => Number(row[key]))

describe.each(scenarios.map((scenario) => scenario.name))('the scenario %s', (name) => {
  const scenario = scenarios.find((one) => one.name === name)!

  it('measures each key of its product, within its bounds and decimals', () => {
    for (const index of [0, 1, 2, 11]) {
      for (const row of run(name, index, 600_000, dayMs)) {
        expect(Object.keys(row).toSorted()).toEqual(Object.keys(scenario.keys).toSorted())
        for (const [key, { decimals, min, max }] of Object.entries(scenario.keys)) {
          const value = row[key]
          if (decimals === undefined) expect(value, key).toBeTypeOf('boolean')
          else {
            expect(Number(Number(value).toFixed(decimals)), key).toBe(value)
            expect(Number(value), key).toBeGreaterThanOrEqual(min ?? -Infinity)
            expect(Number(value), key).toBeLessThanOrEqual(max ?? Infinity)
          }
        }
      }
    }
  })

  it('gives the same run again, and each device its own', () => {
    expect(run(name, 3, 60_000, dayMs)).toEqual(run(name, 3, 60_000, dayMs))
    expect(run(name, 3, 60_000, dayMs)).not.toEqual(run(name, 4, 60_000, dayMs))
  })

  it('stays plausible when it sends ten times a second and when it pauses for days', () => {
    const key = scenario.primaryKey
    const often = numbers(run(name, 0, 100, 600_000), key)
    expect(Math.max(...often) - Math.min(...often)).toBeLessThan(Math.max(8, Math.abs(often[0]!) / 2))
    const unit = scenario.createUnit({ index: 0, startTs: start })
    for (const days of [0, 3, 30]) expect(Math.abs(Number(unit.measure(start + days * dayMs)[key]))).toBeLessThan(200)
  })

  it('is read by the server as the same points', () => {
    const [values] = run(name, 1, 60_000, 60_000)
    const device = { lastServerTs: 0 }
    const decoded = decodeTelemetry(
      Buffer.from(`{"ts":${start},"values":${formatValues(scenario, values!)}}`),
      defaultPayloadRules,
      device,
      Date.now(),
    )
    expect(decoded).toEqual({ points: toPoints(scenario, values!, start), rejects: [] })
  })
})

describe('the cold chain', () => {
  it('keeps healthy rooms near their set point, opens doors by day and uses up batteries', () => {
    const rows = run('cold-chain', 0, 60_000, 7 * dayMs)
    const temperatures = numbers(rows, 'temperature').toSorted((a, b) => a - b)
    expect(temperatures[Math.floor(temperatures.length / 2)]).toBeCloseTo(-18, -0.5)
    expect(temperatures.at(-1)).toBeLessThan(-8)
    const openShare = rows.filter((row) => row['doorOpen']).length / rows.length
    expect(openShare).toBeGreaterThan(0.01)
    expect(openShare).toBeLessThan(0.1)
    expect(Number(rows.at(-1)!['battery'])).toBeLessThan(Number(rows[0]!['battery']))
  })

  it('lets the third room drift away from the moment it fails', () => {
    const failsAt = start + 5 * dayMs
    const temperatures = numbers(run('cold-chain', 2, 60_000, 7 * dayMs, failsAt), 'temperature')
    const mean = (rows: number[]) => rows.reduce((sum, one) => sum + one, 0) / rows.length
    expect(mean(temperatures.slice(0, 5 * 1440))).toBeLessThan(-16)
    expect(mean(temperatures.slice(-720))).toBeGreaterThan(-8)
  })

  it('has one room that is failing already when no moment is given', () => {
    const temperatures = numbers(run('cold-chain', 2, 60_000, dayMs), 'temperature')
    expect(temperatures.at(-1)).toBeGreaterThan(-12)
  })
})

describe('the energy meter', () => {
  it('has a counter that never goes back and grows with the power', () => {
    const rows = run('energy-meter', 0, 60_000, dayMs)
    const energy = numbers(rows, 'energy')
    expect(energy.every((value, index) => index === 0 || value >= energy[index - 1]!)).toBe(true)
    const fromPower = numbers(rows, 'power').reduce((sum, kw) => sum + kw / 60, 0)
    expect(energy.at(-1)! - energy[0]!).toBeCloseTo(fromPower, -1)
  })
})
