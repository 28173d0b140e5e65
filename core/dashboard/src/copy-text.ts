// SPDX-License-Identifier: AGPL-3.0-only

/**
 * Puts text on the clipboard. Plain-http pages have no clipboard API [D-13], so an old way is the
 * second try.
 *
 * @returns false when neither worked; the caller then shows the text selected
 */
export async function copyText(text: string): Promise<boolean> {
  try {
    // Undefined outside secure contexts, whatever the type says.
    const clipboard = navigator.clipboard as Clipboard | undefined
    if (clipboard) {
      await clipboard.writeText(text)
      return true
    }
  } catch {
    // Refused (permission, focus): the other way may still work.
  }
  return copyBySelection(text)
}

function copyBySelection(text: string): boolean {
  const before = document.activeElement
  const area = document.createElement('textarea')
  area.value = text
  area.setAttribute('aria-hidden', 'true')
  area.className = 'sr-only'
  // Inside an open dialog focus is trapped, so the element has to live there too.
  const host = before?.closest('[role="dialog"]') ?? document.body
  host.append(area)
  area.select()
  let isCopied = false
  try {
    // oxlint-disable-next-line typescript/no-deprecated -- the only way on plain http
    isCopied = document.execCommand('copy')
  } catch {
    isCopied = false
  }
  area.remove()
  if (before instanceof HTMLElement) before.focus()
  return isCopied
}
