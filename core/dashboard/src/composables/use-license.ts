// SPDX-License-Identifier: AGPL-3.0-only
import { useQueryCache } from '@pinia/colada'
import { computed, onScopeDispose } from 'vue'
import { license, modules } from '../api/calls.ts'
import { keys } from '../api/keys.ts'
import { liveSocket, onLiveEvent } from '../live/live.ts'
import { usePrefs } from '../prefs.ts'
import { useSession } from '../session.ts'
import { useData } from './use-data.ts'

/** [L-125] */
const lookMs = 300_000
/** Name of the choice in the person's preferences. */
const hiddenName = 'unlicensed'

/** The license, for those who may know of it; nothing is asked for anybody else [D-71]. */
export function useLicense() {
  const session = useSession()
  return useData({ key: keys.license, query: license.get, enabled: () => session.user !== null && session.has('license.read') })
}

/** Modules of this build that are not unlocked; only readers of the license see that they are there [D-70]. */
export function useLockedModules() {
  const session = useSession()
  const prefs = usePrefs()
  const mayKnow = () => session.user !== null && session.has('license.read')
  const { data, state } = useData({ key: keys.modules, query: modules.list, enabled: mayKnow })
  const locked = computed(() => (mayKnow() ? (data.value?.items ?? []).filter(({ status }) => status === 'locked') : []))
  const isHidden = computed({
    get: () => prefs.hidden.includes(hiddenName),
    set(hide) {
      const rest = prefs.hidden.filter((one) => one !== hiddenName)
      prefs.hidden = hide ? [...rest, hiddenName] : rest
      void session.savePrefs()
    },
  })
  return {
    locked,
    isHidden,
    /** Whether it is known by now. */
    isKnown: computed(() => !mayKnow() || state.value !== 'loading'),
  }
}

/** Keeps what is known of the license and the modules up to date while somebody is signed in. */
export function followLicense(): void {
  const session = useSession()
  const cache = useQueryCache()
  const look = () => {
    if (!session.user || !session.has('license.read')) return
    void cache.invalidateQueries({ key: keys.license() })
    void cache.invalidateQueries({ key: keys.modules() })
  }
  // The socket tells of changes at once; what it missed while away is asked for.
  let wasOpen = false
  const stop = onLiveEvent((topic) => {
    if (topic === 'license' || topic === 'modules' || (topic === 'open' && wasOpen)) look()
    if (topic === 'open') wasOpen = true
  })
  if (session.user && session.has('license.read')) liveSocket().start()
  const timer = setInterval(() => {
    if (!document.hidden) look()
  }, lookMs)
  onScopeDispose(() => {
    stop()
    clearInterval(timer)
  })
}
