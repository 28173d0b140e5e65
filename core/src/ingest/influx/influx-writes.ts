// SPDX-License-Identifier: AGPL-3.0-only
import { isUtf8 } from 'node:buffer'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import type { Clock } from '../../clock.ts'
import type { ChildDevices } from '../../gateway/child-devices.ts'
import type { Point } from '../../telemetry/points.ts'
import { maxPointsPerMessage } from '../codecs.ts'
import type { Pipeline } from '../pipeline.ts'
import { rateReject } from '../rate-limits.ts'
import type { Device } from '../registry.ts'
import type { RejectLog } from '../reject-log.ts'
import type { Reject } from '../rejects.ts'
import type { Outcome, UplinkSource } from '../uplink.ts'
import { parseLines } from './line-protocol.ts'
import type { InfluxLine } from './line-protocol.ts'
import { childOf, toPoints } from './points.ts'
import type { Precision } from './points.ts'

/** A body after it was inflated. */
export const maxInflatedBytes = 4_194_304
/** Faults of one request that the reject log gets; the answer names as many. */
const maxTold = 20

export type InfluxParts = {
  pipeline: Pipeline
  rejects: RejectLog
  children: ChildDevices
  clock: Clock
}

export type InfluxRequest = { device: Device; body: Buffer; precision: Precision; source: UplinkSource; receivedAt: number }

/** `faults`: what was not stored and why, the first ones; `line`: of the first one that is no line protocol. */
export type InfluxOutcome = { accepted: number; refused: number; faults: string[]; line: number | undefined }

type Batch = { device: Device; points: Point[]; rejects: Reject[] }

const inflate = promisify(gunzip)

/** @returns the bytes, or why there are none */
export async function inflateBody(body: Buffer): Promise<Buffer | 'too_large' | 'broken'> {
  try {
    return await inflate(body, { maxOutputLength: maxInflatedBytes })
  } catch (error) {
    return (error as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE' ? 'too_large' : 'broken'
  }
}

/**
 * Stores what is good of a body in line protocol and tells what is not. Resolves after the commit [M-27].
 *
 * @returns `unavailable` when it could not be committed
 */
export async function writeLines(parts: InfluxParts, request: InfluxRequest): Promise<InfluxOutcome | 'unavailable'> {
  const outcome: InfluxOutcome = { accepted: 0, refused: 0, faults: [], line: undefined }
  const note = (detail: string, count = 1) => {
    outcome.refused += count
    if (outcome.faults.length < maxTold) outcome.faults.push(detail)
  }
  const lines: InfluxLine[] = []
  if (isUtf8(request.body)) {
    for (const line of parseLines(request.body.toString())) {
      if ('fields' in line) lines.push(line)
      else {
        outcome.line ??= line.no
        const detail = `line ${line.no}: ${line.detail}`
        if (outcome.faults.length < maxTold) record(parts, request, { code: 'PAYLOAD_MALFORMED', detail }, Buffer.from(line.text))
        note(`unable to parse '${line.text.slice(0, 100)}': ${detail}`)
      }
    }
  } else {
    record(parts, request, { code: 'PAYLOAD_MALFORMED', detail: 'not valid UTF-8' }, request.body)
    note('unable to parse: not valid UTF-8')
  }
  const batches = await gatherBatches(parts, request, lines, note)
  if (batches === 'unavailable') return batches
  const outcomes = await Promise.all(batches.flatMap((batch) => store(parts, request, batch)))
  for (const one of outcomes) {
    if (one.status === 'unavailable') return 'unavailable'
    if (one.status === 'refused') note(one.reject.detail)
    else {
      for (const reject of one.rejects) note(`${reject.code} ${reject.key ?? ''}: ${reject.detail}`)
      if (one.status === 'stored') outcome.accepted += one.accepted
    }
  }
  return outcome
}

/** The points of each device, children of a gateway found or made first. */
async function gatherBatches(
  parts: InfluxParts,
  request: InfluxRequest,
  lines: readonly InfluxLine[],
  note: (detail: string, count?: number) => void,
): Promise<Batch[] | 'unavailable'> {
  const { device: sender, precision, receivedAt } = request
  const groups = Map.groupBy(lines, (line) => childOf(line, sender))
  const names = [...groups.keys()].filter((name) => name !== undefined)
  const children =
    names.length > 0
      ? await parts.children.ensure(
          sender,
          names.filter(isName).map((name) => ({ name })),
        )
      : undefined
  if (children === 'unavailable') return children
  const batches: Batch[] = []
  for (const [name, group] of groups) {
    const device = name === undefined ? sender : (children?.get(name) ?? wrongName)
    const refusal = 'code' in device ? device : device === sender ? undefined : admitChild(parts, sender, device)
    if (refusal || 'code' in device) {
      const reject = refusal ?? wrongName
      record(parts, request, { ...reject, key: (name ?? '').slice(0, 100) }, Buffer.alloc(0))
      note(`${reject.code} ${name}: ${reject.detail}`, group.length)
      continue
    }
    const batch: Batch = { device, points: [], rejects: [] }
    for (const line of group) {
      const { points, rejects } = toPoints(line, device, { precision, receivedAt, isChild: sender.isGateway })
      batch.points.push(...points)
      batch.rejects.push(...rejects)
    }
    const count = batch.points.length + batch.rejects.length
    sender.limits?.own?.takePoints(count)
    if (device !== sender) sender.limits?.childLimiter(device)?.takePoints(count)
    batches.push(batch)
  }
  return batches
}

const wrongName: Reject = { code: 'SHAPE_INVALID', detail: 'the name of a child has 1–255 characters' }

function isName(name: string): boolean {
  return name.length >= 1 && name.length <= 255 && name.isWellFormed() && !/\p{Cc}/u.test(name)
}

/** [G-8] */
function admitChild({ clock }: InfluxParts, gateway: Device, child: Device): Reject | undefined {
  const excess = gateway.limits?.childLimiter(child)?.admit(true, clock.monotonic())
  return excess && rateReject(excess)
}

/** In messages of the usual size, since agents send some thousand lines at a time. */
function store({ pipeline }: InfluxParts, request: InfluxRequest, { device, points, rejects }: Batch): Promise<Outcome>[] {
  const { body, source, receivedAt } = request
  const outcomes: Promise<Outcome>[] = []
  for (let start = 0; start === 0 || start < points.length; start += maxPointsPerMessage) {
    const uplink = { device, kind: 'telemetry', payload: body, transport: 'http', source, receivedAt } as const
    const part = { points: points.slice(start, start + maxPointsPerMessage), rejects: start === 0 ? rejects : [] }
    outcomes.push(new Promise((resolve) => pipeline.take(uplink, part, resolve)))
  }
  return outcomes
}

function record({ rejects }: InfluxParts, { device, source }: InfluxRequest, reject: Reject, payload: Buffer): void {
  rejects.record({ device, source, reject, payload })
}
