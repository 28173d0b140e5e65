// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant } from '../http/schemas.ts'

const Labels = Type.Record(Type.String({ maxLength: 100 }), Type.String({ maxLength: 500 }), { maxProperties: 50 })
export const RoutingTest = Type.Object(
  { labels: Labels, at: Type.Optional(Instant), routing: Type.Optional(Type.Unknown()) },
  { additionalProperties: false },
)
export const RoutingTested = Type.Object({
  matches: Type.Array(
    Type.Object({
      path: Type.String(),
      receiver: Type.String(),
      groupBy: Type.Array(Type.String()),
      groupWaitMs: Type.Integer(),
      groupIntervalMs: Type.Integer(),
      repeatIntervalMs: Type.Integer(),
      muted: Type.Boolean(),
    }),
  ),
})
const Ms = Type.Number({ minimum: 0, maximum: 1e12 })
export const Simulate = Type.Object(
  {
    routing: Type.Optional(Type.Unknown()),
    silences: Type.Optional(
      Type.Array(
        Type.Object(
          { matchers: Type.Array(Type.String({ maxLength: 400 }), { minItems: 1, maxItems: 20 }), startsAtMs: Ms, endsAtMs: Ms },
          { additionalProperties: false },
        ),
        {
          maxItems: 100,
        },
      ),
    ),
    startAt: Type.Optional(Instant),
    untilMs: Ms,
    events: Type.Array(
      Type.Object(
        {
          atMs: Ms,
          alert: Type.String({ minLength: 1, maxLength: 200 }),
          status: Type.Union([Type.Literal('firing'), Type.Literal('resolved')]),
          labels: Type.Optional(Labels),
        },
        { additionalProperties: false },
      ),
      { maxItems: 10_000 },
    ),
  },
  { additionalProperties: false },
)
export const SimulatedAnswer = Type.Object({
  notifications: Type.Array(
    Type.Object({
      atMs: Type.Number(),
      route: Type.String(),
      receiver: Type.String(),
      reason: Type.String(),
      firing: Type.Array(Type.String()),
      resolved: Type.Array(Type.String()),
    }),
  ),
})

const silence = {
  matchers: Type.Array(Type.String({ minLength: 3, maxLength: 400 }), { minItems: 1, maxItems: 20 }),
  startsAt: Instant,
  endsAt: Instant,
  comment: Type.String({ pattern: '\\S', maxLength: 500 }),
}
export const SilenceView = Type.Object({
  id: Id,
  ...silence,
  author: Type.String(),
  state: Type.Union([Type.Literal('pending'), Type.Literal('active'), Type.Literal('expired')]),
  /** Firing alerts that it mutes now. */
  mutes: Type.Integer(),
  createdAt: Instant,
  updatedAt: Instant,
})
export type SilenceView = Static<typeof SilenceView>
export const SilenceCreate = Type.Object(silence, { additionalProperties: false })
export const SilencePatch = Type.Partial(Type.Object(silence, { additionalProperties: false }), { minProperties: 1 })
