// SPDX-License-Identifier: AGPL-3.0-only
// Runs before the first paint, so that theme and language never flash. Choices live under `iotpms.ui`
// (see src/prefs.ts); `?theme=` and `?lang=` on any address set them and are taken off the address.
;(function () {
  var root = document.documentElement
  var saved = {}
  try {
    saved = JSON.parse(localStorage.getItem('iotpms.ui') || '{}') || {}
  } catch (_error) {
    saved = {}
  }
  var url = new URL(location.href)
  var theme = url.searchParams.get('theme')
  var lang = url.searchParams.get('lang')
  if (theme !== null || lang !== null) {
    if (theme === 'light' || theme === 'dark' || theme === 'system') saved.theme = theme
    if (lang === 'zh-CN' || lang === 'zh') saved.language = 'zh'
    if (lang === 'en') saved.language = 'en'
    url.searchParams.delete('theme')
    url.searchParams.delete('lang')
    history.replaceState(history.state, '', url)
    try {
      localStorage.setItem('iotpms.ui', JSON.stringify(saved))
    } catch (_error) {
      // Private windows may refuse storage; the choice then lasts for this page.
    }
  }
  var isDark = saved.theme === 'dark' || (saved.theme !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches)
  root.classList.toggle('dark', isDark)
  var isEnglish = saved.language === 'en' || (!saved.language && !/^zh\b/i.test(navigator.language || 'zh'))
  root.lang = isEnglish ? 'en' : 'zh-CN'
})()
