// SPDX-License-Identifier: AGPL-3.0-only
import type { Command, CommandState } from '../../api/types.ts'
import { hasRoundedInteger } from '../../exact-json.ts'

/** What the console is filled with; `params` is JSON text. */
export type Wish = {
  method: string
  params: string
  kind: Command['kind']
  persistent: boolean
  /** How long an answer is waited for, or how long a stored command stays wanted. */
  timeoutMs: number
  waitForDevice: boolean
}

/** Why text is no parameters; undefined when it is, or when there is none. The server reads integers as numbers. */
export function paramsProblem(text: string): 'json' | 'integer' | undefined {
  if (text.trim() === '') return undefined
  try {
    JSON.parse(text)
  } catch {
    return 'json'
  }
  return hasRoundedInteger(text) ? 'integer' : undefined
}

/** The body of the call, the parameters as they were typed. */
export function formatWish({ method, params, kind, persistent, timeoutMs, waitForDevice }: Wish): string {
  const rest = JSON.stringify({ kind, persistent, timeoutMs, waitForDevice })
  return `{"method":${JSON.stringify(method)},"params":${params.trim() || 'null'},${rest.slice(1)}`
}

/** A command that can still be taken back: nothing of it has come to an end. */
export function isOpen({ state, kind }: Pick<Command, 'state' | 'kind'>): boolean {
  return state === 'QUEUED' || state === 'SENT' || state === 'TIMEOUT' || (state === 'DELIVERED' && kind === 'twoway')
}

/** Colour beside the word of a state. */
export function tagOf(state: CommandState, kind: Command['kind']): '' | 'accent' | 'ok' | 'warn' | 'danger' {
  switch (state) {
    case 'QUEUED':
    case 'DELETED':
      return ''
    case 'SENT':
      return 'accent'
    case 'DELIVERED':
      return kind === 'oneway' ? 'ok' : 'accent'
    case 'SUCCESSFUL':
      return 'ok'
    case 'TIMEOUT':
      return 'warn'
    case 'EXPIRED':
    case 'FAILED':
      return 'danger'
  }
}
