// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { readFileSync } from 'node:fs'
import type { Tx } from '@iot-pms/core'
import { createTestContext } from '@iot-pms/core/testing'
import type { TestContext } from '@iot-pms/core/testing'
import postgres from 'postgres'
import { streamOf } from './event.ts'
import type { Draft } from './event.ts'
import { appendEvents } from './log.ts'

/** A database with the tables of audit, as the module's migration makes them. */
export type AuditContext = TestContext & {
  /** The owner of the database, who may do anything. */
  owner: postgres.Sql
  /** Work of the application in the name of the root tenant. */
  work<T>(run: (tx: Tx) => Promise<T>): Promise<T>
  append(stream: string, ...drafts: Draft[]): Promise<unknown>
  /** A chain of its own for each test. */
  newStream(): string
}

export async function createAuditContext(): Promise<AuditContext> {
  const context = await createTestContext()
  const owner = postgres(context.database.adminUrl, { max: 1, onnotice: () => {} })
  await owner.unsafe('create schema audit authorization pms_owner; grant usage on schema audit to pms_app')
  await owner.begin(async (tx) => {
    await tx.unsafe('set local role pms_owner')
    await tx.unsafe('create table public.audited_change (tenant_id uuid, name text); grant all on public.audited_change to pms_app')
    for (const file of ['0001_audit.sql', '0002_settings_sinks.sql']) {
      await tx.unsafe(readFileSync(new URL(`../migrations/${file}`, import.meta.url), 'utf8'))
    }
  })
  const work = <T>(run: (tx: Tx) => Promise<T>): Promise<T> => context.db.withTenant(context.rootTenant, run)
  let count = 0
  return {
    ...context,
    owner,
    work,
    append: (stream, ...drafts) => work((tx) => appendEvents(tx, context.rootTenant, new Map([[stream, drafts]]))),
    newStream: () => streamOf(`chain-${++count}`),
    async close() {
      await owner.end()
      await context.close()
    },
  }
}

export function draftOf(name: string): Draft {
  return { type: 'device.update', outcome: 'success', subject: `device:${name}`, targetName: name, actor: 'system' }
}
