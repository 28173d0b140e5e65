// SPDX-License-Identifier: AGPL-3.0-only
import type { Component } from 'vue'
import { apiFetch, fileNameOf, saveFile } from './api/client.ts'
import { baseUrl } from './base.ts'
import type { MenuGroup } from './shell/menu.ts'

/** `@iot-pms/core/dashboard`: what pages of modules are made with. */
export { default as ConfirmDialog } from './components/ConfirmDialog.vue'
export { default as CopyField } from './components/CopyField.vue'
export { default as DataTable } from './components/DataTable.vue'
export type { Column } from './components/DataTable.vue'
export { default as EmptyState } from './components/EmptyState.vue'
export { default as ErrorState } from './components/ErrorState.vue'
export { default as FormError } from './components/FormError.vue'
export { default as FormField } from './components/FormField.vue'
export { default as PageHeader } from './components/PageHeader.vue'
export { default as SkeletonRows } from './components/SkeletonRows.vue'
export { default as TabBar } from './components/TabBar.vue'
export { default as TimeAgo } from './components/TimeAgo.vue'
export { useData } from './composables/use-data.ts'
export { useForm } from './composables/use-form.ts'
export { useFormat } from './composables/use-format.ts'
export { useList } from './composables/use-list.ts'
export { usePage } from './composables/use-page.ts'
export { IconActivity, IconDownload, IconPlus } from './icons.ts'
export { useSession } from './session.ts'

export type ModulePage = {
  /** Begins with the module's name. */
  path: string
  name: string
  /** Key of its text in the module's messages. */
  title: string
  permission: string
  component: () => Promise<{ default: Component }>
  /** With both it is in the menu. */
  group?: MenuGroup
  icon?: Component
  order?: number
  /** Path of the entry that is marked in the menu while this page is open. */
  under?: string
}

/** What a module shows. Messages lie below its name; they are JSON files, compiled with the dashboard. */
export type DashboardModule = {
  name: string
  pages: readonly ModulePage[]
  messages: Record<'zh' | 'en', () => Promise<Record<string, unknown>>>
  /** Found in bundles that hold the module's pages, and in no other. */
  canary: string
}

/** The default export of a module's `dashboard/module.ts`. */
export function defineDashboardModule(module: DashboardModule): DashboardModule {
  return module
}

function urlOf(path: string, query: Readonly<Record<string, string | undefined>> = {}): URL {
  const url = new URL(path.replace(/^\//, ''), baseUrl)
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== '') url.searchParams.set(name, value)
  return url
}

function requestOf(method: string, path: string, body?: unknown): Request {
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }
  return new Request(urlOf(path), { method, ...json })
}

/** Calls of a module's own routes, by the shape it knows they have. All throw `ApiError`. */
export const api = {
  async get<T>(path: string, query?: Readonly<Record<string, string | undefined>>, signal?: AbortSignal): Promise<T> {
    const response = await apiFetch(new Request(urlOf(path, query), signal ? { signal } : {}))
    return (await response.json()) as T
  },
  async send<T = undefined>(method: 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, body?: unknown): Promise<T> {
    const response = await apiFetch(requestOf(method, path, body))
    return (response.status === 204 ? undefined : await response.json()) as T
  },
  /** A file that the server makes of what is asked for. */
  async download(path: string, body: unknown): Promise<void> {
    const response = await apiFetch(requestOf('POST', path, body))
    saveFile(await response.blob(), fileNameOf(response) ?? 'export')
  },
}
