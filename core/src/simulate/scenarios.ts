// SPDX-License-Identifier: AGPL-3.0-only
import { coldChain } from './cold-chain.ts'
import { energyMeter } from './energy-meter.ts'
import type { Scenario } from './scenario.ts'
import { weather } from './weather.ts'

export const scenarios: readonly Scenario[] = [coldChain, energyMeter, weather]
