// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Instant, Nullable, Page } from '../http/schemas.ts'

/** [L-11], [L-111] */
export const maxLicenseBytes = 65_536
export const maxCrlBytes = 2 * 1_048_576

const closed = { additionalProperties: false } as const
const Both = Type.Object({ zh: Type.String(), en: Type.String() })
const FeatureStatus = Type.String({ enum: ['active', 'readonly', 'locked', 'absent', 'starting', 'stopping', 'failed'] })

/** The JSON form, or the token itself as text/plain. */
export const LicenseBody = Type.Union([
  Type.Object({ license: Type.String(), acknowledge: Type.Optional(Type.Boolean()) }, closed),
  Type.String(),
])
export const CrlBody = Type.Union([Type.Object({ crl: Type.String() }, closed), Type.String()])
export const AcknowledgeQuery = Type.Object({ acknowledge: Type.Optional(Type.String({ maxLength: 10 })) }, closed)
export const RequestBody = Type.Optional(
  Type.Object(
    {
      mode: Type.Optional(Type.Union([Type.Literal('host'), Type.Literal('instance'), Type.Literal('cluster')])),
      note: Type.Optional(Type.String({ maxLength: 200 })),
    },
    closed,
  ),
)

const Change = Type.Object({ change: Type.String(), ack: Type.Optional(Type.Literal(true)) }, { additionalProperties: true })
const Warning = Type.Object({ code: Type.String(), value: Type.String() })

const LicensePart = Type.Object({
  jti: Type.String(),
  seq: Type.Integer(),
  sub: Type.String(),
  customer: Nullable(Type.String()),
  kid: Type.String(),
  source: Type.String(),
  issuedAt: Instant,
  notBefore: Instant,
  expiresAt: Instant,
  graceEndsAt: Instant,
  restrictedAt: Nullable(Instant),
  prev: Nullable(Type.String()),
  installedAt: Instant,
  installedBy: Type.String(),
})
export type LicensePart = Static<typeof LicensePart>

const MachineView = Type.Object({
  mode: Type.String(),
  bound: Type.Boolean(),
  matched: Type.Integer(),
  min: Type.Integer(),
  total: Type.Integer(),
  anchorsMatched: Type.Integer(),
  anchors: Type.Integer(),
  mismatchSince: Nullable(Instant),
  factors: Type.Array(Type.Object({ k: Type.String(), match: Type.Boolean() })),
})

const CrlView = Type.Object({ seq: Type.Integer(), issuedAt: Nullable(Instant), nextUpdate: Nullable(Instant), outdated: Type.Boolean() })

/** [L-110] What an administrator sees of the license. */
export const LicenseView = Type.Object({
  state: Type.String(),
  conditions: Type.Array(Type.String()),
  edition: Type.String(),
  kind: Nullable(Type.String()),
  env: Type.String(),
  license: Nullable(LicensePart),
  scheduled: Nullable(LicensePart),
  features: Type.Array(
    Type.Object({
      id: Type.String(),
      title: Both,
      granted: Type.Boolean(),
      present: Type.Boolean(),
      status: FeatureStatus,
      onExpire: Type.String(),
      editions: Type.Array(Type.String()),
    }),
  ),
  limits: Type.Object({
    devices: Type.Object({
      limit: Type.Integer(),
      hard: Type.Integer(),
      used: Type.Integer(),
      overDays: Type.Integer(),
      overDaysAllowed: Type.Integer(),
    }),
  }),
  machine: Nullable(MachineView),
  crl: CrlView,
  clock: Type.Object({ effectiveNow: Instant, highWater: Instant, suspect: Type.Boolean() }),
  warnings: Type.Array(Warning),
  fileRefusals: Type.Array(Type.Object({ file: Type.String(), code: Type.String(), at: Instant })),
  instance: Type.Object({ installId: Type.String(), keyThumbprint: Type.String() }),
})
export type LicenseView = Static<typeof LicenseView>

export const PreviewAnswer = Type.Object({
  result: Type.Union([Type.Literal('installable'), Type.Literal('unchanged'), Type.Literal('scheduled')]),
  next: LicensePart,
  changes: Type.Array(Change),
  needsAcknowledge: Type.Boolean(),
  warnings: Type.Array(Warning),
})
export const InstallAnswer = Type.Object({
  result: Type.Union([Type.Literal('installed'), Type.Literal('scheduled'), Type.Literal('unchanged')]),
  changes: Type.Array(Change),
  warnings: Type.Array(Warning),
  license: LicenseView,
})
export const CrlAnswer = Type.Object({ result: Type.Union([Type.Literal('installed'), Type.Literal('unchanged')]), seq: Type.Integer() })
export const CrlState = Type.Object({ ...CrlView.properties, revoked: Type.Integer() })

export const HistoryPage = Page(
  Type.Object({
    id: Type.String(),
    at: Instant,
    actor: Type.String(),
    action: Type.String(),
    outcome: Type.String(),
    code: Nullable(Type.String()),
    jti: Nullable(Type.String()),
    seq: Nullable(Type.Integer()),
    kid: Nullable(Type.String()),
    detail: Type.Record(Type.String(), Type.Unknown()),
  }),
)

/** What anybody may know: names of what there is, no customer, date, limit, state or count. */
export const Editions = Type.Object({
  edition: Type.String(),
  features: Type.Array(Type.String()),
  modules: Type.Array(
    Type.Object({
      name: Type.String(),
      feature: Type.String(),
      title: Both,
      status: Type.Union([Type.Literal('active'), Type.Literal('locked')]),
    }),
  ),
  version: Type.String(),
})
export type Editions = Static<typeof Editions>

export const LicenseRequestFile = Type.Object({}, { additionalProperties: true })
export const ReleaseReceipt = Type.Object({
  type: Type.Literal('iot-pms-release'),
  jti: Type.String(),
  seq: Type.Integer(),
  at: Instant,
  installIdHash: Type.String(),
  sig: Type.String(),
})
export type ReleaseReceipt = Static<typeof ReleaseReceipt>
