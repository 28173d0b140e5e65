// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import type { Actor } from '../http/actor.ts'
import { isUuid } from '../http/schemas.ts'
import type { TelemetryDevice, TelemetryParts } from './answers.ts'
import { damagedMember, planHistory, streamSeries } from './history.ts'
import type { HistoryPlan } from './history.ts'
import { maxLatestDevices } from './schemas.ts'
import type { ManyHistoryBody } from './schemas.ts'
import { createTally } from './series.ts'
import type { Source } from './series.ts'
import { toJsonText } from './values.ts'

/** Points of one answer about several devices. */
export const maxPointsInAll = 1_000_000

type FoundDevice = { device: TelemetryDevice; source: Source }

/** Devices of a question in its order, each once; unknown and foreign ones are left out alike. */
export async function findDevices(parts: TelemetryParts, { scope }: Actor, ids: readonly string[]): Promise<FoundDevice[]> {
  const found: FoundDevice[] = []
  for (const id of new Set(ids.map((one) => one.toLowerCase()))) {
    const device = await parts.findDevice(scope, id)
    if (device) found.push({ device, source: { store: parts.store, scope, deviceId: device.id } })
  }
  return found
}

/** @throws {ProblemError} `VALIDATION_FAILED` for too many or malformed ids */
export function parseDeviceIds(text: string): string[] {
  const ids = text.split(',')
  if (ids.length <= maxLatestDevices && ids.every(isUuid)) return ids
  throw new ProblemError('VALIDATION_FAILED', {
    errors: [{ pointer: '?deviceIds', detail: `1 to ${maxLatestDevices} ids, separated by commas` }],
  })
}

/** Newest values of many devices, as pieces of JSON. */
export async function* latestOfMany(
  parts: TelemetryParts,
  { scope }: Actor,
  deviceIds: readonly string[],
  keys: string[] | undefined,
): AsyncGenerator<string> {
  const ids = [...new Set(deviceIds.map((id) => id.toLowerCase()))]
  const latest = await parts.store.latest(scope, ids, keys ? { keys } : {})
  let separator = '{"items":['
  for (const id of ids) {
    const points = latest.get(id) ?? []
    if (points.length === 0) continue
    const values = points.map(
      (point) => `{"key":${JSON.stringify(point.key)},"ts":${point.ts},"value":${toJsonText(point)},"kind":"${point.kind}"}`,
    )
    yield `${separator}{"deviceId":"${id}","values":[${values.join(',')}]}`
    separator = ','
  }
  yield separator === ',' ? ']}' : `${separator}]}`
}

/**
 * Checks a question about the history of several devices; its calendar is that of the first one unless it
 * names a zone.
 * @throws {ProblemError} as {@link planHistory}, about members of the body
 */
export function planMany({ keys, from, to, ...rest }: ManyHistoryBody, devices: readonly FoundDevice[], limit?: number): HistoryPlan {
  const zone = devices[0]?.device.timeZone ?? 'UTC'
  const options = { devices: Math.max(1, devices.length), ...(limit === undefined ? {} : { limit }) }
  return withBodyPointers(() => planHistory({ ...rest, key: keys, from: String(from), to: String(to) }, zone, options))
}

/** Refusals that name parameters of a query name members of the body instead. */
export function withBodyPointers<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw toBodyProblem(error)
  }
}

export function toBodyProblem(error: unknown): unknown {
  if (!(error instanceof ProblemError) || !error.errors?.some(({ pointer }) => pointer.startsWith('?'))) return error
  const errors = error.errors.map((one) => ({ ...one, pointer: one.pointer.replace(/^\?(key$)?/, (_, key) => (key ? '/keys' : '/')) }))
  return new ProblemError(error.code, { params: error.params, errors, cause: error })
}

/**
 * The history of several devices as pieces of JSON, device after device.
 * @throws {ProblemError} `RANGE_TOO_LARGE` above {@link maxPointsInAll} points, before anything is sent
 */
export async function* streamMany(devices: readonly FoundDevice[], plan: HistoryPlan): AsyncGenerator<string> {
  await refuseTooMany(devices, plan)
  const { from, to, timeZone, keys } = plan
  let sourcePoints = 0
  let isDownsampled = false
  yield `{"from":${from},"to":${to},"timeZone":${JSON.stringify(timeZone)},"devices":[`
  for (const [index, { device, source }] of devices.entries()) {
    const tally = createTally()
    yield `${index > 0 ? ',' : ''}{"deviceId":"${device.id}","series":[`
    const next = yield* streamSeries(source, plan, tally)
    // There are no pages here: what the limit cut off must be told.
    const truncated = keys.filter((_, keyIndex) => typeof next[keyIndex] === 'number')
    yield `]${truncated.length > 0 ? `,"truncated":${JSON.stringify(truncated)}` : ''}${damagedMember(tally)}}`
    sourcePoints += tally.sourcePoints
    isDownsampled ||= tally.isDownsampled
  }
  yield `],"sourcePoints":${sourcePoints},"downsampled":${isDownsampled}}`
}

/** Buckets are bounded by the plan. Points are counted only where their limits allow too many. */
async function refuseTooMany(devices: readonly FoundDevice[], { keys, from, to, reading }: HistoryPlan): Promise<void> {
  if (reading.form === 'buckets') return
  const perSeries = reading.form === 'raw' ? reading.limit : reading.points
  if (devices.length * keys.length * perSeries <= maxPointsInAll) return
  let points = 0
  for (const { source } of devices) {
    for (const key of keys) {
      points += Math.min(perSeries, await source.store.count(source.scope, source.deviceId, [key], from, to))
      if (points <= maxPointsInAll) continue
      throw new ProblemError('RANGE_TOO_LARGE', {
        params: { limit: maxPointsInAll },
        errors: [
          {
            pointer: '',
            detail: `at most ${maxPointsInAll} points in one answer: ask for fewer devices or keys, a shorter range, or buckets`,
          },
        ],
      })
    }
  }
}
