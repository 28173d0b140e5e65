// SPDX-License-Identifier: AGPL-3.0-only
import type { Api } from './api.ts'
import { ApiError, ConnectionError } from './errors.ts'

export type ClientOptions = {
  /** Where the server is, such as `https://iot.example.com`. */
  url: string
  /** `pmsk_…`, with the scopes that the calls need. */
  apiKey: string
  /** Of one attempt; 15 s. */
  timeoutMs?: number
  /** Attempts after the first one; 4. */
  retries?: number
  /** Of refusals' sentences: `zh`, or `en` when absent. */
  language?: 'zh' | 'en'
  /** In place of the global `fetch`. */
  fetch?: typeof fetch
}

export type Operation = keyof Api
type Part<O extends Operation, Name extends string> = Name extends keyof Api[O]
  ? { [N in Name]: Api[O][N] }
  : Partial<Record<Name, undefined>>
type OptionalBody<O extends Operation> = 'body' extends keyof Api[O] ? Pick<Api[O], 'body' & keyof Api[O]> : { body?: undefined }
type OptionalQuery<O extends Operation> = 'query' extends keyof Api[O] ? Pick<Api[O], 'query' & keyof Api[O]> : { query?: undefined }
/** What a call takes: `path`, `query` and `body` as its operation has them. */
export type Input<O extends Operation> = Part<O, 'path'> & OptionalQuery<O> & OptionalBody<O> & CallOptions
export type Output<O extends Operation> = Api[O]['response']
export type CallOptions = {
  /** Of a POST; made up when absent, so that its repeats do the thing once. */
  idempotencyKey?: string
  signal?: AbortSignal
  /** Of one attempt of this call. */
  timeoutMs?: number
}

const usualTimeoutMs = 15_000
const usualRetries = 4
const firstWaitMs = 500
const longestWaitMs = 30_000
/** Refusals that pass: too much at once, or a server that starts, stops, or is behind a proxy that cannot reach it. */
const passing = new Set([429, 502, 503, 504])

/**
 * Calls operations of the API by their method and path.
 *
 * ```ts
 * const client = new Client({ url: 'https://iot.example.com', apiKey: process.env.IOT_PMS_API_KEY! })
 * const device = await client.call('POST /api/v1/devices', { body: { name: 'pump-1' } })
 * ```
 */
export class Client {
  readonly #options: ClientOptions
  readonly #base: string

  constructor(options: ClientOptions) {
    this.#options = options
    this.#base = options.url.replace(/\/+$/, '')
    if (!/^https?:\/\//.test(this.#base)) throw new TypeError(`${options.url} is no address of a server`)
  }

  /**
   * Makes one call. What passes is tried again: 429 and 503 after their `Retry-After`, connections that fail, each
   * time with the same `Idempotency-Key`. A PATCH is not repeated once the server may have got it.
   *
   * @throws {ApiError} for a refusal, by its `code`
   * @throws {ConnectionError} when no answer came
   */
  async call<O extends Operation>(operation: O, ...input: object extends Input<O> ? [Input<O>?] : [Input<O>]): Promise<Output<O>> {
    const given: Given = input[0] ?? {}
    const [method = '', path = ''] = operation.split(' ')
    const address = this.#base + fillPath(path, given.path) + formatQuery(given.query)
    const key = method === 'POST' ? (given.idempotencyKey ?? crypto.randomUUID()) : undefined
    const retries = this.#options.retries ?? usualRetries
    for (let attempt = 0; ; attempt++) {
      const answer = await this.#attempt(method, address, given, key).catch((error: unknown) => {
        given.signal?.throwIfAborted()
        return new ConnectionError(`${method} ${path} got no answer`, error)
      })
      const isLast = attempt >= retries
      if (answer instanceof ConnectionError) {
        if (isLast || method === 'PATCH') throw answer
      } else {
        if (answer.ok) return await readBody(answer)
        const error = await readError(answer)
        // The first attempt still runs: its answer is what the next one gets.
        const passes = passing.has(answer.status) || error.code === 'IDEMPOTENCY_RUNNING'
        if (isLast || !passes || (method === 'PATCH' && answer.status !== 429)) throw error
        await wait(error.retryAfterMs ?? backoff(attempt), given.signal)
        continue
      }
      await wait(backoff(attempt), given.signal)
    }
  }

  #attempt(method: string, address: string, { body, signal, timeoutMs }: Given, key: string | undefined): Promise<Response> {
    const { apiKey, language = 'en', timeoutMs: ownTimeoutMs = usualTimeoutMs, fetch: ownFetch = fetch } = this.#options
    const timeout = AbortSignal.timeout(timeoutMs ?? ownTimeoutMs)
    return ownFetch(address, {
      method,
      redirect: 'error',
      headers: {
        authorization: `ApiKey ${apiKey}`,
        accept: 'application/json',
        'accept-language': language,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(key === undefined ? {} : { 'idempotency-key': key }),
      },
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  }
}

type Given = { path?: unknown; query?: unknown; body?: unknown; idempotencyKey?: string; signal?: AbortSignal; timeoutMs?: number }

function fillPath(path: string, given: unknown): string {
  const values = (given ?? {}) as Record<string, unknown>
  return path.replace(/\{(\w+)\}/g, (_, name: string) => {
    if (values[name] === undefined) throw new TypeError(`${path} needs path.${name}`)
    return encodeURIComponent(String(values[name]))
  })
}

function formatQuery(given: unknown): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries((given ?? {}) as Record<string, unknown>)) {
    for (const one of Array.isArray(value) ? (value as unknown[]) : [value]) if (one !== undefined) query.append(name, String(one))
  }
  const text = query.toString()
  return text === '' ? '' : `?${text}`
}

/** JSON where it is JSON, else text; null for nothing. */
async function readBody(answer: Response): Promise<unknown> {
  const text = await answer.text()
  if (text === '') return null
  return (answer.headers.get('content-type') ?? '').includes('json') ? (JSON.parse(text) as unknown) : text
}

async function readError(answer: Response): Promise<ApiError> {
  const body = await readBody(answer).catch(() => undefined)
  const problem = typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {}
  return new ApiError(answer.status, problem, retryAfterMs(answer.headers.get('retry-after')))
}

/** Seconds, or a date. */
function retryAfterMs(text: string | null): number | undefined {
  if (text === null) return undefined
  const ms = /^\d+$/.test(text.trim()) ? Number(text) * 1000 : Date.parse(text) - Date.now()
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}

/** Doubles, and varies so that many who were refused together do not come back together. */
const backoff = (attempt: number): number => Math.min(longestWaitMs, firstWaitMs * 2 ** attempt) * (0.5 + Math.random() / 2)

async function wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer)
      reject(signal!.reason as Error)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
