// SPDX-License-Identifier: AGPL-3.0-only
import { ref } from 'vue'
import type { Router } from 'vue-router'
import { editions } from './api/calls.ts'
import { addMessages } from './i18n/index.ts'
import { onLiveEvent } from './live/live.ts'
import type { DashboardModule } from './module-api.ts'
import { useSession } from './session.ts'

/** Pages of the modules of this build, each a chunk that is fetched when its module is unlocked and not before [MO-62]. */
const found = Object.entries(
  import.meta.glob<{ default: DashboardModule }>('../../../{verticals,enterprise,saas}/*/dashboard/module.ts'),
).map(([path, load]) => ({ name: path.split('/').at(-3)!, load }))

/** Counts changes of the routes, which the router itself tells nobody. */
export const routesVersion = ref(0)

/** Keeps the routes of module pages to what the license unlocks. */
export class ModulePages {
  readonly #router: Router
  readonly #report: (error: unknown) => void
  readonly #open = new Map<string, (() => void)[]>()
  #syncing: Promise<void> = Promise.resolve()

  /** @param report hears of failures; the pages that are there stay */
  constructor(router: Router, report: (error: unknown) => void) {
    this.#router = router
    this.#report = report
  }

  /** For as long as the application lives. */
  follow(): void {
    if (found.length === 0) return
    const session = useSession()
    session.onEnter(() => void this.sync({ isFresh: true }))
    onLiveEvent((topic) => {
      if (topic === 'modules' || topic === 'open') void this.sync()
    })
  }

  /**
   * One after the other; a failure leaves what there is, and the next event tries again.
   *
   * @param isFresh the person has signed in just now
   */
  sync({ isFresh = false } = {}): Promise<void> {
    if (found.length === 0) return Promise.resolve()
    this.#syncing = this.#syncing.then(() => this.#sync(isFresh)).catch(this.#report)
    return this.#syncing
  }

  async #sync(isFresh: boolean): Promise<void> {
    const session = useSession()
    if (!session.user) return
    // Everybody may know what this build can do; of the license itself nothing is asked for [D-71].
    const present = (await editions.get()).modules
    const isOn = (name: string) => present.some((one) => one.name === name && one.status === 'active')
    for (const { name, load } of found) {
      const routes = this.#open.get(name)
      if (isOn(name) && !routes) {
        const { default: module } = await load()
        await this.#add(module)
        // The rights of a module exist since it runs: a token from before does not have them.
        if (!isFresh && module.pages.some(({ permission }) => !session.has(permission))) await session.renew()
      } else if (!isOn(name) && routes) {
        this.#open.delete(name)
        for (const remove of routes) remove()
        this.#changed(name)
      }
    }
  }

  async #add({ name, pages, messages }: DashboardModule): Promise<void> {
    await addMessages(messages)
    const routes = pages.map(({ path, name: page, title, permission, component, group, icon, under, order = 50 }) =>
      this.#router.addRoute({
        path,
        name: page,
        component,
        meta: { title, permission, order, ...(group ? { group } : {}), ...(icon ? { icon } : {}), ...(under ? { under } : {}) },
      }),
    )
    this.#open.set(name, routes)
    this.#changed(name)
  }

  /** Who stands on a page that came or went sees that. */
  #changed(name: string): void {
    routesVersion.value++
    const { fullPath, path } = this.#router.currentRoute.value
    if (path === `/${name}` || path.startsWith(`/${name}/`)) void this.#router.replace({ path: fullPath, force: true })
  }
}
