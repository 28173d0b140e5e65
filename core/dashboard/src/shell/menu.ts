// SPDX-License-Identifier: AGPL-3.0-only
import { computed } from 'vue'
import type { Component } from 'vue'
import { useRouter } from 'vue-router'
import { routesVersion } from '../module-pages.ts'
import { useSession } from '../session.ts'

export const menuGroups = ['monitor', 'configure', 'operate', 'settings'] as const
export type MenuGroup = (typeof menuGroups)[number]

declare module 'vue-router' {
  interface RouteMeta {
    /** Key of the menu's text. */
    title?: string
    icon?: Component
    group?: MenuGroup
    permission?: string
    order?: number
    /** Path of the entry that is marked while this page is open, where it has none of its own. */
    under?: string
    /** Reachable signed out. */
    isPublic?: boolean
    /** Also in the bottom bar of phones. */
    isPrimary?: boolean
  }
}

export type MenuEntry = { path: string; name: string; title: string; icon: Component; group: MenuGroup; isPrimary: boolean }

/** The menu is computed from the routes: what exists and what this person may see. */
export function useMenu() {
  const router = useRouter()
  const session = useSession()
  const entries = computed<MenuEntry[]>(() => {
    // Read so that pages of modules come and go.
    void routesVersion.value
    return router
      .getRoutes()
      .filter(({ meta }) => meta.group && meta.icon && meta.title && (!meta.permission || session.has(meta.permission)))
      .sort((a, b) => menuGroups.indexOf(a.meta.group!) - menuGroups.indexOf(b.meta.group!) || (a.meta.order ?? 0) - (b.meta.order ?? 0))
      .map(({ path, name, meta }) => ({
        path,
        name: String(name ?? path),
        title: meta.title!,
        icon: meta.icon!,
        group: meta.group!,
        isPrimary: meta.isPrimary === true,
      }))
  })
  const groups = computed(() =>
    menuGroups
      .map((group) => ({ group, entries: entries.value.filter((entry) => entry.group === group) }))
      .filter((one) => one.entries.length > 0),
  )
  return { entries, groups }
}
