// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './server.ts'

export type Visit = { path: string; name: string }

/** Reached signed out, so they have walks of their own. */
const signedOut = new Set(['setup', 'login', 'reset'])

/** What stands for `:id` below the beginnings of paths. */
export type RouteIds = Record<`/${string}/`, string>

/** Every page of the router, read from it, so that a new page is walked from its first day. */
export function readRoutes(ids: RouteIds): { pages: Visit[]; signedOutPages: Visit[] } {
  const source = readFileSync(join(root, 'core/dashboard/src/router.ts'), 'utf8')
  const pages: Visit[] = []
  const signedOutPages: Visit[] = []
  let parent = ''
  for (const match of source.matchAll(/path: '([^']*)'(?:,\s*name: '([^']+)')?/g)) {
    const [, path = '', name] = match
    if (path.startsWith('/')) parent = path
    if (!name) continue
    const full = path.startsWith('/') ? path : `${parent}/${path}`
    const [, id] = Object.entries(ids).find(([start]) => full.startsWith(start)) ?? []
    if (id === undefined && full.includes('/:id')) throw new Error(`nothing stands for the id of ${full}`)
    const visit = { path: full.replace(':id', id ?? '').replace('/:path(.*)*', '/no/such/page'), name }
    ;(signedOut.has(name) ? signedOutPages : pages).push(visit)
  }
  return { pages, signedOutPages }
}
