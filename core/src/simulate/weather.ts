// SPDX-License-Identifier: AGPL-3.0-only
import { createChance, round, warmthOfDay } from './chance.ts'
import type { Scenario } from './scenario.ts'

/** Weather stations: days and nights, fronts that pass, showers. */
export const weather: Scenario = {
  name: 'weather',
  product: { name: '气象站示例', description: '示例：气象站 Example: weather stations' },
  keys: {
    temperature: { title: { zh: '气温', en: 'Air temperature' }, unit: '°C', decimals: 1, min: -40, max: 60 },
    humidity: { title: { zh: '相对湿度', en: 'Relative humidity' }, unit: '%', decimals: 0, min: 0, max: 100 },
    pressure: { title: { zh: '气压', en: 'Pressure' }, unit: 'hPa', decimals: 1, min: 870, max: 1085 },
    windSpeed: { title: { zh: '风速', en: 'Wind speed' }, unit: 'm/s', decimals: 1, min: 0 },
    windDirection: { title: { zh: '风向', en: 'Wind direction' }, unit: '°', decimals: 0, min: 0, max: 359 },
    rain: { title: { zh: '下雨', en: 'Raining' } },
  },
  primaryKey: 'temperature',
  createUnit({ index, startTs }) {
    const chance = createChance(index)
    const mean = chance.between(10, 24)
    let pressure = chance.between(1002, 1022)
    let wind = chance.between(1, 6)
    let direction = chance.between(0, 360)
    let isRaining = false
    let at = startTs
    return {
      measure(ts) {
        const seconds = Math.min(3600, Math.max(0, ts - at) / 1000)
        at = ts
        // Each wanders and is drawn back to its mean; noise grows with the root of the time passed.
        const drift = Math.sqrt(seconds / 3600)
        pressure += (1012 - pressure) * (seconds / 200_000) + chance.noise(0.8 * drift)
        wind = Math.max(0, wind + (3.5 - wind) * (seconds / 7200) + chance.noise(1.2 * drift))
        direction = (direction + chance.noise(15 * drift) + 360) % 360
        isRaining = isRaining ? !chance.happens(seconds, 2400) : chance.happens(seconds, pressure < 1008 ? 14_400 : 86_400)
        const temperature = mean + 5 * warmthOfDay(ts) - (isRaining ? 2 : 0) + chance.noise(0.1)
        const humidity = 68 - 16 * warmthOfDay(ts) + (isRaining ? 18 : 0) + chance.noise(1)
        return {
          temperature: round(temperature, 1),
          humidity: Math.round(Math.min(100, Math.max(5, humidity))),
          pressure: round(pressure, 1),
          windSpeed: round(Math.max(0, wind + chance.noise(0.3)), 1),
          windDirection: Math.floor(direction),
          rain: isRaining,
        }
      },
    }
  },
}
