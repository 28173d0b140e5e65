// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { isIPv6 } from 'node:net'
import { canonical } from './canonical.ts'
import type { Entry } from './chain.ts'
import { tenantOf } from './event.ts'
import type { EventPayload } from './event.ts'

/** One line of `entries.jsonl`, with its line feed. */
export function toJsonLine(entry: Entry): string {
  return `${canonical(entry)}\n`
}

/** [AU-61] */
export function severityOf({ type, data }: EventPayload): 3 | 5 | 6 | 7 {
  if (data.outcome === 'denied') return 7
  if (data.outcome === 'failure') return 5
  const parts = type.split('.')
  const isGrave =
    ['delete', 'purge'].includes(parts.at(-1)!) ||
    ['audit', 'license', 'sso', 'tenant'].includes(parts[0]!) ||
    parts.some((part) => part === 'credentials' || part === 'role') ||
    type === 'session.revoke'
  return isGrave ? 6 : 3
}

/** One line of ArcSight CEF, without a line feed. @param version of the product */
export function toCef({ hash, payload }: Entry, version: string): string {
  const { type, data, stream } = payload
  const { ip } = data.context
  const header = ['IoT PMS', 'IoT PMS', version, type, `${type} ${data.outcome}`, String(severityOf(payload))].map(escapeHeader)
  const members: [string, string | null][] = [
    ['rt', String(Date.parse(payload.ts))],
    ['externalId', String(payload.seq)],
    ['suid', payload.actor],
    ['suser', data.actor.name],
    ['duid', payload.subject],
    ['duser', data.target.name],
    ...(ip !== null && isIPv6(ip)
      ? ([
          ['c6a2', ip],
          ['c6a2Label', 'Source IPv6 Address'],
        ] as [string, string][])
      : ([['src', ip]] as [string, string | null][])),
    ['outcome', data.outcome],
    ['reason', data.reason],
    ['request', data.context.route],
    ['cs1Label', 'hash'],
    ['cs1', hash],
    ['cs2Label', 'tenant'],
    ['cs2', tenantOf(stream)],
    ['cs3Label', 'changes'],
    ['cs3', data.changes.length > 0 ? canonical(data.changes) : null],
  ]
  const extension = members.flatMap(([name, value]) => (value === null ? [] : [`${name}=${escapeExtension(value)}`]))
  return `CEF:0|${header.join('|')}|${extension.join(' ')}`
}

/** [AU-60] U+2028 and U+2029 end a line for some readers, as control characters do. */
function blankControls(text: string): string {
  return text.replace(/[^\P{Cc}\r\n]|[\u2028\u2029]/gu, ' ')
}

function escapeHeader(text: string): string {
  return blankControls(text)
    .replaceAll('\\', '\\\\')
    .replaceAll('|', '\\|')
    .replace(/[\r\n]+/g, ' ')
}

function escapeExtension(text: string): string {
  return blankControls(text)
    .replaceAll('\\', '\\\\')
    .replaceAll('=', '\\=')
    .replace(/\r\n|\r|\n/g, '\\n')
}

const classes = { authentication: 3002, account: 3001, api: 6003 } as const
const severities = { 3: 1, 5: 3, 6: 2, 7: 4 } as const

/** An event as OCSF 1.3 JSON. @param version of the product */
export function toOcsf({ prev, hash, payload }: Entry, version: string): Record<string, unknown> {
  const { data, type } = payload
  const [classUid, activity] = classify(type)
  return {
    metadata: {
      version: '1.3.0',
      product: { name: 'IoT PMS', vendor_name: 'IoT PMS', version },
      uid: data.id,
      sequence: payload.seq,
      log_name: payload.stream,
    },
    class_uid: classUid,
    category_uid: Math.floor(classUid / 1000),
    activity_id: activity,
    type_uid: classUid * 100 + activity,
    time: Date.parse(payload.ts),
    severity_id: severities[severityOf(payload)],
    status_id: data.outcome === 'success' ? 1 : 2,
    status_detail: data.reason,
    actor: {
      user: { uid: payload.actor, name: data.actor.name },
      session: data.actor.session === null ? null : { uid: data.actor.session },
    },
    src_endpoint: data.context.ip === null ? null : { ip: data.context.ip },
    api: { operation: type, request: { uid: data.context.requestId } },
    unmapped: { subject: payload.subject, target: data.target.name, changes: data.changes, hash, prev },
  }
}

function classify(type: string): [classUid: number, activity: number] {
  const parts = type.split('.')
  const last = parts.at(-1)!
  if (parts[0] === 'auth') return [classes.authentication, type === 'auth.login' ? 1 : 2]
  if (['user', 'role', 'api_key', 'sso', 'tenant'].includes(parts[0]!)) {
    return [classes.account, last === 'create' ? 1 : last === 'delete' ? 6 : 99]
  }
  const verbs = ['create', 'read', 'update', 'delete']
  return [classes.api, verbs.includes(last) ? verbs.indexOf(last) + 1 : 99]
}

export const csvColumns = [
  'time',
  'seq',
  'type',
  'actor',
  'actor name',
  'subject',
  'target',
  'outcome',
  'reason',
  'ip',
  'route',
  'changes',
  'hash',
] as const

/** A row of the CSV, with CRLF; the first cells of a file are a byte order mark and `csvColumns`. */
export function toCsvRow({ hash, payload }: Entry): string {
  const { data } = payload
  const cells = [
    payload.ts.replace('T', ' ').replace('Z', ''),
    String(payload.seq),
    payload.type,
    payload.actor,
    data.actor.name,
    payload.subject,
    data.target.name,
    data.outcome,
    data.reason,
    data.context.ip,
    data.context.route,
    data.changes.length > 0 ? canonical(data.changes) : null,
    hash,
  ]
  return `${cells.map(toCell).join(',')}\r\n`
}

/** RFC 4180; what a spreadsheet would run as a formula gets an apostrophe, other control characters a blank. */
function toCell(value: string | null): string {
  const text = blankControls(value ?? '').replace(/^(?=[=+\-@\t\r])/, "'")
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
