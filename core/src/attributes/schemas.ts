// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import { Id, Page, pageQuery } from '../http/schemas.ts'
import { keyQuery } from '../telemetry/schemas.ts'
import { valueKinds } from '../telemetry/points.ts'
import { attributeScopes } from './columns.ts'
import type { AttributeScope } from './columns.ts'

export const ScopeParams = Type.Object({
  id: Id,
  scope: Type.Unsafe<AttributeScope>({ type: 'string', enum: attributeScopes }),
})

export const Attribute = Type.Object({
  key: Type.String(),
  value: Type.Unknown({ description: 'Integers beyond ±(2⁵³−1) as decimal strings.' }),
  kind: Type.Unsafe<(typeof valueKinds)[number]>({ type: 'string', enum: valueKinds }),
  lastUpdateTs: Type.Integer({ description: 'ms since 1970, server clock' }),
})

export const AttributeList = Page(Attribute)
export const ChangedAttributes = Type.Object({ items: Type.Array(Attribute) })
export const ListQuery = Type.Object({ ...pageQuery, ...keyQuery }, { additionalProperties: false })
export const DeleteQuery = Type.Object(keyQuery, { additionalProperties: false })
