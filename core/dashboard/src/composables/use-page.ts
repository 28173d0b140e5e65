// SPDX-License-Identifier: AGPL-3.0-only
import { reactive, readonly, watchEffect } from 'vue'
import type { DataState } from './use-data.ts'
import { useSession } from '../session.ts'

export type PageState = 'loading' | 'ready' | 'empty' | 'error' | 'locked'

const current = reactive<{ title: string; state: PageState }>({ title: '', state: 'loading' })

/** What `<main>` and the window's title say of the page that is open [D-21]. */
export const openPage = readonly(current)

/** Called once by every page: its heading and the state of its data. */
export function usePage(title: () => string, state: () => PageState | DataState = () => 'ready'): void {
  const session = useSession()
  watchEffect(() => {
    current.title = title()
    current.state = state()
    document.title = [current.title, session.site.name].filter(Boolean).join(' · ')
  })
}

/** Before the next page says what it is. */
export function leavePage(): void {
  current.state = 'loading'
}
