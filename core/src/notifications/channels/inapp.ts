// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { OwnChannelType } from '../channel-type.ts'

/** In the dashboard: every installation has one, and nothing can be wrong with it. */
export const inapp: OwnChannelType = {
  type: 'inapp',
  own: 'inapp',
  title: { zh: '站内信', en: 'In-app' },
  config: Type.Object({}, { additionalProperties: false }),
  secrets: [],
  rates: [],
  dialect: 'commonmark',
  limit: { unit: 'chars', markdown: 20_000, text: 20_000 },
}
