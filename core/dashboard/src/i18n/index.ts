// SPDX-License-Identifier: AGPL-3.0-only
import { nextTick } from 'vue'
import { createI18n } from 'vue-i18n'

/** As the API names them; `html lang` is `zh-CN` or `en`. */
export type Language = 'zh' | 'en'

/** Only the chosen language is loaded [D-98]. */
const loaders = {
  zh: async () => (await import('./zh.ts')).messages,
  en: async () => (await import('./en.ts')).messages,
}

export const i18n = createI18n({
  legacy: false,
  locale: 'none',
  fallbackLocale: 'none',
  missingWarn: true,
  fallbackWarn: false,
})

export function currentLanguage(): Language {
  return i18n.global.locale.value === 'en' ? 'en' : 'zh'
}

type Loaders = Record<Language, () => Promise<Record<string, unknown>>>
const added: Loaders[] = []

/** Texts of a module, in the language of now and in any that is chosen later. */
export async function addMessages(messages: Loaders): Promise<void> {
  added.push(messages)
  for (const language of ['zh', 'en'] as const) {
    if (i18n.global.availableLocales.includes(language)) i18n.global.mergeLocaleMessage(language, await messages[language]())
  }
}

let pages: Promise<void> | undefined

/** Texts of the pages behind the sign-in, which signing in does without [UX-07]. */
export function loadPageTexts(): Promise<void> {
  pages ??= addMessages({
    zh: async () => (await import('./zh-pages.ts')).messages,
    en: async () => (await import('./en-pages.ts')).messages,
  }).catch((error: unknown) => {
    pages = undefined
    throw error
  })
  return pages
}

/** Loads the texts if needed and switches every visible text at once. */
export async function setLanguage(language: Language): Promise<void> {
  if (!i18n.global.availableLocales.includes(language)) {
    i18n.global.setLocaleMessage(language, await loaders[language]())
    for (const messages of added) i18n.global.mergeLocaleMessage(language, await messages[language]())
  }
  i18n.global.locale.value = language
  document.documentElement.lang = language === 'en' ? 'en' : 'zh-CN'
  await nextTick()
}
