// SPDX-License-Identifier: AGPL-3.0-only
import type { OtaKind } from '../db/tables.ts'
import type { Attribute } from '../ingest/codecs.ts'
import type { OtaFile } from './packages.ts'
import { otaKinds } from './schemas.ts'

/** Topic and key prefix of each kind. */
export const prefixOf = { firmware: 'fw', software: 'sw' } as const satisfies Record<OtaKind, string>

/** Keys of telemetry that tell how an update goes [O-3]. */
export const reportKeys = new Map<string, { kind: OtaKind; field: 'state' | 'error' | 'title' | 'version' }>(
  otaKinds.flatMap((kind) => {
    const prefix = prefixOf[kind]
    return [
      [`${prefix}_state`, { kind, field: 'state' }],
      [`${prefix}_error`, { kind, field: 'error' }],
      [`current_${prefix}_title`, { kind, field: 'title' }],
      [`current_${prefix}_version`, { kind, field: 'version' }],
    ] as const
  }),
)
/** Shared attributes, without their prefix. */
const attributeNames = ['title', 'version', 'tag', 'size', 'checksum', 'checksum_algorithm', 'url'] as const

/** The shared attributes that tell a device what to install [O-2]. */
export function offerAttributes({ kind, file }: { kind: OtaKind; file: OtaFile }): Attribute[] {
  const prefix = prefixOf[kind]
  const text = (name: (typeof attributeNames)[number], value: string | null): Attribute[] =>
    value === null ? [] : [{ key: `${prefix}_${name}`, kind: 'string', value }]
  const head = [...text('title', file.title), ...text('version', file.version), ...text('tag', file.tag)]
  if (file.url !== null) return [...head, ...text('url', file.url)]
  return [
    ...head,
    { key: `${prefix}_size`, kind: 'integer', value: file.sizeBytes ?? 0 },
    ...text('checksum', file.checksum),
    ...text('checksum_algorithm', file.checksumAlgorithm),
  ]
}

export function currentKeys(kind: OtaKind): [title: string, version: string] {
  return [`current_${prefixOf[kind]}_title`, `current_${prefixOf[kind]}_version`]
}

/** Every attribute an offer of this kind can have. */
export function attributeKeys(kind: OtaKind): string[] {
  return attributeNames.map((name) => `${prefixOf[kind]}_${name}`)
}
