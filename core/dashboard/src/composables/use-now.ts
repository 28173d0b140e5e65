// SPDX-License-Identifier: AGPL-3.0-only
import { readonly, ref } from 'vue'

/** One timer for every relative time on the page [D-17]. */
const tickMs = 10_000
const now = ref(Date.now())
setInterval(() => (now.value = Date.now()), tickMs)

const current = readonly(now)

/** The present, renewed every ten seconds. */
export function useNow() {
  return current
}
