// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant, Nullable, Page, pageQuery } from '../http/schemas.ts'
import { checksumAlgorithms } from './checksums.ts'

/** What a device is told in an attribute: no control characters, no lone surrogates. */
const Text = Type.String({ pattern: '^[^\\u0000-\\u001f\\u007f\\ud800-\\udfff]{1,255}$' })
const Url = Type.String({ maxLength: 2048, pattern: '^https?://[^\\s\\u0000-\\u001f\\u007f]+$' })

export const otaKinds = ['firmware', 'software'] as const
const Kind = Type.Enum([...otaKinds])
const Algorithm = Type.Enum([...checksumAlgorithms])

/** What devices go through, as they report it [O-3]; the first two are ours [O-2]. */
export const otaStates = ['QUEUED', 'INITIATED', 'DOWNLOADING', 'DOWNLOADED', 'VERIFIED', 'UPDATING', 'UPDATED', 'FAILED'] as const
export type OtaState = (typeof otaStates)[number]
const State = Type.Enum([...otaStates])

export const OtaPackage = Type.Object({
  id: Id,
  kind: Kind,
  title: Type.String(),
  version: Type.String(),
  tag: Nullable(Type.String()),
  productId: Id,
  productName: Type.String(),
  /** Where devices fetch it themselves; then there is no content here. */
  url: Nullable(Type.String()),
  checksumAlgorithm: Algorithm,
  /** Null until there is content. */
  checksum: Nullable(Type.String()),
  size: Nullable(Type.Integer()),
  fileName: Nullable(Type.String()),
  contentType: Nullable(Type.String()),
  /** It is the one of its product. */
  isProductTarget: Type.Boolean(),
  /** Devices that were told to install it, whoever said so. */
  deviceCount: Type.Integer(),
  createdAt: Instant,
  updatedAt: Instant,
})
export type OtaPackage = Static<typeof OtaPackage>

export const PackageCreate = Type.Object(
  {
    title: Text,
    version: Text,
    kind: Kind,
    productId: Id,
    tag: Type.Optional(Nullable(Text)),
    url: Type.Optional(Nullable(Url)),
    checksumAlgorithm: Type.Optional(Algorithm),
  },
  { additionalProperties: false },
)
export type PackageCreate = Static<typeof PackageCreate>

export const PackageListQuery = Type.Object(
  { ...pageQuery, productId: Type.Optional(Id), kind: Type.Optional(Kind) },
  { additionalProperties: false },
)
export type PackageListQuery = Static<typeof PackageListQuery>

export const ContentQuery = Type.Object(
  {
    /** No path: it becomes the name of a file where it is saved. */
    fileName: Type.Optional(Type.String({ pattern: '^[^\\u0000-\\u001f\\u007f\\ud800-\\udfff"/\\\\]{1,255}$' })),
    checksum: Type.Optional(Type.String({ pattern: '^[0-9a-fA-F]{1,128}$' })),
    size: Type.Optional(Type.Integer({ minimum: 0 })),
  },
  { additionalProperties: false },
)
export type ContentQuery = Static<typeof ContentQuery>

const Current = Type.Object({ title: Nullable(Type.String()), version: Nullable(Type.String()) })

export const OtaEvent = Type.Object({
  id: Id,
  at: Instant,
  event: Type.String(),
  packageId: Nullable(Id),
  detail: Type.Record(Type.String(), Type.Unknown()),
})
export type OtaEvent = Static<typeof OtaEvent>

/** One device and what it shall run. */
export const DeviceOta = Type.Object({
  /** As the device reported last. */
  current: Current,
  target: Nullable(
    Type.Object({
      packageId: Id,
      title: Type.String(),
      version: Type.String(),
      tag: Nullable(Type.String()),
      source: Type.Union([Type.Literal('device'), Type.Literal('product')]),
    }),
  ),
  state: Nullable(State),
  stateAt: Nullable(Instant),
  error: Nullable(Type.String()),
  /** Percent of the content that was sent; null for content that lies elsewhere. */
  progress: Nullable(Type.Integer()),
  offeredAt: Nullable(Instant),
  /** Newest first, at most 100. */
  trace: Type.Array(OtaEvent),
})
export type DeviceOta = Static<typeof DeviceOta>

export const AssignPackage = Type.Object({ packageId: Id }, { additionalProperties: false })

export const RolloutQuery = Type.Object({ ...pageQuery, state: Type.Optional(State) }, { additionalProperties: false })
export type RolloutQuery = Static<typeof RolloutQuery>

const RolloutDevice = Type.Object({
  deviceId: Id,
  deviceName: Type.String(),
  source: Type.Union([Type.Literal('device'), Type.Literal('product')]),
  state: State,
  stateAt: Instant,
  error: Nullable(Type.String()),
  progress: Nullable(Type.Integer()),
  current: Current,
  offeredAt: Nullable(Instant),
})
export type RolloutDevice = Static<typeof RolloutDevice>

/** How far a package has come; the counts are of all its devices, whatever page this is. */
export const Rollout = Type.Object({
  ...Page(RolloutDevice).properties,
  total: Type.Integer(),
  counts: Type.Object(
    Object.fromEntries(otaStates.map((state) => [state, Type.Integer()])) as Record<OtaState, ReturnType<typeof Type.Integer>>,
  ),
})
export type Rollout = Static<typeof Rollout>

export const DownloadQuery = Type.Object({
  title: Type.Optional(Type.String({ maxLength: 255 })),
  version: Type.Optional(Type.String({ maxLength: 255 })),
  size: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1 })),
  chunk: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1 })),
})
