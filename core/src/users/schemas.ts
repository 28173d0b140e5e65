// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant, Nullable, Page } from '../http/schemas.ts'
import { permissions } from '../http/permissions.ts'

const closed = { additionalProperties: false } as const

const Role = Type.Union([Type.Literal('viewer'), Type.Literal('operator'), Type.Literal('admin')])
const Language = Type.Union([Type.Literal('zh'), Type.Literal('en')])
/** Visible text on one line. */
const Name = Type.String({ minLength: 1, maxLength: 100, pattern: '^[^\\x00-\\x1f\\x7f]*[^\\s\\x00-\\x1f\\x7f][^\\x00-\\x1f\\x7f]*$' })
const Email = Type.String({ maxLength: 254, pattern: '^[^\\s@]+@[^\\s@]+$' })
/** Bounds the work only; what makes a good password is judged by the rules of §5 with sentences of their own. */
const Password = Type.String({ minLength: 1, maxLength: 1000 })
const OneTimeToken = Type.String({ minLength: 1, maxLength: 100 })
const Prefs = Type.Record(Type.String({ maxLength: 100 }), Type.Unknown(), { maxProperties: 200 })

export const Me = Type.Object({ id: Id, name: Type.String(), email: Type.String(), role: Role, language: Nullable(Language) })
export type Me = Static<typeof Me>

export const Site = Type.Object({
  name: Type.String(),
  timeZone: Type.String(),
  language: Language,
  version: Type.String(),
  hasDemo: Type.Boolean(),
  testHooks: Type.Array(Type.String()),
  insecure: Type.Boolean({ description: 'Plain http to another machine: passwords and tokens travel in clear text.' }),
})
export type Site = Static<typeof Site>

export const Session = Type.Object({
  user: Me,
  permissions: Type.Array(Type.String()),
  accessToken: Type.String(),
  expiresAt: Instant,
  prefs: Prefs,
  site: Site,
})
export type Session = Static<typeof Session>

export const NoSession = Type.Object({ user: Type.Null(), setupNeeded: Type.Optional(Type.Literal(true)), site: Site })

export const SetupNeeded = Type.Object({ needed: Type.Literal(true) })
export const SetupBody = Type.Object(
  {
    token: OneTimeToken,
    name: Name,
    email: Email,
    password: Password,
    language: Language,
    timeZone: Type.String({ minLength: 1, maxLength: 64 }),
    siteName: Name,
  },
  closed,
)
export const LoginBody = Type.Object({ email: Type.String({ minLength: 1, maxLength: 254 }), password: Password }, closed)
export const EmptyBody = Type.Object({}, closed)
export const PasswordBody = Type.Object({ password: Password }, closed)
export const ResetBody = Type.Object({ token: OneTimeToken, password: Password }, closed)

export const MeAnswer = Type.Object({ user: Me, permissions: Type.Array(Type.String()), prefs: Prefs })
export const MeChange = Type.Object(
  { name: Type.Optional(Name), language: Type.Optional(Nullable(Language)), prefs: Type.Optional(Prefs) },
  closed,
)
export const PasswordChange = Type.Object({ current: Password, password: Password }, closed)
export const OwnSessions = Type.Object({
  items: Type.Array(
    Type.Object({
      id: Id,
      createdAt: Instant,
      lastUsedAt: Instant,
      address: Type.String(),
      userAgent: Type.String(),
      method: Type.String(),
      isCurrent: Type.Boolean(),
    }),
  ),
})

export const ListedUser = Type.Object({
  id: Id,
  name: Type.String(),
  email: Type.String(),
  role: Role,
  language: Nullable(Language),
  disabled: Type.Boolean(),
  hasPassword: Type.Boolean(),
  lastLoginAt: Nullable(Instant),
  createdAt: Instant,
})
export type ListedUser = Static<typeof ListedUser>
export const UserPage = Page(ListedUser)
export const NewUser = Type.Object({ name: Name, email: Email, role: Role, password: Type.Optional(Password) }, closed)
export const CreatedUser = Type.Object({
  user: ListedUser,
  resetLink: Type.Optional(Type.String()),
  resetLinkExpiresAt: Type.Optional(Instant),
})
export const UserChange = Type.Object(
  { name: Type.Optional(Name), role: Type.Optional(Role), disabled: Type.Optional(Type.Boolean()) },
  closed,
)
export const ResetLink = Type.Object({ link: Type.String(), expiresAt: Instant })

const keyMembers = {
  id: Id,
  name: Type.String(),
  last4: Type.String(),
  scopes: Type.Array(Type.String()),
  addresses: Type.Array(Type.String()),
  createdAt: Instant,
  expiresAt: Instant,
  lastUsedAt: Nullable(Instant),
  owner: Type.Object({ id: Id, name: Type.String() }),
}
export const ListedApiKey = Type.Object(keyMembers)
export type ListedApiKey = Static<typeof ListedApiKey>
export const ApiKeyList = Type.Object({ items: Type.Array(ListedApiKey) })
/** The key itself is in this one answer only. */
export const CreatedApiKey = Type.Object({ ...keyMembers, key: Type.String() })
export const NewApiKey = Type.Object(
  {
    name: Name,
    scopes: Type.Array(Type.Union(permissions.map((one) => Type.Literal(one))), { minItems: 1, maxItems: permissions.length }),
    expiresInDays: Type.Integer({ minimum: 1, maximum: 730 }),
    addresses: Type.Optional(Type.Array(Type.String({ maxLength: 49 }), { maxItems: 50 })),
  },
  closed,
)
