// SPDX-License-Identifier: AGPL-3.0-only
import { nextTick, onScopeDispose, reactive, ref, shallowRef } from 'vue'
import { toApiError } from '../api/errors.ts'
import type { ApiError } from '../api/errors.ts'

/**
 * Sending a form: busy while it runs, messages at the fields by the pointers of the answer, the rest in
 * a box above the form, and a countdown after a 429.
 */
export function useForm() {
  const isBusy = ref(false)
  const error = shallowRef<ApiError>()
  const waitS = ref(0)
  const fields = reactive<Record<string, string>>({})
  let timer: ReturnType<typeof setInterval> | undefined
  onScopeDispose(() => clearInterval(timer))

  function clear(): void {
    error.value = undefined
    for (const name of Object.keys(fields)) delete fields[name]
  }

  function countDown(seconds: number): void {
    waitS.value = Math.ceil(seconds)
    clearInterval(timer)
    timer = setInterval(() => {
      waitS.value = Math.max(0, waitS.value - 1)
      if (waitS.value === 0) clearInterval(timer)
    }, 1000)
  }

  /** @returns true when `run` went through */
  async function submit(run: () => Promise<void>): Promise<boolean> {
    if (isBusy.value || waitS.value > 0) return false
    clear()
    isBusy.value = true
    try {
      await run()
      return true
    } catch (failure) {
      const problem = toApiError(failure)
      for (const one of problem.errors) fields[one.pointer.replace(/^[/?]/, '')] ??= one.detail
      error.value = problem
      if (problem.status === 429 && problem.retryAfterS) countDown(problem.retryAfterS)
      await nextTick()
      document.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus()
      return false
    } finally {
      isBusy.value = false
    }
  }

  return { isBusy, error, waitS, fields, clear, submit }
}
