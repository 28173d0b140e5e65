// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Value } from 'typebox/value'

/** Names of the files of a backup that hold no table. */
export const manifestName = 'manifest.json'
export const totalsName = 'tables.json'
export const sumsName = 'SHA256SUMS'

const Name = Type.String({ minLength: 1, maxLength: 63 })
const Migration = Type.Object({ version: Type.Integer(), name: Type.String(), checksum: Type.String() })
export type BackupMigration = Static<typeof Migration>

/** [RE-96] The secret key of the installation under a passphrase: argon2id, then AES-256-GCM; all in base64url. */
export const PackedKey = Type.Object({
  kdf: Type.Literal('argon2id'),
  memoryKib: Type.Integer({ minimum: 8, maximum: 1_048_576 }),
  passes: Type.Integer({ minimum: 1, maximum: 100 }),
  parallelism: Type.Integer({ minimum: 1, maximum: 16 }),
  salt: Type.String(),
  nonce: Type.String(),
  sealed: Type.String(),
})
export type PackedKey = Static<typeof PackedKey>

const BackupTable = Type.Object({ schema: Name, name: Name, columns: Type.Array(Name) })
export type BackupTable = Static<typeof BackupTable>

const kinds = ['full', 'config'] as const
export type BackupKind = (typeof kinds)[number]

/** [RE-95] What a backup is, known before its first row. Rows and bytes follow in {@link Totals}, so that it can be a stream. */
export const Manifest = Type.Object({
  format: Type.Literal(1),
  product: Type.Literal('iot-pms'),
  version: Type.String(),
  createdAt: Type.String(),
  kind: Type.Union([Type.Literal('full'), Type.Literal('config')]),
  postgres: Type.Integer(),
  installId: Type.String(),
  secretKeyId: Type.Union([Type.String(), Type.Null()]),
  migrations: Type.Array(Migration),
  modules: Type.Record(Type.String(), Type.Array(Migration)),
  /** Version of the tables of the job queues; null where there are none. */
  jobs: Type.Union([Type.Integer(), Type.Null()]),
  tables: Type.Array(BackupTable),
  /** Tables whose rows are not in it, as a backup of this kind leaves them out. */
  leftOut: Type.Array(Type.String()),
  sequences: Type.Array(Type.Object({ schema: Name, name: Name, value: Type.String({ pattern: '^-?\\d+$' }) })),
  key: Type.Optional(PackedKey),
})
export type Manifest = Static<typeof Manifest>

/** Rows and bytes of each table as they were written, the bytes before compression. */
export const Totals = Type.Array(
  Type.Object({ schema: Name, name: Name, rows: Type.Integer(), bytes: Type.Integer(), parts: Type.Integer({ minimum: 0 }) }),
)
export type Totals = Static<typeof Totals>

/** @throws when the text is not what the schema says */
export function parsePart<Schema extends typeof Manifest | typeof Totals>(schema: Schema, bytes: Buffer): Static<Schema> {
  return Value.Parse(schema, JSON.parse(bytes.toString('utf8')))
}

/** Large tables are several files; each of them is a whole binary COPY of some rows. */
export function partName({ schema, name }: { schema: string; name: string }, part: number): string {
  return `${schema}.${name}.copy${part === 1 ? '' : `.${part}`}.zst`
}

export function isBackupKind(text: string): text is BackupKind {
  return (kinds as readonly string[]).includes(text)
}
