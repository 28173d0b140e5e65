// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static, TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { Id } from '../http/schemas.ts'
import { parseTarget } from '../outbound.ts'
import { member } from './problems.ts'
import type { Findings } from './problems.ts'

function Choice<const T extends readonly string[]>(...values: T) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: values })
}
const closed = { additionalProperties: false }

export const actionMoments = ['raised', 'severityUp', 'severityDown', 'acked', 'cleared'] as const
export type ActionMoment = (typeof actionMoments)[number]

/** When an action runs: at these moments, for these severities, and not before so long, if the alarm is still open then. */
const when = {
  on: Type.Array(Choice(...actionMoments), { minItems: 1, uniqueItems: true }),
  severities: Type.Optional(Type.Array(Choice('critical', 'major', 'minor', 'warning'), { minItems: 1, uniqueItems: true })),
  afterMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 86_400_000 })),
}
/** JSON in which `{{path}}` stands for something of the event. */
const Template = Type.Unknown()

const Notify = Type.Object(
  {
    type: Type.Literal('notify'),
    ...when,
    receivers: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 100 }), { minItems: 1, maxItems: 10, uniqueItems: true })),
    priority: Type.Optional(Type.Integer({ minimum: 1, maximum: 5 })),
  },
  closed,
)
const Command = Type.Object(
  {
    type: Type.Literal('command'),
    ...when,
    method: Type.String({ minLength: 1, maxLength: 255 }),
    params: Type.Optional(Template),
    target: Type.Optional(Type.Union([Type.Literal('self'), Id])),
    persistent: Type.Optional(Type.Boolean()),
    ttlMs: Type.Optional(Type.Integer({ minimum: 5000, maximum: 2_592_000_000 })),
    retries: Type.Optional(Type.Integer({ minimum: 0, maximum: 10 })),
  },
  closed,
)
const Attributes = Type.Object(
  {
    type: Type.Literal('attributes'),
    ...when,
    scope: Choice('server', 'shared'),
    values: Type.Record(Type.String({ minLength: 1, maxLength: 255 }), Template, { minProperties: 1, maxProperties: 50 }),
  },
  closed,
)
const Headers = Type.Record(
  Type.String({ pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$" }),
  Type.String({ pattern: '^[\\x20-\\x7e]{0,1000}$' }),
  { maxProperties: 20 },
)
const Webhook = Type.Object(
  {
    type: Type.Literal('webhook'),
    ...when,
    channelId: Type.Optional(Id),
    url: Type.Optional(Type.String({ maxLength: 2000 })),
    method: Type.Optional(Choice('POST', 'PUT')),
    headers: Type.Optional(Headers),
    body: Type.Optional(Template),
  },
  closed,
)

const schemas: Record<string, TSchema> = { notify: Notify, command: Command, attributes: Attributes, webhook: Webhook }
export type RuleAction = Static<typeof Notify> | Static<typeof Command> | Static<typeof Attributes> | Static<typeof Webhook>

/** What is wrong with the actions of a rule but for their references [7.1, 12]. */
export function checkActions(actions: readonly Readonly<Record<string, unknown>>[], findings: Findings): void {
  for (const [index, action] of actions.entries()) {
    const pointer = `/actions/${index}`
    const schema = Object.hasOwn(schemas, String(action['type'])) ? schemas[String(action['type'])] : undefined
    if (!schema) {
      findings.add(`${pointer}/type`, 'action_unknown', `there is no action "${String(action['type']).slice(0, 100)}"`)
      continue
    }
    for (const error of Value.Errors(schema, action)) {
      if (error.keyword === 'additionalProperties') {
        const { additionalProperties } = error.params as { additionalProperties: readonly string[] }
        for (const name of additionalProperties) {
          findings.add(member(pointer, name), 'unknown_property', `there is no member "${name}" here`)
        }
      } else if (error.keyword !== 'boolean') {
        findings.add(pointer + error.instancePath, error.keyword === 'required' ? 'required' : 'invalid', error.message)
      }
    }
    if (action['type'] === 'webhook') checkAddress(action, pointer, findings)
  }
}

function checkAddress({ url, channelId }: Readonly<Record<string, unknown>>, pointer: string, findings: Findings): void {
  if ((url === undefined) === (channelId === undefined)) {
    return findings.add(pointer, 'webhook_address', 'a webhook has a url, or the channelId of a webhook channel')
  }
  if (typeof url !== 'string') return undefined
  try {
    // Where it leads is looked at when it is called: names change.
    parseTarget(url.replaceAll(/\{\{[^{}]*\}\}/g, 'x'), 'http')
  } catch {
    findings.add(`${pointer}/url`, 'OUTBOUND_URL_BLOCKED', 'this is no address of http or https without a password')
  }
  return undefined
}
