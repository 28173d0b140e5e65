// SPDX-License-Identifier: AGPL-3.0-only
import type { AttributeScope } from '../attributes/columns.ts'
import type { Credential } from '../http/authenticate.ts'
import { isUuid } from '../http/schemas.ts'
import type { planValues } from '../telemetry/compat.ts'
import { parseKeys } from '../telemetry/history.ts'

/** A stretch of history as the REST calls ask for it, without its keys. */
type Stretch = Omit<Parameters<typeof planValues>[0], 'keys' | 'key'>

/** What a client asks for [W-3]. */
export type CompatCommand = {
  id: number
  deviceId: string
  /** Undefined: all. */
  keys: string[] | undefined
} & (
  | { do: 'subscribe'; what: 'telemetry'; isLatestOnly: boolean; stretch: Stretch | undefined }
  | { do: 'subscribe'; what: 'attributes'; scopes: readonly AttributeScope[] | undefined }
  | { do: 'history'; stretch: Stretch }
)

export type Ending = { do: 'unsubscribe'; id: number }
export type BadCommand = { do: 'refuse'; id: number; message: string }
export type CompatRequest = { credential: Credential | undefined; commands: (CompatCommand | Ending | BadCommand)[] }

type Members = Record<string, unknown>

/** The lists of a frame, each with the type of its commands; those of `cmds` name their own. */
const lists = { attrSubCmds: 'ATTRIBUTES', tsSubCmds: 'TIMESERIES', historyCmds: 'TIMESERIES_HISTORY', cmds: undefined } as const
const attributeScopes: Readonly<Record<string, AttributeScope>> = {
  CLIENT_SCOPE: 'client',
  SHARED_SCOPE: 'shared',
  SERVER_SCOPE: 'server',
}
const aggs = ['NONE', 'MIN', 'MAX', 'AVG', 'SUM', 'COUNT'] as const
const defaultLimit = 100
const maxLimit = 100_000

/** @returns undefined for a text that is no frame at all */
export function parseRequest(text: string): CompatRequest | undefined {
  const frame = parseObject(text)
  if (!frame) return undefined
  const commands: CompatRequest['commands'] = []
  for (const [name, type] of Object.entries(lists)) {
    const list = frame[name] ?? []
    if (!Array.isArray(list) || !list.every(isObject)) return undefined
    for (const members of list) commands.push(parseCommand(members, type ?? members['type']))
  }
  return { credential: parseCredential(frame['authCmd']), commands }
}

/** [W-2] */
function parseCredential(members: unknown): Credential | undefined {
  if (!isObject(members)) return undefined
  const { token, apiKey } = members
  if (typeof apiKey === 'string' && apiKey !== '') return { scheme: 'apikey', text: apiKey }
  return typeof token === 'string' ? { scheme: 'bearer', text: token } : undefined
}

class Refusal extends Error {}

function parseCommand(members: Members, type: unknown): CompatRequest['commands'][number] {
  const { cmdId, unsubscribe } = members
  if (!Number.isSafeInteger(cmdId)) return { do: 'refuse', id: 1, message: 'cmdId is a whole number' }
  const id = cmdId as number
  try {
    if (id < 0) fail('cmdId is negative')
    if (type !== 'TIMESERIES' && type !== 'ATTRIBUTES' && type !== 'TIMESERIES_HISTORY') fail('type is unknown')
    return unsubscribe === true ? { do: 'unsubscribe', id } : { id, ...parseTarget(members), ...parseWish(members, type) }
  } catch (error) {
    if (error instanceof Refusal) return { do: 'refuse', id, message: error.message }
    throw error
  }
}

function parseTarget({ entityType = 'DEVICE', entityId, keys }: Members): { deviceId: string; keys: string[] | undefined } {
  if (typeof entityId !== 'string' || entityId === '') fail('entityId is empty')
  if (entityType !== 'DEVICE') fail('entityType is not DEVICE')
  if (!isUuid(entityId)) fail('entityId is no UUID')
  if (keys !== undefined && keys !== null && typeof keys !== 'string') fail('keys is a list with commas')
  try {
    return { deviceId: entityId.toLowerCase(), keys: parseKeys({ keys: keys || undefined }) }
  } catch {
    return fail('keys holds something that is no key')
  }
}

type Wish<T = CompatCommand> = T extends unknown ? Omit<T, 'id' | 'deviceId' | 'keys'> : never

function parseWish(members: Members, type: 'TIMESERIES' | 'ATTRIBUTES' | 'TIMESERIES_HISTORY'): Wish {
  const scope = members['scope'] || ''
  if (type === 'ATTRIBUTES') {
    if (scope === '' || scope === 'ANY_SCOPE') return { do: 'subscribe', what: 'attributes', scopes: undefined }
    const known = typeof scope === 'string' && Object.hasOwn(attributeScopes, scope) ? attributeScopes[scope] : undefined
    return known ? { do: 'subscribe', what: 'attributes', scopes: [known] } : fail('scope is unknown')
  }
  if (type === 'TIMESERIES_HISTORY') return { do: 'history', stretch: parseStretch(members, readNumber(members, 'endTs')) }
  const window = readNumber(members, 'timeWindow', 0)
  const stretch = window > 0 ? parseStretch(members, readNumber(members, 'startTs') + window) : undefined
  return { do: 'subscribe', what: 'telemetry', isLatestOnly: scope === 'LATEST_TELEMETRY', stretch }
}

function parseStretch(members: Members, endTs: number): Stretch {
  const agg = aggs.find((one) => one === (members['agg'] || 'NONE')) ?? fail('agg is unknown')
  const interval = readNumber(members, 'interval', 0)
  const limit = readNumber(members, 'limit', 0) || defaultLimit
  if (interval < 0 || limit < 0 || limit > maxLimit) fail(`limit is 1 to ${maxLimit}, interval not negative`)
  return { startTs: readNumber(members, 'startTs'), endTs, interval, limit, agg, orderBy: 'DESC', useStrictDataTypes: false }
}

function readNumber(members: Members, name: string, absent?: number): number {
  const value = members[name] ?? absent
  return Number.isSafeInteger(value) ? (value as number) : fail(`${name} is a whole number`)
}

function fail(message: string): never {
  throw new Refusal(message)
}

function parseObject(text: string): Members | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
