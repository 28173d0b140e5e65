// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Id, Instant, Nullable } from '../http/schemas.ts'
import { toJsonValue } from '../telemetry/values.ts'
import { commandStates } from './command-table.ts'
import type { CommandRow, CommandState, CommandView } from './command-table.ts'

export const State = Type.Unsafe<CommandState>(Type.Union(commandStates.map((state) => Type.Literal(state))))
const Kind = Type.Union([Type.Literal('oneway'), Type.Literal('twoway')])
const Method = Type.String({ minLength: 1, maxLength: 255 })

/** What is sent to the device and how; times are RFC 3339 or ms since 1970. */
export const CommandCreate = Type.Object(
  {
    method: Method,
    params: Type.Optional(Type.Unknown()),
    kind: Type.Optional(Kind),
    persistent: Type.Optional(Type.Boolean()),
    timeoutMs: Type.Optional(Type.Integer({ minimum: 1, maximum: 31_536_000_000 })),
    expiresAt: Type.Optional(Type.Union([Instant, Type.Integer({ minimum: 0, maximum: 8.64e15 })])),
    retries: Type.Optional(Type.Integer({ minimum: 0, maximum: 20 })),
    waitForDevice: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
)
export type CommandCreate = Static<typeof CommandCreate>

const Move = Type.Object({ at: Instant, state: State, detail: Nullable(Type.String()) })

/** A persistent command with its time line, oldest move first. */
export const Command = Type.Object({
  id: Id,
  deviceId: Id,
  /** The number in the topic. */
  requestId: Type.Integer(),
  method: Type.String(),
  params: Type.Unknown(),
  kind: Kind,
  persistent: Type.Literal(true),
  state: State,
  response: Type.Unknown(),
  retries: Type.Integer(),
  /** Acknowledgements that did not come in time. */
  attempts: Type.Integer(),
  createdBy: Type.String(),
  createdAt: Instant,
  updatedAt: Instant,
  expiresAt: Instant,
  moves: Type.Array(Move),
})

/** How a command that was waited for has ended. */
export const CommandResult = Type.Object({
  requestId: Type.Integer(),
  state: Type.Union([Type.Literal('DELIVERED'), Type.Literal('SUCCESSFUL')]),
  response: Type.Unknown(),
})

/** A command as answers and the live stream show it. */
export function viewCommand(command: CommandRow) {
  const { id, deviceId, no, method, oneway, state, retries, attempts, createdBy } = command
  const instant = (at: number) => new Date(at).toISOString()
  return {
    id,
    deviceId,
    requestId: no,
    method,
    params: parseExact(command.params),
    kind: oneway ? ('oneway' as const) : ('twoway' as const),
    persistent: true as const,
    state,
    response: parseExact(command.response),
    retries,
    attempts,
    createdBy,
    createdAt: instant(command.createdAt),
    updatedAt: instant(command.updatedAt),
    expiresAt: instant(command.expiresAt),
  }
}

export const viewWithMoves = (command: CommandView) => ({ ...viewCommand(command), moves: command.moves })

/** JSON text as a value for an answer; numbers keep their digits. */
export function parseExact(text: string | null | undefined): unknown {
  return text === null || text === undefined ? null : toJsonValue({ kind: 'json', value: text })
}
