// SPDX-License-Identifier: AGPL-3.0-only
import { shallowRef } from 'vue'
import { i18n } from '../i18n/index.ts'
import { toApiError } from '../api/errors.ts'

export type Toast = {
  id: number
  kind: 'status' | 'error'
  text: string
  detail?: string
  action?: { label: string; run: () => void }
  ms: number | undefined
}

const maxToasts = 3
const shownMs = 6000
export const toasts = shallowRef<Toast[]>([])
let nextId = 1

export function closeToast(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id)
}

function show(toast: Omit<Toast, 'id'>): number {
  const id = nextId++
  toasts.value = [...toasts.value, { ...toast, id }].slice(-maxToasts)
  return id
}

/** Says what was done, where it is not visible anyway. */
export function showToast(text: string, options: { action?: Toast['action']; ms?: number } = {}): number {
  return show({ kind: 'status', text, ms: options.ms ?? shownMs, ...(options.action ? { action: options.action } : {}) })
}

/** Says why an act failed; stays until closed. */
export function showError(error: unknown): void {
  const failure = toApiError(error)
  show({
    kind: 'error',
    text: sentenceOf(failure),
    ms: undefined,
    ...(failure.traceId ? { detail: `${failure.code} · ${failure.traceId}` } : { detail: failure.code }),
  })
}

/** The sentence of a failure for a person. */
export function sentenceOf(error: unknown): string {
  const failure = toApiError(error)
  if (failure.code === 'NETWORK' || failure.code === 'TIMEOUT') return i18n.global.t('common.error.network')
  return failure.detail
}
