// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import { FEATURES } from './features.ts'
import type { Feature } from './features.ts'
import type { License } from './snapshot.ts'

/** Whether an act changes something; reads, exports and deletes stay when a license has expired. */
export type GateAct = 'read' | 'write'

/**
 * The one question every entry point of a commercial module asks, after who it is and what they may [L-55]: routes,
 * sockets, jobs, commands.
 *
 * @param row texts of the feature, where it is none of ours
 * @param mayKnowState the caller may read the license
 * @throws {ProblemError} 403 `LICENSE_FEATURE_REQUIRED`, `LICENSE_EXPIRED_READONLY`
 */
export function passGate(
  license: License,
  feature: string,
  act: GateAct,
  { row = FEATURES[feature], mayKnowState = false }: { row?: Feature | undefined; mayKnowState?: boolean } = {},
): void {
  const status = license.status(feature)
  if (status === 'active' || (status === 'readonly' && act === 'read')) return
  const code = status === 'locked' ? 'LICENSE_FEATURE_REQUIRED' : 'LICENSE_EXPIRED_READONLY'
  license.countRefusal(code)
  if (status === 'locked') throw new ProblemError(code, { members: { feature, editions: row?.editions ?? [] } })
  throw new ProblemError(code, {
    members: (language) => ({
      feature,
      message: row?.message[language] ?? '',
      ...(mayKnowState ? { state: license.get().state } : {}),
    }),
  })
}

/** [L-56] Methods that change something, unless the route says otherwise. */
export function actOf(method: string, config: { license?: 'always' | 'write' }): GateAct {
  if (config.license === 'always') return 'read'
  if (config.license === 'write') return 'write'
  return ['POST', 'PUT', 'PATCH'].includes(method) ? 'write' : 'read'
}
