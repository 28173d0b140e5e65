// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import { decodeTelemetry } from './codecs.ts'
import { refusedError } from './http.ts'
import type { Reject } from './rejects.ts'
import type { Ingest } from './start-ingest.ts'
import type { WorkedOut } from '../rules/engine.ts'
import type { Outcome } from './uplink.ts'

export type UserWriteOptions = {
  /** Numeric strings become numbers, as for devices; never in the native API [V-17]. */
  cast: boolean
  /** One refused point refuses all of them. */
  allOrNothing: boolean
}

/**
 * A telemetry message that a person sends for a device: the same rules and the same commit as an
 * uplink, but it is no sign of life of the device, and refusals go to the caller alone.
 *
 * @throws {ProblemError} when the message as a whole is refused, the disk is full, or the server is stopping
 */
export async function writeAsUser(
  ingest: Ingest,
  deviceId: string,
  payload: Buffer,
  options: UserWriteOptions,
  receivedAt: number,
): Promise<{ accepted: number; rejected: readonly Reject[] }> {
  const device = ingest.registry.get(deviceId)
  if (!device) throw new ProblemError('NOT_FOUND')
  ingest.disk.assertTakesTelemetry()
  if (ingest.pipeline.isFull) throw new ProblemError('OVERLOADED', { retryAfterS: 1 })
  const decoded = decodeTelemetry(payload, { ...device.rules, castNumericStrings: options.cast }, device, receivedAt)
  if ('refused' in decoded) throw refusedError(decoded.refused)
  if (decoded.points.length === 0 || (options.allOrNothing && decoded.rejects.length > 0)) return { accepted: 0, rejected: decoded.rejects }
  const transport = 'user'
  const source = { transport, topic: '', address: '' } as const
  const outcome = await new Promise<Outcome>((resolve) =>
    ingest.pipeline.write({ device, kind: 'telemetry', payload, transport, source, receivedAt }, decoded.points, decoded.rejects, resolve),
  )
  if (outcome.status === 'unavailable') throw new ProblemError('STORE_UNAVAILABLE', { retryAfterS: 5 })
  if (outcome.status === 'refused') throw refusedError(outcome.reject)
  return { accepted: outcome.status === 'stored' ? outcome.accepted : 0, rejected: outcome.rejects }
}

/** A value that a calculated field worked out: stored as any other, and no sign of life of its device either. */
export async function writeCalculated(
  ingest: Ingest,
  { tenant, deviceId, key, type, ts, value }: WorkedOut,
  receivedAt: number,
): Promise<void> {
  const device = ingest.registry.get(deviceId)
  if (!device) return
  if (type === 'attribute') {
    await ingest.attributes.change(tenant, deviceId, 'server', { values: [{ ...value, key }] })
    return
  }
  const source = { transport: 'user', topic: '', address: '' } as const
  const uplink = { device, kind: 'telemetry', payload: Buffer.alloc(0), transport: 'user', source, receivedAt } as const
  const outcome = await new Promise<Outcome>((resolve) => ingest.pipeline.write(uplink, [{ ...value, key, ts }], [], resolve))
  if (outcome.status !== 'stored') throw new ProblemError('STORE_UNAVAILABLE')
}
