// SPDX-License-Identifier: AGPL-3.0-only
import type { Credentials } from '../devices/schemas.ts'
import { StartError, exitCodes } from '../errors.ts'
import type { Scenario } from './scenario.ts'

export type Api = { url: string; apiKey: string }
export type PreparedDevice = { name: string; credentials: Credentials }

/** Requests at a time while devices are made. */
const lanes = 8

type Item = { id: string; name: string }
type Page = { items: Item[]; nextCursor: string | null }

/**
 * Makes the devices of a scenario through the REST API, or takes those an earlier run has made.
 *
 * @throws {StartError} when the server cannot be reached or refuses, with what it said
 */
export async function prepareDevices(api: Api, scenario: Scenario, count: number): Promise<PreparedDevice[]> {
  const productId = await ensureProduct(api, scenario)
  const prefix = `sim-${scenario.name}-`
  const known = new Map(
    (await listAll(api, `/api/v1/devices?limit=500&q=${encodeURIComponent(prefix)}`)).map((device) => [device.name, device.id]),
  )
  const names = Array.from({ length: count }, (_, index) => `${prefix}${String(index + 1).padStart(4, '0')}`)
  const devices: PreparedDevice[] = []
  const queue = names.entries()
  // All lanes draw from one queue.
  const work = async () => {
    for (const [index, name] of queue) {
      const id = known.get(name)
      const credentials = id
        ? await call<Credentials>(api, 'GET', `/api/v1/devices/${id}/credentials`)
        : (await call<{ credentials: Credentials }>(api, 'POST', '/api/v1/devices', { name, productId, tags: ['simulated'] })).credentials
      devices[index] = { name, credentials }
    }
  }
  await Promise.all(Array.from({ length: lanes }, work))
  return devices
}

async function ensureProduct(api: Api, scenario: Scenario): Promise<string> {
  const { product, keys, primaryKey } = scenario
  const known = (await listAll(api, '/api/v1/products?limit=500')).find((one) => one.name === product.name)
  if (known) return known.id
  return (await call<Item>(api, 'POST', '/api/v1/products', { ...product, model: { keys, primaryKey } })).id
}

async function listAll(api: Api, path: string): Promise<Item[]> {
  const items: Item[] = []
  let cursor: string | null = null
  do {
    const page: Page = await call<Page>(api, 'GET', cursor ? `${path}&cursor=${encodeURIComponent(cursor)}` : path)
    items.push(...page.items)
    cursor = page.nextCursor
  } while (cursor)
  return items
}

async function call<T>(api: Api, method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(new URL(`.${path}`, api.url.endsWith('/') ? api.url : `${api.url}/`), {
    method,
    headers: {
      authorization: `ApiKey ${api.apiKey}`,
      'accept-language': 'en',
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  }).catch((error: unknown) => {
    throw new StartError(
      'SERVER_UNREACHABLE',
      exitCodes.unavailable,
      `${api.url} does not answer.`,
      'Start the server, or name its address with --url.',
      error,
    )
  })
  const text = await answer.text()
  const json = parseJson(text)
  if (answer.ok && json !== undefined) return json as T
  const { code, detail } = (json ?? {}) as { code?: string; detail?: string }
  const hint =
    answer.status === 401 || answer.status === 403
      ? 'The API key needs the scopes device.read, device.write, device.credentials.read, product.read and product.write.'
      : 'Mend what the sentence names and run it again.'
  throw new StartError(
    'SERVER_REFUSED',
    exitCodes.unavailable,
    `${method} ${path.split('?')[0]} answered ${answer.status}${code ? ` ${code}` : ''}${detail ? `: ${detail}` : ''}`,
    hint,
  )
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
