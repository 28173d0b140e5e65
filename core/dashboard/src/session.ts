// SPDX-License-Identifier: AGPL-3.0-only
import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { me, session as calls } from './api/calls.ts'
import { setGate } from './api/client.ts'
import { toApiError } from './api/errors.ts'
import type { Session, Setup, Site, User } from './api/types.ts'
import { usePrefs } from './prefs.ts'
import { browserZone } from './time.ts'

/** Told between the tabs of this browser. */
type TabMessage = { type: 'session'; session: Session } | { type: 'logout' }

/** Before the end of an access token a new one is fetched. */
const renewBeforeMs = 60_000

/**
 * Who is signed in. The access token lives in this closure only; the refresh token in a cookie no
 * script can read [D-30].
 */
export const useSession = defineStore('session', () => {
  const user = shallowRef<User | null>(null)
  const permissions = shallowRef<ReadonlySet<string>>(new Set())
  const site = ref<Partial<Site>>({})
  const isSetupNeeded = ref(false)
  const isReachable = ref(true)
  /** Which dialog is asked for over the page. */
  const dialog = ref<'login' | 'password' | null>(null)

  let accessToken: string | undefined
  let renewTimer: ReturnType<typeof setTimeout> | undefined
  let renewing: Promise<boolean> | undefined
  let answerDialog: ((isDone: boolean) => void) | undefined
  let asking: Promise<boolean> | undefined
  const endListeners = new Set<() => void>()
  const enterListeners = new Set<() => void>()
  /** Somebody closed the sign-in dialog: nothing in the background may open it again. */
  let isDeclined = false
  const tabs = typeof BroadcastChannel === 'undefined' ? undefined : new BroadcastChannel('iotpms')
  tabs?.addEventListener('message', (event: MessageEvent<TabMessage>) => {
    if (event.data.type === 'logout') leave()
    else if (event.data.session.user.id === user.value?.id) take(event.data.session)
    else if (user.value) location.reload()
  })

  const siteZone = computed(() => site.value.timeZone ?? 'UTC')
  const zone = computed(() => {
    const mode = usePrefs().zoneMode
    return mode === 'utc' ? 'UTC' : mode === 'browser' ? browserZone() : siteZone.value
  })

  function has(permission: string): boolean {
    return permissions.value.has(permission)
  }

  function take(next: Session): void {
    accessToken = next.accessToken
    user.value = next.user
    permissions.value = new Set(next.permissions)
    site.value = next.site
    isSetupNeeded.value = false
    clearTimeout(renewTimer)
    // Tabs wake at slightly different times, the first one tells the others.
    const inMs = new Date(next.expiresAt).getTime() - Date.now() - renewBeforeMs - Math.random() * 5000
    renewTimer = setTimeout(() => void renew(), Math.max(5000, inMs))
  }

  async function enter(next: Session): Promise<void> {
    take(next)
    await usePrefs().take(next.user, next.site, next.prefs)
    tabs?.postMessage({ type: 'session', session: next } satisfies TabMessage)
    isDeclined = false
    for (const listener of enterListeners) listener()
  }

  /** Finds out who is signed in, or that the installation has no user yet. */
  async function start(): Promise<void> {
    const answer = await calls.refresh()
    if (answer.user) await enter(answer)
    else {
      site.value = answer.site
      isSetupNeeded.value = answer.setupNeeded === true
    }
  }

  async function login(email: string, password: string): Promise<void> {
    await enter(await calls.login({ email, password }))
  }

  async function setup(body: Setup): Promise<void> {
    await enter(await calls.setup(body))
  }

  async function refreshOnce(): Promise<boolean> {
    try {
      const answer = await calls.refresh()
      if (!answer.user || (user.value && answer.user.id !== user.value.id)) return false
      take(answer)
      tabs?.postMessage({ type: 'session', session: answer } satisfies TabMessage)
      return true
    } catch (error) {
      if (toApiError(error).status === 0) renewTimer = setTimeout(() => void renew(), 5000)
      return false
    }
  }

  function renew(): Promise<boolean> {
    renewing ??= refreshOnce().finally(() => (renewing = undefined))
    return renewing
  }

  /** One dialog for all calls that wait for it. */
  function ask(kind: 'login' | 'password'): Promise<boolean> {
    if (!user.value) return Promise.resolve(false)
    asking ??= new Promise<boolean>((resolve) => {
      dialog.value = kind
      answerDialog = resolve
    }).finally(() => {
      asking = undefined
      dialog.value = null
    })
    return asking
  }

  function closeDialog(isDone: boolean): void {
    if (!isDone && dialog.value === 'login') isDeclined = true
    answerDialog?.(isDone)
  }

  /** The dialog over the page: somebody else signing in there starts the page anew [D-31]. */
  async function loginAgain(password: string, email: string): Promise<void> {
    const before = user.value?.id
    const next = await calls.login({ email, password })
    if (next.user.id !== before) {
      location.reload()
      return
    }
    await enter(next)
    closeDialog(true)
  }

  async function confirmPassword(password: string): Promise<void> {
    await calls.reauth(password)
    closeDialog(true)
  }

  function leave(): void {
    accessToken = undefined
    user.value = null
    permissions.value = new Set()
    clearTimeout(renewTimer)
    for (const listener of endListeners) listener()
  }

  async function logout(): Promise<void> {
    await calls.logout()
    tabs?.postMessage({ type: 'logout' } satisfies TabMessage)
    leave()
  }

  /** Keeps looks on the server; they are of no weight, so a failure is not shown. */
  async function savePrefs(): Promise<void> {
    const prefs = usePrefs()
    if (!user.value) return
    await me.update({ prefs: prefs.toServer(), language: prefs.language }).catch(() => undefined)
  }

  setGate({
    accessToken: () => accessToken,
    renew,
    askLogin: () => ask('login'),
    askPassword: () => ask('password'),
    reached: (now) => (isReachable.value = now),
  })

  return {
    user,
    permissions,
    site,
    siteZone,
    zone,
    isSetupNeeded,
    isReachable,
    dialog,
    has,
    start,
    login,
    setup,
    renew,
    closeDialog,
    loginAgain,
    confirmPassword,
    logout,
    savePrefs,
    mayAsk: () => !isDeclined,
    onEnter: (listener: () => void) => enterListeners.add(listener),
    onEnd: (listener: () => void) => endListeners.add(listener),
  }
})
