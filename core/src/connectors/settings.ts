// SPDX-License-Identifier: AGPL-3.0-only
import { createSecureContext } from 'node:tls'
import { ProblemError } from '../errors.ts'
import { filterProblem } from '../ingest/topic-filters.ts'
import { parseTarget } from '../outbound.ts'
import type { Outbound } from '../outbound.ts'
import { compileRules } from './mapping.ts'
import type { CompiledRule } from './mapping.ts'
import { completeRule } from './schemas.ts'
import type { RuleInput, Settings } from './schemas.ts'
import type { StoredSettings } from './connector-table.ts'

/** Filters that were once subscribed to and are remembered to be taken out of the session. */
const maxFormerTopics = 100

const defaults = { protocolVersion: 5, clientId: '', username: '', caCertificate: '', persistent: true } as const

type Given = Partial<Settings> & { rules?: readonly RuleInput[] }

/** What the settings become; topics that are gone are remembered, as long as broker and session are the same. */
export function mergeSettings(stored: StoredSettings | undefined, given: Given): StoredSettings {
  const { rules, ...rest } = given
  const merged = { ...defaults, url: '', topics: [], rules: [], formerTopics: [], ...stored, ...rest }
  const isSameSession = stored?.url === merged.url && stored.clientId === merged.clientId
  const former = isSameSession ? [...stored.topics, ...stored.formerTopics].filter((topic) => !merged.topics.includes(topic)) : []
  return {
    ...merged,
    rules: rules ? rules.map(completeRule) : merged.rules,
    formerTopics: [...new Set(former)].slice(0, maxFormerTopics),
  }
}

/** @throws {ProblemError} `UNPROCESSABLE` with the member that makes no sense */
export function checkRules(rules: readonly RuleInput[]): CompiledRule[] {
  for (const [index, { topic }] of rules.entries()) {
    const problem = topic.startsWith('$share/') ? 'Rules name topics; a shared subscription stands in `topics` only.' : filterProblem(topic)
    if (problem) throw unprocessable(`/rules/${index}/topic`, problem)
  }
  const compiled = compileRules(rules.map(completeRule))
  if (Array.isArray(compiled)) return compiled
  throw unprocessable(compiled.pointer, compiled.detail)
}

/**
 * Looks at the connection of a connector before it is saved or tried.
 *
 * @throws {ProblemError} `UNPROCESSABLE`, `OUTBOUND_URL_BLOCKED`
 */
export async function checkConnection(outbound: Outbound, settings: Pick<Settings, 'url' | 'topics' | 'caCertificate'>): Promise<void> {
  for (const [index, topic] of settings.topics.entries()) {
    const problem = filterProblem(topic)
    if (problem) throw unprocessable(`/topics/${index}`, problem)
  }
  if (settings.caCertificate !== '') {
    try {
      createSecureContext({ ca: settings.caCertificate })
      if (!settings.caCertificate.includes('-----BEGIN CERTIFICATE-----')) throw new Error('no PEM')
    } catch (error) {
      throw unprocessable('/caCertificate', 'This is no certificate as PEM.', error)
    }
  }
  await outbound.checkSaved(parseTarget(settings.url, 'mqtt'))
}

export function defaultConnection(given: Partial<Settings> & Pick<Settings, 'url' | 'topics'>): Settings {
  return { ...defaults, ...given }
}

function unprocessable(pointer: string, detail: string, cause?: unknown): ProblemError {
  return new ProblemError('UNPROCESSABLE', { errors: [{ pointer, detail }], cause })
}
