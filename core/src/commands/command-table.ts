// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import type { SQL } from 'drizzle-orm'
import type { Scope, Tx } from '../db/client.ts'

/** States of a persistent command (device API §6.2). */
export const commandStates = ['QUEUED', 'SENT', 'DELIVERED', 'SUCCESSFUL', 'TIMEOUT', 'EXPIRED', 'FAILED', 'DELETED'] as const
export type CommandState = (typeof commandStates)[number]

/** From which states each is reached. One that is missing here is an end. */
const predecessors: Record<CommandState, readonly CommandState[]> = {
  QUEUED: ['SENT', 'TIMEOUT'],
  SENT: ['QUEUED', 'TIMEOUT'],
  DELIVERED: ['QUEUED', 'SENT', 'TIMEOUT'],
  SUCCESSFUL: ['QUEUED', 'SENT', 'TIMEOUT', 'DELIVERED'],
  TIMEOUT: ['SENT'],
  EXPIRED: ['QUEUED', 'SENT', 'TIMEOUT', 'DELIVERED'],
  FAILED: ['QUEUED', 'SENT', 'TIMEOUT'],
  DELETED: ['QUEUED', 'SENT', 'TIMEOUT', 'DELIVERED'],
}

/** A command as it is stored; params, response and additional information are JSON text, times ms since 1970. */
export type CommandRow = {
  id: string
  deviceId: string
  no: number
  method: string
  params: string
  oneway: boolean
  state: CommandState
  retries: number
  attempts: number
  response: string | null
  additionalInfo: string | null
  createdBy: string
  createdAt: number
  expiresAt: number
  updatedAt: number
}

/** What becomes of a command; nothing when it is in no state from which that is possible. */
export type Move = { id: string; state: CommandState; detail?: string; attempts?: number; response?: string }
export type Moved = CommandRow & { detail: string | null }

const lastNo = 2_147_483_647
const ms = (column: SQL) => sql`floor(extract(epoch from ${column}) * 1000)::float8`

export const commandColumns = sql`c.id, c.device_id as "deviceId", c.no, c.method, c.params, c.oneway, c.state, c.retries, c.attempts, c.response,
  c.additional_info as "additionalInfo", c.created_by as "createdBy", ${ms(sql`c.created_at`)} as "createdAt",
  ${ms(sql`c.expires_at`)} as "expiresAt", ${ms(sql`c.updated_at`)} as "updatedAt"`

/** A command with its time line [R-12]. */
export type CommandView = CommandRow & { moves: { at: string; state: CommandState; detail: string | null }[] }

/** As the indexes of the table say it. */
const isOpen = sql`(c.state in ('QUEUED', 'SENT', 'TIMEOUT') or (c.state = 'DELIVERED' and not c.oneway))`

/**
 * The next number for a topic of a device [R-1]. The device's row of numbers stays locked until the transaction ends.
 *
 * @returns undefined when there is no such device
 */
export async function takeNumber(tx: Tx, deviceId: string): Promise<number | undefined> {
  const rows = await tx.execute<{ no: number }>(sql`
    insert into command_counters as n (tenant_id, device_id, last_no)
    select d.tenant_id, d.id, 1 from devices d where d.id = ${deviceId} and d.deleted_at is null
    on conflict (tenant_id, device_id) do update set last_no = case when n.last_no = ${lastNo} then 1 else n.last_no + 1 end
    returning last_no as no`)
  return rows[0]?.no
}

export async function countOpen(tx: Tx, deviceId: string): Promise<number> {
  const rows = await tx.execute<{ count: number }>(
    sql`select count(*)::int4 as count from commands c where c.device_id = ${deviceId} and ${isOpen}`,
  )
  return rows[0]!.count
}

export type NewCommand = Omit<CommandRow, 'state' | 'attempts' | 'response' | 'updatedAt'>

export async function insertCommand(tx: Tx, scope: Scope, command: NewCommand): Promise<void> {
  const { id, deviceId, no, method, params, oneway, retries, additionalInfo, createdBy, createdAt, expiresAt } = command
  const at = new Date(createdAt).toISOString()
  await tx.execute(sql`
    insert into commands (tenant_id, id, device_id, no, method, params, oneway, state, retries, additional_info, created_by, created_at, expires_at, updated_at)
    values (${scope.tenantId}, ${id}, ${deviceId}, ${no}, ${method}, ${params}, ${oneway}, 'QUEUED', ${retries}, ${additionalInfo}, ${createdBy},
      ${at}, ${new Date(expiresAt).toISOString()}, ${at})`)
  await tx.execute(sql`
    insert into command_moves (tenant_id, command_id, no, at, state) values (${scope.tenantId}, ${id}, 1, ${at}, 'QUEUED')`)
}

/** Brings commands into new states, each with a row of its own [R-12]; @returns those for which it was possible. */
export async function moveCommands(tx: Tx, now: number, moves: readonly Move[]): Promise<Moved[]> {
  if (moves.length === 0) return []
  const ids = moves.map(({ id }) => id)
  // Sent before, so that the statement after it begins when it has the rows, and sees all moves that others have noted.
  const locked = tx.execute(sql`select 1 from commands c where c.id = any(${sql.param(ids)}::uuid[]) order by c.id for update`)
  const wanted = JSON.stringify(moves.map((move) => ({ ...move, origins: predecessors[move.state] })))
  const moved = tx.execute<Moved>(sql`
    with wanted as (
      select * from jsonb_to_recordset(${wanted}::jsonb) as w (id uuid, state text, detail text, attempts int4, response text, origins jsonb)
    ), c as (
      update commands c set state = w.state, attempts = coalesce(w.attempts, c.attempts), response = coalesce(w.response, c.response),
        updated_at = ${new Date(now).toISOString()}
      from wanted w where c.id = w.id and w.origins ? c.state and not (c.state = 'DELIVERED' and c.oneway)
      returning c.*, w.detail
    ), ${noteMoves(now)}
    select ${commandColumns}, c.detail from c order by c.no`)
  const [, rows] = await Promise.all([locked, moved])
  return [...rows]
}

/**
 * Takes the oldest waiting commands of a device to send them [R-7].
 *
 * The list is made once, as an array: a subquery may be run for each row, and take more than its limit.
 *
 * @param isNoted false where SENT is no state worth telling: what is written is delivered then
 */
export async function takeQueued(tx: Tx, now: number, deviceId: string, limit: number, isNoted: boolean): Promise<Moved[]> {
  const rows = await tx.execute<Moved>(sql`
    with c as (
      update commands c set state = 'SENT', updated_at = ${new Date(now).toISOString()}
      where c.id = any(array(
        select q.id from commands q where q.device_id = ${deviceId} and q.state = 'QUEUED' and q.expires_at > ${new Date(now).toISOString()}
        order by q.no limit ${limit} for update
      )) and c.state = 'QUEUED'
      returning c.*, null::text as detail
    ), ${isNoted ? noteMoves(now) : sql`noted as (select 1)`}
    select ${commandColumns}, c.detail from c order by c.no`)
  return [...rows]
}

/** The open two-way command that an answer is for is done with it; undefined when there is none [R-5]. */
export async function answerCommand(tx: Tx, now: number, deviceId: string, no: number, response: string): Promise<Moved | undefined> {
  const [row] = await tx.execute<{ id: string }>(
    sql`select c.id from commands c where c.device_id = ${deviceId} and c.no = ${no} and ${isOpen} and not c.oneway for update`,
  )
  return row && (await moveCommands(tx, now, [{ id: row.id, state: 'SUCCESSFUL', response }]))[0]
}

/** Open commands whose time is over. */
export async function expireCommands(tx: Tx, now: number): Promise<Moved[]> {
  const rows = await tx.execute<{ id: string }>(
    sql`select c.id from commands c where c.expires_at <= ${new Date(now).toISOString()} and ${isOpen} order by c.id limit 1000 for update`,
  )
  return moveCommands(
    tx,
    now,
    rows.map(({ id }) => ({ id, state: 'EXPIRED' as const })),
  )
}

/** When the next open command expires, ms since 1970. */
export async function nextExpiry(tx: Tx): Promise<number | undefined> {
  const rows = await tx.execute<{ at: number | null }>(sql`select ${ms(sql`min(c.expires_at)`)} as at from commands c where ${isOpen}`)
  return rows[0]?.at ?? undefined
}

/** What was on its way when the server stopped waits again [R-9]; @returns the devices that commands wait for. */
export async function recoverCommands(tx: Tx, now: number): Promise<string[]> {
  const rows = await tx.execute<{ id: string }>(sql`select c.id from commands c where ${isOpen} and c.state in ('SENT', 'TIMEOUT')`)
  for (let from = 0; from < rows.length; from += 1000) {
    const moves = rows.slice(from, from + 1000).map(({ id }) => ({ id, state: 'QUEUED' as const, detail: 'the server was restarted' }))
    await moveCommands(tx, now, moves)
  }
  const devices = await tx.execute<{ id: string }>(
    sql`select distinct c.device_id as id from commands c where ${isOpen} and c.state = 'QUEUED'`,
  )
  return devices.map(({ id }) => id)
}

/** Commands of known devices with their time lines, the newest first. */
export async function selectCommands(tx: Tx, where: SQL, limit: number): Promise<CommandView[]> {
  const rows = await tx.execute<CommandView>(sql`
    select ${commandColumns}, (
      select json_agg(json_build_object('at', to_char(m.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'state', m.state, 'detail', m.detail) order by m.no)
      from command_moves m where m.tenant_id = c.tenant_id and m.command_id = c.id) as moves
    from commands c join devices d on d.tenant_id = c.tenant_id and d.id = c.device_id and d.deleted_at is null
    where ${where} order by c.id desc limit ${limit}`)
  return [...rows]
}

/** Ended commands with their moves are kept for a time. */
export async function removeOldCommands(tx: Tx, before: number): Promise<void> {
  await tx.execute(sql`delete from commands c where c.updated_at < ${new Date(before).toISOString()} and not ${isOpen}`)
}

/** Rows of the time line for what the statement before has changed, which is named c. */
function noteMoves(now: number): SQL {
  return sql`noted as (
    insert into command_moves (tenant_id, command_id, no, at, state, detail)
    select c.tenant_id, c.id, 1 + (select coalesce(max(m.no), 0) from command_moves m where m.tenant_id = c.tenant_id and m.command_id = c.id),
      ${new Date(now).toISOString()}, c.state, c.detail from c
  )`
}
