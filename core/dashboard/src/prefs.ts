// SPDX-License-Identifier: AGPL-3.0-only
import { defineStore } from 'pinia'
import { computed, ref, watch } from 'vue'
import { setLanguage } from './i18n/index.ts'
import type { Language } from './i18n/index.ts'

export type Theme = 'system' | 'light' | 'dark'
export type ZoneMode = 'site' | 'browser' | 'utc'
export type Density = 'comfortable' | 'dense'

/** What the server keeps per user (`prefs` of /me). */
export type ServerPrefs = { theme: Theme; zoneMode: ZoneMode; density: Density; hidden: string[] }

/** Read by public/boot.js before the first paint. */
const storageKey = 'iotpms.ui'

/** How things look for this person: kept on the server when signed in, and in this browser for the next first paint. */
export const usePrefs = defineStore('prefs', () => {
  const saved = readSaved()
  const theme = ref<Theme>(saved.theme ?? 'system')
  const language = ref<Language>(document.documentElement.lang === 'en' ? 'en' : 'zh')
  const isLanguageChosen = ref(saved.language !== undefined)
  const zoneMode = ref<ZoneMode>('site')
  const density = ref<Density>('comfortable')
  const hidden = ref<string[]>([])

  const systemDark = matchMedia('(prefers-color-scheme: dark)')
  const isSystemDark = ref(systemDark.matches)
  systemDark.addEventListener('change', (event) => (isSystemDark.value = event.matches))
  const isDark = computed(() => theme.value === 'dark' || (theme.value === 'system' && isSystemDark.value))
  watch(isDark, (dark) => document.documentElement.classList.toggle('dark', dark), { immediate: true, flush: 'sync' })

  function save(): void {
    try {
      localStorage.setItem(
        storageKey,
        JSON.stringify({ theme: theme.value, ...(isLanguageChosen.value ? { language: language.value } : {}) }),
      )
    } catch {
      // Private windows may refuse; the choice then lasts for this page.
    }
  }

  function chooseTheme(next: Theme): void {
    theme.value = next
    save()
  }

  /** Switches at once, without a reload. */
  async function chooseLanguage(next: Language): Promise<void> {
    await setLanguage(next)
    language.value = next
    isLanguageChosen.value = true
    save()
  }

  /** Takes what the server knows. A theme or language chosen in this browser stays. */
  async function take(user: { language: Language | null }, site: { language: Language }, prefs: Partial<ServerPrefs>): Promise<void> {
    if (saved.theme === undefined && isTheme(prefs.theme)) theme.value = prefs.theme
    if (prefs.zoneMode === 'site' || prefs.zoneMode === 'browser' || prefs.zoneMode === 'utc') zoneMode.value = prefs.zoneMode
    if (prefs.density === 'comfortable' || prefs.density === 'dense') density.value = prefs.density
    if (Array.isArray(prefs.hidden)) hidden.value = prefs.hidden.filter((one) => typeof one === 'string')
    const wanted = isLanguageChosen.value
      ? language.value
      : (user.language ?? (isKnown(navigator.languages) ? language.value : site.language))
    if (wanted !== language.value) {
      await setLanguage(wanted)
      language.value = wanted
    }
  }

  function toServer(): ServerPrefs {
    return { theme: theme.value, zoneMode: zoneMode.value, density: density.value, hidden: hidden.value }
  }

  return { theme, language, zoneMode, density, hidden, isDark, chooseTheme, chooseLanguage, take, toServer }
})

function isTheme(value: unknown): value is Theme {
  return value === 'system' || value === 'light' || value === 'dark'
}

/** Whether the browser asks for a language we have; else the site's default counts [D-98]. */
function isKnown(languages: readonly string[]): boolean {
  return languages.some((one) => /^(zh|en)\b/i.test(one))
}

function readSaved(): { theme?: Theme; language?: Language } {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(storageKey) ?? '{}')
    if (typeof value !== 'object' || value === null) return {}
    const { theme, language } = value as { theme?: unknown; language?: unknown }
    return { ...(isTheme(theme) ? { theme } : {}), ...(language === 'zh' || language === 'en' ? { language } : {}) }
  } catch {
    return {}
  }
}
