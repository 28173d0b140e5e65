// SPDX-License-Identifier: AGPL-3.0-only
import { computed, onScopeDispose, ref } from 'vue'
import type { ComputedRef } from 'vue'
import { useRoute, useRouter } from 'vue-router'
import { readBound } from '../time.ts'

export type Range = {
  from: ComputedRef<number>
  to: ComputedRef<number>
  /** The span counted back from now, when it is one. */
  preset: ComputedRef<string | undefined>
  isLive: ComputedRef<boolean>
  /** Changes when the range is chosen anew, not when the present moves on. */
  chosen: ComputedRef<string>
  set(from: number, to: number): void
  setPreset(preset: string): void
  reset(): void
}

/** How often a range that ends now moves on. */
const tickMs = 2000

/** The range of a page, kept in its address: `?from=now-24h&to=now` or epoch ms [D-55]. */
export function useRange(fallback = '24h'): Range {
  const route = useRoute()
  const router = useRouter()
  const now = ref(Date.now())
  const timer = setInterval(() => {
    if (!document.hidden) now.value = Date.now()
  }, tickMs)
  onScopeDispose(() => clearInterval(timer))

  const text = (name: string) => (typeof route.query[name] === 'string' ? route.query[name] : undefined)
  const fromText = computed(() => text('from') ?? `now-${fallback}`)
  const toText = computed(() => text('to') ?? 'now')
  const isLive = computed(() => toText.value === 'now')
  const to = computed(() => readBound(toText.value, now.value) ?? now.value)
  const from = computed(() => {
    const value = readBound(fromText.value, now.value)
    return value !== undefined && value < to.value ? value : to.value - 86_400_000
  })

  function go(query: { from: string; to: string } | undefined): void {
    const { from: _from, to: _to, ...rest } = route.query
    void router.replace({ query: { ...rest, ...query } })
  }
  return {
    from,
    to,
    isLive,
    preset: computed(() => (isLive.value ? /^now-(\w+)$/.exec(fromText.value)?.[1] : undefined)),
    chosen: computed(() => `${fromText.value} ${toText.value}`),
    set: (start, end) => go({ from: String(Math.max(0, start)), to: String(Math.max(1, end)) }),
    setPreset: (preset) => go(preset === fallback ? undefined : { from: `now-${preset}`, to: 'now' }),
    reset: () => go(undefined),
  }
}
