// SPDX-License-Identifier: AGPL-3.0-only
import { useI18n } from 'vue-i18n'
import { closeToast, showError, showToast } from './use-toasts.ts'

/** How long undo is offered [D-49]. */
const offerMs = 10_000
let pending: { toast: number; run: () => void } | undefined

globalThis.addEventListener('keydown', (event) => {
  const isTyping = event.target instanceof HTMLElement && event.target.closest('input, textarea, select, [contenteditable]') !== null
  if (!pending || isTyping || event.key.toLowerCase() !== 'z' || !(event.ctrlKey || event.metaKey) || event.shiftKey) return
  event.preventDefault()
  pending.run()
})

/** Offers to take an act back, by the toast or Ctrl/Cmd-Z while the toast is up. */
export function useUndo() {
  const { t } = useI18n()
  return (text: string, undo: () => Promise<void>) => {
    const offer = { toast: 0, run: () => {} }
    offer.run = () => {
      closeToast(offer.toast)
      if (pending === offer) pending = undefined
      undo().catch(showError)
    }
    offer.toast = showToast(text, { ms: offerMs, action: { label: t('common.undo'), run: offer.run } })
    pending = offer
    setTimeout(() => {
      if (pending === offer) pending = undefined
    }, offerMs)
  }
}
