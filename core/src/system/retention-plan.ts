// SPDX-License-Identifier: AGPL-3.0-only
import type { RuleDraft } from './retention-rules.ts'

/** Which keys of a group of devices a rule decides about; undefined: all keys. */
export type RuleShare = { rule: RuleDraft; keyNos: number[] | undefined }

/** Devices that the same rules decide about: of one product, or of all products but those. */
export type DeviceGroup = { productId: string | undefined; exceptProductIds: readonly string[]; shares: RuleShare[] }

/**
 * Says for each product and key which rule counts: product and pattern before pattern before product before
 * tenant. Of two patterns the one with more letters of its own counts, then the one that keeps longer.
 */
export function planRetention(rules: readonly RuleDraft[], keys: readonly { key: string; keyNo: number }[]): DeviceGroup[] {
  const sorted = [...rules].sort(compareRules)
  const products = [...new Set(rules.flatMap((rule) => (rule.productId === null ? [] : [rule.productId])))]
  const groups = [
    ...products.map((productId) => ({ productId, exceptProductIds: [] })),
    { productId: undefined, exceptProductIds: products },
  ]
  return groups.map((group) => ({ ...group, shares: shareKeys(sorted, group.productId, keys) })).filter((group) => group.shares.length > 0)
}

function shareKeys(
  sorted: readonly RuleDraft[],
  productId: string | undefined,
  keys: readonly { key: string; keyNo: number }[],
): RuleShare[] {
  const own = sorted.filter((rule) => rule.productId === null || rule.productId === productId)
  const first = own[0]
  if (!first) return []
  // Without patterns one rule decides about everything, also about keys that come meanwhile.
  const shares: RuleShare[] = []
  if (first.keyPattern === null) shares.push({ rule: first, keyNos: undefined })
  else {
    const byRule = new Map<RuleDraft, number[]>()
    for (const { key, keyNo } of keys) {
      const rule = own.find((one) => one.keyPattern === null || matchesGlob(one.keyPattern, key))
      if (!rule) continue
      const numbers = byRule.get(rule) ?? []
      numbers.push(keyNo)
      byRule.set(rule, numbers)
    }
    for (const [rule, keyNos] of byRule) shares.push({ rule, keyNos })
  }
  return shares.filter(({ rule }) => rule.keepDays !== null)
}

function compareRules(a: RuleDraft, b: RuleDraft): number {
  const rank = (rule: RuleDraft) => (rule.keyPattern === null ? 0 : 2) + (rule.productId === null ? 0 : 1)
  const letters = (rule: RuleDraft) => (rule.keyPattern ?? '').replace(/[*?]/g, '').length
  const days = (rule: RuleDraft) => rule.keepDays ?? Number.MAX_SAFE_INTEGER
  return rank(b) - rank(a) || letters(b) - letters(a) || days(b) - days(a) || ((a.id ?? '') < (b.id ?? '') ? -1 : 1)
}

/** `*` stands for any characters, `?` for one. Steps back to the last star only, so no pattern is slow. */
export function matchesGlob(pattern: string, text: string): boolean {
  const wanted = [...pattern]
  const given = [...text]
  let at = 0
  let star = -1
  let starAt = 0
  for (let i = 0; i < given.length;) {
    if (wanted[at] === '*') {
      star = at++
      starAt = i
    } else if (at < wanted.length && (wanted[at] === '?' || wanted[at] === given[i])) {
      at++
      i++
    } else if (star >= 0) {
      at = star + 1
      i = ++starAt
    } else return false
  }
  while (wanted[at] === '*') at++
  return at === wanted.length
}
