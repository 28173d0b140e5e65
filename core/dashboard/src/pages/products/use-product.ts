// SPDX-License-Identifier: AGPL-3.0-only
import { computed, inject, nextTick, onMounted, provide, reactive, ref, watch } from 'vue'
import type { ComputedRef, InjectionKey } from 'vue'
import { useI18n } from 'vue-i18n'
import { onBeforeRouteLeave, useRoute } from 'vue-router'
import type { Product, ProductPatch } from '../../api/types.ts'
import { useForm } from '../../composables/use-form.ts'
import { showToast } from '../../composables/use-toasts.ts'

export type ProductContext = {
  product: ComputedRef<Product>
  /** Answer to send back with a change, so that nobody's change is lost unseen. */
  etag: () => string | undefined
  canWrite: ComputedRef<boolean>
  /** @returns the product after the change */
  update: (patch: ProductPatch, etag: string | undefined) => Promise<Product>
  refresh: () => Promise<void>
}

const key: InjectionKey<ProductContext> = Symbol('product')

export function provideProduct(context: ProductContext): void {
  provide(key, context)
}

/** The product of the open page. */
export function useProduct(): ProductContext {
  const context = inject(key)
  if (!context) throw new Error('A product tab outside of the product page')
  return context
}

/**
 * The form of a tab: filled from the product, saved as a patch, kept when somebody else was faster. Leaving it
 * unsaved asks.
 */
export function useProductForm<F extends object>(read: (product: Product) => F, toPatch: (form: F) => ProductPatch) {
  const { t } = useI18n()
  const { product, etag, update, refresh } = useProduct()
  const { isBusy, error, fields, submit, clear } = useForm()
  const form = reactive(read(product.value)) as F
  const original = ref(JSON.stringify(form))
  /** The version the form was filled from. */
  let formEtag = etag()
  const isChanged = computed(() => JSON.stringify(form) !== original.value)

  function reset(): void {
    Object.assign(form, read(product.value))
    original.value = JSON.stringify(form)
    formEtag = etag()
    clear()
  }
  // Changes from elsewhere are taken over unless something is being edited here.
  watch(
    () => product.value.updatedAt,
    () => {
      if (!isChanged.value) reset()
    },
  )
  onBeforeRouteLeave(() => !isChanged.value || confirm(t('common.unsaved')))

  /** @returns the product as the answer shows it, undefined when it was refused */
  async function save(): Promise<Product | undefined> {
    let saved: Product | undefined
    const isDone = await submit(async () => {
      saved = await update(toPatch(form), formEtag)
      reset()
      showToast(t('common.saved'))
    })
    if (isDone || error.value?.status !== 412) return saved
    // Now that it has been told, saving again is a decision.
    await refresh()
    formEtag = etag()
    return undefined
  }

  return { form, isBusy, error, fields, isChanged, reset, save }
}

/** Brings the setting that the address names to the eye: `#timestampUnit`. */
export function useNamedSetting(): void {
  const route = useRoute()
  onMounted(async () => {
    await nextTick()
    const name = route.hash.slice(1)
    if (/^\w+$/.test(name)) document.querySelector<HTMLElement>(`[data-setting="${name}"] :is(input, select, textarea)`)?.focus()
  })
}
