// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { existsSync, readdirSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { withCommandContext } from '@iot-pms/core'
import type { CommandContext, Scope } from '@iot-pms/core'
import { readCheckpointFile } from './chains.ts'
import { streamOf } from './event.ts'
import { verifyStored } from './live.ts'
import { listStreams } from './log.ts'
import { fileNameOf } from './sinks.ts'
import { describe, trustKeys } from './verify.mjs'
import type { Result } from './verify.mjs'

const usage = 'iot-pms audit verify --live [--key <64 hex or fingerprint>]… [--json] [--require-anchored]'
const options = {
  live: { type: 'boolean' },
  key: { type: 'string', multiple: true, default: [] as string[] },
  json: { type: 'boolean', default: false },
  'require-anchored': { type: 'boolean', default: false },
} as const

type Verdict = Result & { stream: string }

/**
 * [§8] All chains as they are stored, against the checkpoints that were written to files beside the database: they find
 * what was cut from it, a whole chain too.
 *
 * @returns the exit code [AU-71]
 */
export async function verifyLive(args: readonly string[], print: (line: string) => void): Promise<number> {
  const isJson = args.includes('--json')
  try {
    const { values } = parseArgs({ args: [...args], options, strict: true })
    const verdicts = await withCommandContext('audit', (context) => verifyAll(context, values.key))
    if (isJson) print(JSON.stringify({ ok: verdicts.every(({ ok }) => ok), chains: verdicts }))
    else for (const verdict of verdicts) for (const line of describe(verdict)) print(`${verdict.stream}: ${line}`)
    if (verdicts.some(({ ok }) => !ok)) return 1
    const isLoose = values['require-anchored'] && verdicts.some(({ unanchored }) => unanchored > 0)
    return values.key.length === 0 || isLoose ? 3 : 0
  } catch (error) {
    const { message, hint = usage } = error as Error & { hint?: string }
    print(isJson ? JSON.stringify({ ok: false, error: message }) : `unreadable 无法读取: ${message}\n${hint}`)
    return 2
  }
}

async function verifyAll({ db, evidence, folder, listTenants, rootTenant }: CommandContext, given: readonly string[]): Promise<Verdict[]> {
  const list = (await evidence.publicKeys()).map(({ id, publicKey }) => ({ id, publicKey: publicKey.toString('base64') }))
  const keys = trustKeys(list, given)
  const verdicts: Verdict[] = []
  const verify = async (scope: Scope, stream: string) => {
    const outside = await readCheckpointFile(folder, stream)
    verdicts.push({ stream, ...(await db.withTenant(scope, (tx) => verifyStored(tx, stream, { keys, outside }))) })
  }
  for (const scope of await listTenants()) {
    const stored = await db.withTenant(scope, (tx) => listStreams(tx))
    const known = [streamOf(scope.tenantId), ...(scope.tenantId === rootTenant.tenantId ? [streamOf(undefined)] : [])]
    // A chain of which only its file is left was cut off whole.
    const lost = known.filter((stream) => !stored.includes(stream) && hasFile(folder, stream))
    for (const stream of [...stored, ...lost]) await verify(scope, stream)
  }
  return verdicts
}

function hasFile(folder: string, stream: string): boolean {
  return existsSync(folder) && readdirSync(folder).includes(`checkpoints-${fileNameOf(stream)}.jsonl`)
}
