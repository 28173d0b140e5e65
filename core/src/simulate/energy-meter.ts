// SPDX-License-Identifier: AGPL-3.0-only
import { createChance, hourOfDay, round } from './chance.ts'
import type { Scenario } from './scenario.ts'

/** Meters of workshops: load by shifts, a counter that only grows. */
export const energyMeter: Scenario = {
  name: 'energy-meter',
  product: { name: '电表示例', description: '示例：三相电表 Example: electricity meters' },
  keys: {
    power: { title: { zh: '有功功率', en: 'Active power' }, unit: 'kW', decimals: 2, min: 0 },
    voltage: { title: { zh: '电压', en: 'Voltage' }, unit: 'V', decimals: 1 },
    current: { title: { zh: '电流', en: 'Current' }, unit: 'A', decimals: 2, min: 0 },
    powerFactor: { title: { zh: '功率因数', en: 'Power factor' }, decimals: 3, min: 0, max: 1 },
    energy: { title: { zh: '正向有功电能', en: 'Energy' }, unit: 'kWh', decimals: 3, min: 0 },
  },
  primaryKey: 'power',
  createUnit({ index, startTs }) {
    const chance = createChance(index)
    const fullLoadKw = chance.between(15, 120)
    let energyKwh = chance.between(1000, 90_000)
    let share = usualShare(startTs)
    let at = startTs
    return {
      measure(ts) {
        const hours = Math.max(0, ts - at) / 3_600_000
        at = ts
        // Machines start and stop one after the other: a tenth of an hour until the load has followed.
        share += (usualShare(ts) - share) * (1 - Math.exp(-hours / 0.1)) + chance.noise(0.08 * Math.sqrt(hours))
        const power = fullLoadKw * Math.max(0.02, share)
        const voltage = 230 - 6 * share + chance.noise(0.7)
        const powerFactor = Math.min(1, 0.82 + 0.13 * share + chance.noise(0.005))
        energyKwh += power * hours
        return {
          power: round(power, 2),
          voltage: round(voltage, 1),
          current: round((power * 1000) / (3 * voltage * powerFactor), 2),
          powerFactor: round(powerFactor, 3),
          energy: round(energyKwh, 3),
        }
      },
    }
  },
}

/** Of the full load: two shifts with a break at noon, a late one, and what runs at night. */
function usualShare(ts: number): number {
  const hour = hourOfDay(ts)
  if (hour >= 8 && hour < 12) return 0.85
  if (hour >= 13 && hour < 18) return 0.9
  return hour >= 18 && hour < 22 ? 0.45 : 0.12
}
