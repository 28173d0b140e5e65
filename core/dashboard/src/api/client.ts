// SPDX-License-Identifier: AGPL-3.0-only
import createClient from 'openapi-fetch'
import { baseUrl } from '../base.ts'
import { currentLanguage } from '../i18n/index.ts'
import { ApiError, readError } from './errors.ts'
import type { paths } from './schema.d.ts'

/** What the client needs from the session; given once by it, so that the two files do not import each other. */
export type Gate = {
  accessToken(): string | undefined
  /** Tries to get a new access token. False when the person has to sign in. */
  renew(): Promise<boolean>
  /** Lets the person sign in again over the page; true when the call may be repeated. */
  askLogin(): Promise<boolean>
  /** Lets the person enter the password again [SC-26]. */
  askPassword(): Promise<boolean>
  reached(isReachable: boolean): void
}

let gate: Gate | undefined

export function setGate(next: Gate): void {
  gate = next
}

const timeoutMs = 15_000
const exportTimeoutMs = 120_000
/** A command waits up to five minutes for its device. */
const commandTimeoutMs = 310_000
/** Waits before a GET is repeated [D-34]. */
const retryMs = [500, 1000, 2000]
const retryStatuses = new Set([502, 503, 504])

/** Calls that carry no token and whose 401 means what it says. */
const isPublic = (url: URL) => /\/api\/v1\/(auth\/(login|refresh|reset)|setup)$/.test(url.pathname)

/**
 * The one fetch of the application: token, language, time-out, repeats, and what a 401 leads to.
 *
 * @returns answers of success only
 * @throws {ApiError} for a refusal, and when no answer came
 */
export async function apiFetch(request: Request): Promise<Response> {
  if (isCreating(request)) request.headers.set('idempotency-key', createKey())
  let response = await send(request)
  const url = new URL(request.url)
  if (response.status === 401 && !isPublic(url) && gate) {
    if ((await gate.renew()) || (await gate.askLogin())) response = await send(request)
  }
  if (response.status === 403 && gate && (await readError(response)).code === 'REAUTH_REQUIRED' && (await gate.askPassword())) {
    // The refusal is what the server kept under the first key.
    if (isCreating(request)) request.headers.set('idempotency-key', createKey())
    response = await send(request)
  }
  if (!response.ok) throw await readError(response)
  return response
}

/** POSTs whose repeat must not do the thing twice: the server knows them again by their key [D-33]. */
const isCreating = (request: Request) =>
  request.method === 'POST' && /\/api\/v1\/(devices|users|api-keys|ota-packages)$/.test(new URL(request.url).pathname)

function createKey(): string {
  // randomUUID does not exist on plain http.
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

async function send(request: Request): Promise<Response> {
  // A creation is repeated once, after a network error only; other writes never by themselves [D-34].
  const waits = request.method === 'GET' ? retryMs : isCreating(request) ? retryMs.slice(0, 1) : []
  for (let attempt = 0; ; attempt++) {
    const wait = waits[attempt]
    try {
      const response = await sendOnce(request)
      gate?.reached(true)
      const isSetup = response.status === 503 && (await readError(response)).code === 'SETUP_REQUIRED'
      if (wait === undefined || request.method !== 'GET' || !retryStatuses.has(response.status) || isSetup) return response
    } catch (error) {
      if (request.signal.aborted) throw error
      if (wait === undefined) {
        gate?.reached(false)
        throw error
      }
    }
    await new Promise((resolve) => setTimeout(resolve, wait * (0.8 + Math.random() * 0.4)))
  }
}

function limitOf({ method, url }: Request): number {
  if (url.includes('/export')) return exportTimeoutMs
  return method === 'POST' && url.endsWith('/commands') ? commandTimeoutMs : timeoutMs
}

async function sendOnce(request: Request): Promise<Response> {
  // A request can be sent once; repeats need a copy. AbortSignal.any is too new for our browsers [D-12].
  const abort = new AbortController()
  const give = () => abort.abort()
  request.signal.addEventListener('abort', give)
  const timer = setTimeout(give, limitOf(request))
  const copy = new Request(request.clone(), { signal: abort.signal })
  copy.headers.set('accept-language', currentLanguage() === 'en' ? 'en' : 'zh-CN')
  const token = isPublic(new URL(request.url)) ? undefined : gate?.accessToken()
  if (token) copy.headers.set('authorization', `Bearer ${token}`)
  try {
    return await fetch(copy)
  } catch (error) {
    if (request.signal.aborted) throw error
    const code = abort.signal.aborted ? 'TIMEOUT' : 'NETWORK'
    throw new ApiError({ status: 0, code, detail: code })
  } finally {
    clearTimeout(timer)
    request.signal.removeEventListener('abort', give)
  }
}

/** The API as the generated schema describes it. */
export const client = createClient<paths>({ baseUrl: baseUrl.href.replace(/\/$/, ''), fetch: apiFetch })

type Answer<T> = { data?: T; error?: unknown; response: Response }

/**
 * The body of an answer, undefined for 204.
 *
 * @throws {ApiError}
 */
export async function unwrap<T>(call: Promise<Answer<T>>): Promise<T> {
  return (await call).data as T
}

/** The same with the answer's headers (`ETag`). */
export async function unwrapWithResponse<T>(call: Promise<Answer<T>>): Promise<{ data: T; response: Response }> {
  const { data, response } = await call
  return { data: data as T, response }
}

/**
 * Sends JSON text as it is, so that every digit of its integers arrives.
 *
 * @returns the text of the answer
 * @throws {ApiError}
 */
export async function sendText(method: 'PATCH' | 'POST', path: string, json: string, signal?: AbortSignal): Promise<string> {
  const url = new URL(path.replace(/^\//, ''), baseUrl)
  const headers = { 'content-type': 'application/json' }
  const request = new Request(url, { method, body: json, headers, ...(signal ? { signal } : {}) })
  return (await apiFetch(request)).text()
}

/**
 * Sends a file and tells how much of it has left: fetch cannot say that. No time limit but the person's patience.
 *
 * @throws {ApiError}
 */
export async function upload(
  path: string,
  query: Record<string, string>,
  file: Blob,
  watch: { progress: (share: number) => void; signal: AbortSignal },
): Promise<void> {
  const url = new URL(path.replace(/^\//, ''), baseUrl)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  let response = await sendFile(url, file, watch)
  if (response.status === 401 && gate && ((await gate.renew()) || (await gate.askLogin()))) response = await sendFile(url, file, watch)
  if (!response.ok) throw await readError(response)
}

function sendFile(url: URL, file: Blob, { progress, signal }: Parameters<typeof upload>[3]): Promise<Response> {
  const call = new XMLHttpRequest()
  return new Promise((resolve, reject) => {
    call.open('PUT', url)
    call.setRequestHeader('content-type', 'application/octet-stream')
    call.setRequestHeader('accept-language', currentLanguage() === 'en' ? 'en' : 'zh-CN')
    const token = gate?.accessToken()
    if (token) call.setRequestHeader('authorization', `Bearer ${token}`)
    call.upload.addEventListener('progress', ({ loaded, total }) => progress(total > 0 ? loaded / total : 0))
    const type = () => call.getResponseHeader('content-type') ?? ''
    call.addEventListener('load', () =>
      resolve(new Response(call.responseText, { status: call.status, headers: { 'content-type': type() } })),
    )
    for (const end of ['error', 'abort']) {
      call.addEventListener(end, () => reject(new ApiError({ status: 0, code: 'NETWORK', detail: 'NETWORK' })))
    }
    signal.addEventListener('abort', () => call.abort())
    call.send(file)
  })
}

/** A file made by the server, under the name it gave [D-42]. */
export async function download(path: string, query: Record<string, string>): Promise<void> {
  const url = new URL(path.replace(/^\//, ''), baseUrl)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  const response = await apiFetch(new Request(url))
  saveFile(await response.blob(), fileNameOf(response) ?? 'export.csv')
}

/** The name the server gave a file. */
export function fileNameOf(response: Response): string | undefined {
  const given = response.headers.get('content-disposition') ?? ''
  const extended = /filename\*=UTF-8''([^;]+)/i.exec(given)?.[1]
  const plain = /filename="?([^";]+)"?/i.exec(given)?.[1]
  return extended ? decodeURIComponent(extended) : plain
}

export function saveFile(blob: Blob, name: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  document.body.append(link)
  link.click()
  link.remove()
  // The browser reads the file after this task.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}
