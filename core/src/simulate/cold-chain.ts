// SPDX-License-Identifier: AGPL-3.0-only
import { createChance, hourOfDay, round, warmthOfDay } from './chance.ts'
import type { Scenario, Unit, UnitOptions } from './scenario.ts'

/** Rooms of a cold store: what they keep at which temperature. */
const setPoints = [-18, 4, -18, 2, -22, 5] as const
/** The one whose compressor loses its force. */
const failingIndex = 2

/** Seconds in which a closed room loses 63 % of its distance to the air outside, and an open one. */
const closedS = 14_400
const openS = 1800
/** K/s of a healthy compressor: enough for −22 °C on a hot day. */
const coolingPerS = 0.0075
const hysteresisK = 0.8
/** What is left of a failing compressor, and how long it takes to get there. */
const failingShare = 0.25
const fadeMs = 12 * 3_600_000
/** Longer steps would overshoot; a pause longer than all of them is skipped. */
const stepS = 60
const maxSteps = 30
const dayMs = 86_400_000

/** Cold rooms with doors, a compressor and a battery sensor. One of them is failing. */
export const coldChain: Scenario = {
  name: 'cold-chain',
  product: { name: '冷库示例', description: '示例：冷库温湿度传感器 Example: cold room sensors' },
  keys: {
    temperature: { title: { zh: '温度', en: 'Temperature' }, unit: '°C', decimals: 1, min: -40, max: 60 },
    humidity: { title: { zh: '湿度', en: 'Humidity' }, unit: '%', decimals: 1, min: 0, max: 100 },
    doorOpen: { title: { zh: '门开', en: 'Door open' } },
    compressor: { title: { zh: '压缩机', en: 'Compressor' } },
    battery: { title: { zh: '电量', en: 'Battery' }, unit: '%', decimals: 0, min: 0, max: 100 },
  },
  primaryKey: 'temperature',
  createUnit,
}

function createUnit({ index, startTs, failsAt }: UnitOptions): Unit {
  const chance = createChance(index)
  const setPoint = setPoints[index % setPoints.length]!
  const isFailing = index === failingIndex
  const fullBattery = chance.between(78, 100)
  let temperature = setPoint + (isFailing && failsAt === undefined ? 4 : chance.between(-0.5, 0.5))
  let isCooling = chance.next() < 0.4
  let isOpen = false
  let openUntil = 0
  let at = startTs

  function step(seconds: number): void {
    const outside = 24 + 6 * warmthOfDay(at)
    const hour = hourOfDay(at)
    if (isOpen) isOpen = at < openUntil
    // People work from 7 to 20 o'clock; at night somebody looks in now and then.
    else if (chance.happens(seconds, hour >= 7 && hour < 20 ? 2700 : 28_800)) {
      isOpen = true
      openUntil = at + chance.between(40, 240) * 1000
    }
    if (temperature > setPoint + hysteresisK) isCooling = true
    if (temperature < setPoint - hysteresisK) isCooling = false
    const warming = (outside - temperature) / (isOpen ? openS : closedS)
    temperature += seconds * (warming - (isCooling ? coolingPerS * strength() : 0)) + chance.noise(0.01 * Math.sqrt(seconds / stepS))
  }

  function strength(): number {
    if (!isFailing) return 1
    if (failsAt === undefined) return failingShare
    return Math.min(1, Math.max(failingShare, 1 - ((at - failsAt) / fadeMs) * (1 - failingShare)))
  }

  return {
    measure(ts) {
      const wholeSteps = Math.min(maxSteps, Math.ceil((ts - at) / 1000 / stepS))
      const seconds = Math.min(stepS, (ts - at) / 1000 / Math.max(1, wholeSteps))
      for (let count = 0; count < wholeSteps; count++) {
        at += seconds * 1000
        step(seconds)
      }
      at = ts
      const discharge = ((ts - startTs) / dayMs) * 0.4
      return {
        temperature: round(temperature + chance.noise(0.06), 1),
        humidity: round(Math.min(100, 62 + (isOpen ? 14 : 0) + (isCooling ? -3 : 2) + chance.noise(0.8)), 1),
        doorOpen: isOpen,
        compressor: isCooling,
        battery: Math.round(Math.max(1, fullBattery - discharge)),
      }
    },
  }
}
