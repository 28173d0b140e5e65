// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes, randomUUIDv7 } from 'node:crypto'
import { and, eq, sql } from 'drizzle-orm'
import { Value } from 'typebox/value'
import { recordAudit } from '../audit.ts'
import type { Context } from '../context.ts'
import type { Scope, Tx } from '../db/client.ts'
import { isUniqueViolation } from '../db/errors.ts'
import { notifyChannels } from '../db/notify-tables.ts'
import { ProblemError } from '../errors.ts'
import type { FieldError } from '../errors.ts'
import { formatCursor, parseCursor } from '../http/schemas.ts'
import type { Window } from '../jobs/limiter.ts'
import { parseTarget } from '../outbound.ts'
import type { Outbound } from '../outbound.ts'
import type { SealPlace } from '../secrets.ts'
import type { ChannelConfig, ChannelType } from './channel-type.ts'
import { channelTypeOf } from './channel-types.ts'
import { seedOf, whpk } from './channels/webhook.ts'
import { isUsed } from './routing-document.ts'

export type ChannelRow = typeof notifyChannels.$inferSelect
export type ChannelDraft = {
  name: string
  type: string
  config: ChannelConfig
  enabled?: boolean
  digest?: boolean | null
  rate?: Window[] | null
}
/** A channel ready to send: its kind, and its configuration with secrets. */
export type OpenChannel = { row: ChannelRow; type: ChannelType; config: ChannelConfig }

/** After a rotation [notifications 4.6]. */
const oldSecretMs = 86_400_000

/** Configured accounts at providers. Secrets are sealed, and never given back. */
export class Channels {
  readonly #context: Context
  readonly #outbound: Outbound

  constructor(context: Context, outbound: Outbound) {
    this.#context = context
    this.#outbound = outbound
  }

  async list(scope: Scope, limit: number, cursor?: string): Promise<{ items: ChannelRow[]; nextCursor: string | null }> {
    const [, after] = cursor ? parseCursor(cursor, 2) : []
    if (cursor && typeof after !== 'string') throw new ProblemError('CURSOR_INVALID')
    const rows = await this.#context.db.withTenant(scope, (tx) =>
      tx
        .select()
        .from(notifyChannels)
        .where(after === undefined ? undefined : sql`${notifyChannels.name} > ${after}`)
        .orderBy(notifyChannels.name)
        .limit(limit + 1),
    )
    const page = rows.slice(0, limit)
    return { items: page, nextCursor: rows.length > limit ? formatCursor(['channels', page.at(-1)!.name]) : null }
  }

  async get(scope: Scope, id: string): Promise<ChannelRow> {
    return this.#context.db.withTenant(scope, (tx) => readChannel(tx, id))
  }

  /**
   * @throws {ProblemError} `CHANNEL_TYPE_UNKNOWN`, `CHANNEL_CONFIG` with pointers, `CHANNEL_URL_INVALID`,
   *   `CHANNEL_RETIRED`, `OUTBOUND_URL_BLOCKED`, `NAME_TAKEN`
   */
  async create(scope: Scope, draft: ChannelDraft): Promise<{ row: ChannelRow; shown: Shown }> {
    const { type, config } = await this.check(draft.type, draft.config)
    const id = randomUUIDv7()
    const given = withSecret(type, config)
    const [row] = await this.#context.db.withTenant(scope, async (tx) => {
      const rows = await tx
        .insert(notifyChannels)
        .values({
          tenantId: scope.tenantId,
          id,
          name: draft.name.trim(),
          type: type.type,
          enabled: draft.enabled ?? true,
          digest: draft.digest ?? null,
          rate: lowerOnly(draft.rate, type),
          callbackToken: randomBytes(32).toString('base64url'),
          ...this.#split(scope, id, type, given),
        })
        .returning()
        .catch(asNameTaken(draft.name))
      recordAudit(tx, {
        type: 'notify_channel.create',
        subject: `notify_channel:${id}`,
        targetName: draft.name,
        changes: { from: null, to: { type: type.type } },
      })
      return rows
    })
    // A signing secret that was made here is shown this once.
    return { row: row!, shown: given === config ? {} : shownOf(given) }
  }

  /**
   * A new signing secret for a webhook; the one before signs too for a day.
   *
   * @throws {ProblemError} `NOT_FOUND`, `CHANNEL_CONFIG` for kinds whose secret is the provider's
   */
  async rotateSecret(scope: Scope, id: string): Promise<{ row: ChannelRow; shown: Shown }> {
    const { type, config } = await this.open(scope, id)
    if (type.type !== 'webhook') {
      throw new ProblemError('CHANNEL_CONFIG', { errors: [{ pointer: '/type', detail: 'The provider makes the secret of this kind.' }] })
    }
    const { signingSecret, ...rest } = config
    const given = withSecret(type, rest)
    const oldSecretUntil = new Date(this.#context.clock.now() + oldSecretMs).toISOString()
    const row = await this.update(scope, id, { config: { ...given, oldSecret: signingSecret, oldSecretUntil } })
    return { row, shown: shownOf(given) }
  }

  /** Members of `config` that are left out stay, secrets too. An edit makes a disabled channel ready again. */
  async update(scope: Scope, id: string, patch: Partial<Omit<ChannelDraft, 'type'>>, version?: number): Promise<ChannelRow> {
    const current = await this.open(scope, id)
    if (version !== undefined && version !== current.row.version) throw new ProblemError('VERSION_CONFLICT')
    // A pasted address comes before what is stored of the one before.
    const given = patch.config && splitUrl(channelTypeOf(current.row.type), patch.config)
    const merged = given ? mergeConfig(current.config, given) : current.config
    const { type, config } = await this.check(current.row.type, merged)
    const [row] = await this.#context.db.withTenant(scope, async (tx) => {
      const rows = await tx
        .update(notifyChannels)
        .set({
          ...(patch.name === undefined ? {} : { name: patch.name.trim() }),
          ...(patch.enabled === undefined ? {} : { enabled: patch.enabled }),
          ...(patch.digest === undefined ? {} : { digest: patch.digest }),
          ...(patch.rate === undefined ? {} : { rate: lowerOnly(patch.rate, type) }),
          ...this.#split(scope, id, type, config),
          ...ready,
          version: current.row.version + 1,
          updatedAt: sql`now()`,
        })
        .where(and(eq(notifyChannels.id, id), eq(notifyChannels.version, current.row.version)))
        .returning()
        .catch(asNameTaken(patch.name ?? ''))
      const { name, enabled, digest, rate } = patch
      const told = { name, enabled, digest, rate, config: patch.config ? Object.keys(patch.config) : undefined }
      recordAudit(tx, {
        type: 'notify_channel.update',
        subject: `notify_channel:${id}`,
        targetName: current.row.name,
        changes: { from: {}, to: told },
      })
      return rows
    })
    if (!row) throw new ProblemError('VERSION_CONFLICT')
    return row
  }

  /** @throws {ProblemError} `NOT_FOUND`, `IN_USE` while the routing or an escalation sends to it */
  async delete(scope: Scope, id: string): Promise<void> {
    await this.#context.db.withTenant(scope, async (tx) => {
      const { name } = await readChannel(tx, id)
      recordAudit(tx, { type: 'notify_channel.delete', subject: `notify_channel:${id}`, targetName: name })
      const users = await isUsed(tx, id)
      if (users.length > 0) {
        throw new ProblemError('IN_USE', { errors: users.map((detail) => ({ pointer: '', detail })) })
      }
      await tx.delete(notifyChannels).where(eq(notifyChannels.id, id))
    })
  }

  /** The channel with its secrets. */
  async open(scope: Scope, id: string): Promise<OpenChannel> {
    return this.openRow(await this.get(scope, id))
  }

  openRow(row: ChannelRow): OpenChannel {
    const type = channelTypeOf(row.type)
    const secrets =
      row.sealedSecrets === null ? {} : (JSON.parse(this.#context.secrets.open(row.sealedSecrets, placeOf(row))) as ChannelConfig)
    return { row, type, config: { ...row.config, ...secrets } }
  }

  /** The kind, and the configuration with a pasted address taken apart. @throws {ProblemError} as {@link create} */
  async check(typeName: string, given: ChannelConfig): Promise<{ type: ChannelType; config: ChannelConfig }> {
    const type = channelTypeOf(typeName)
    const config = splitUrl(type, given)
    const errors: FieldError[] = Value.Check(type.config, config)
      ? (type.check?.(config) ?? [])
      : [...Value.Errors(type.config, config)].map((one) => ({ pointer: `/config${one.instancePath}`, detail: one.message }))
    if (errors.length > 0) throw new ProblemError('CHANNEL_CONFIG', { errors: errors.slice(0, 20) })
    for (const name of type.addresses ?? []) await this.#outbound.checkSaved(parseTarget(String(config[name]), 'http'))
    if ('own' in type && type.own === 'email') {
      await this.#outbound.checkSaved({ kind: 'smtp', host: String(config['host']), port: Number(config['port']) })
    }
    return { type, config }
  }

  #split(scope: Scope, id: string, type: ChannelType, config: ChannelConfig) {
    const secrets = Object.fromEntries(Object.entries(config).filter(([name]) => type.secrets.includes(name)))
    const place = placeOf({ tenantId: scope.tenantId, id })
    return {
      config: Object.fromEntries(Object.entries(config).filter(([name]) => !type.secrets.includes(name))),
      sealedSecrets: Object.keys(secrets).length === 0 ? null : this.#context.secrets.seal(JSON.stringify(secrets), place),
      secretTails: Object.fromEntries(Object.entries(secrets).map(([name, value]) => [name, tailOf(value)])),
    }
  }
}

/** What makes a channel ready again. */
export const ready = {
  state: 'ready' as const,
  reason: null,
  stateSince: sql`now()`,
  failures: 0,
  failingSince: null,
  pausedUntil: null,
  pauseMs: 0,
}

async function readChannel(tx: Tx, id: string): Promise<ChannelRow> {
  const [row] = await tx.select().from(notifyChannels).where(eq(notifyChannels.id, id))
  if (!row) throw new ProblemError('NOT_FOUND')
  return row
}

const placeOf = (row: { tenantId: string; id: string }): SealPlace => ({
  column: 'notify_channels.sealed_secrets',
  tenantId: row.tenantId,
  rowId: row.id,
})

function tailOf(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  // Of a short one four characters would say too much.
  return text.length >= 12 ? text.slice(-4) : ''
}

/** What is shown once of a signing secret that was made here. */
export type Shown = { signingSecret?: string; publicKey?: string }

function shownOf(config: ChannelConfig): Shown {
  const signingSecret = String(config['signingSecret'])
  return config['algorithm'] === 'v1a' ? { signingSecret, publicKey: whpk(seedOf(signingSecret)) } : { signingSecret }
}

/** A webhook without a signing secret gets one. */
function withSecret(type: ChannelType, config: ChannelConfig): ChannelConfig {
  if (type.type !== 'webhook' || config['signingSecret'] !== undefined) return config
  const prefix = config['algorithm'] === 'v1a' ? 'whsk_' : 'whsec_'
  return { ...config, signingSecret: prefix + randomBytes(32).toString('base64') }
}

function mergeConfig(current: ChannelConfig, patch: ChannelConfig): ChannelConfig {
  return Object.fromEntries(Object.entries({ ...current, ...patch }).filter(([, value]) => value !== null))
}

/** Rates may only be set lower than the provider's. */
function lowerOnly(wanted: Window[] | null | undefined, type: ChannelType): Window[] | null {
  if (!wanted) return null
  const isHigher = wanted.some((one) => type.rates.some((usual) => usual.perMs === one.perMs && one.count > usual.count))
  if (isHigher) {
    throw new ProblemError('CHANNEL_CONFIG', { errors: [{ pointer: '/rate', detail: 'A rate can only be lower than the usual one.' }] })
  }
  return wanted
}

/** Takes a pasted address apart. @throws {ProblemError} `CHANNEL_URL_INVALID` naming the expected host */
function splitUrl(type: ChannelType, config: ChannelConfig): ChannelConfig {
  if (type.url === undefined || typeof config['url'] !== 'string') return config
  const { url: text, ...rest } = config
  const url = URL.parse(text)
  const isOurs =
    url?.protocol === 'https:' &&
    type.url.hosts.some((host) => (host.startsWith('*') ? url.hostname.endsWith(host.slice(1)) : url.hostname === host))
  const found = isOurs ? type.url.split(url) : undefined
  if (!found) {
    throw new ProblemError('CHANNEL_URL_INVALID', {
      params: { host: type.url.hosts.join(', ') },
      errors: [{ pointer: '/config/url', detail: type.url.hosts.join(', ') }],
    })
  }
  return { ...rest, ...found }
}

function asNameTaken(name: string) {
  return (error: unknown): never => {
    throw isUniqueViolation(error) ? new ProblemError('NAME_TAKEN', { params: { name }, cause: error }) : error
  }
}
