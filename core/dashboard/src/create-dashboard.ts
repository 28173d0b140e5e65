// SPDX-License-Identifier: AGPL-3.0-only
import { PiniaColada, useQueryCache } from '@pinia/colada'
import { createPinia } from 'pinia'
import { createApp } from 'vue'
import type { App as VueApp } from 'vue'
import { system } from './api/calls.ts'
import { toApiError } from './api/errors.ts'
import App from './App.vue'
import { showError } from './composables/use-toasts.ts'
import { i18n, setLanguage } from './i18n/index.ts'
import { ModulePages } from './module-pages.ts'
import { usePrefs } from './prefs.ts'
import { createDashboardRouter } from './router.ts'
import { useSession } from './session.ts'
import './styles/tokens.css'
import './styles/base.css'

/** The application, with its language loaded and its session known. */
export async function createDashboard(): Promise<VueApp> {
  const app = createApp(App)
  app.use(createPinia())
  app.use(PiniaColada, {})
  app.use(i18n)
  app.config.errorHandler = (error) => reportError(error)
  globalThis.addEventListener('unhandledrejection', (event) => {
    event.preventDefault()
    reportError(event.reason)
  })
  const prefs = usePrefs()
  await setLanguage(prefs.language)
  const session = useSession()
  try {
    await session.start()
  } catch (error) {
    showError(error)
  }
  const router = createDashboardRouter()
  const modulePages = new ModulePages(router, reportError)
  modulePages.follow()
  // Before the first look at the address: it may be that of a module's page.
  await modulePages.sync({ isFresh: true })
  app.use(router)
  // In every tab: nothing of the person is left behind [D-31].
  const cache = useQueryCache()
  session.onEnd(() => {
    for (const entry of cache.getEntries()) cache.remove(entry)
    router.push('/login').catch(reportError)
  })
  await router.isReady().catch(reportError)
  return app
}

/** Failures of the page go to our own server and nowhere else [D-107]; refused calls are no failures of the page. */
function reportError(error: unknown): void {
  const failure = toApiError(error)
  showError(error)
  const session = useSession()
  if (failure.code !== 'PAGE' || !session.user) return
  const { message, stack } = error instanceof Error ? error : new Error(String(error))
  const route = location.pathname.slice(0, 200)
  system
    .reportError({
      message: message.slice(0, 500),
      ...(stack ? { stack: stack.slice(0, 4000) } : {}),
      route,
      version: session.site.version ?? '',
    })
    .catch(() => undefined)
}
