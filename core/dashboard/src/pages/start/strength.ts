// SPDX-License-Identifier: AGPL-3.0-only

export type Strength = 'short' | 'weak' | 'fair' | 'good'

/** A word about a password while it is typed. What is refused is decided by the server alone [D-63]. */
export function judgePassword(password: string): Strength {
  const length = [...password].length
  if (length < 10) return 'short'
  const different = new Set(password.toLowerCase()).size
  if (different < 5) return 'weak'
  return length >= 14 && different >= 8 ? 'good' : 'fair'
}
