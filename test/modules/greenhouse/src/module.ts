// SPDX-License-Identifier: AGPL-3.0-only
import { defineModule } from '@iot-pms/core'
import { Type } from 'typebox'
import { drip } from './drip.ts'
import { createDripGateway } from './gateway.ts'
import { noteWarmest, registerHouses, removeColdHouses } from './houses.ts'

/** Found in every build that holds this module's code, and in no other. */
export const canary = 'IOT-PMS-CANARY-5a1f0c7be2d94c6f8e3b7a90d1c2e4f6'

/** The table of contents of the example module. */
export default defineModule({
  name: 'greenhouse',
  config: Type.Object({
    IOT_PMS_GREENHOUSE_DRIP_PORT: Type.Optional(Type.String()),
    IOT_PMS_GREENHOUSE_MAX_HOUSES: Type.Integer({ default: 100, minimum: 1 }),
  }),
  permissions: { 'greenhouse.house.read': 'viewer', 'greenhouse.house.write': 'operator' },
  routes: registerHouses,
  codecs: [drip],
  onPoints: noteWarmest,
  jobs: [{ name: 'cold-houses', run: removeColdHouses }],
  gateways: [{ name: 'drip', port: 'IOT_PMS_GREENHOUSE_DRIP_PORT', create: createDripGateway }],
})
