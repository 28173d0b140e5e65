// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { Value } from 'typebox/value'
import type { TypedValue } from '../telemetry/points.ts'
import type { CompiledRule } from './compile-rule.ts'
import { evaluateExpression, roundHalfAway } from './evaluate-expression.ts'
import { parseExpression, walkExpression } from './expression.ts'
import type { DeviceScene } from './moment.ts'
import { attributeScopes } from './moment.ts'
import { Reads } from './operands.ts'
import { member } from './problems.ts'
import type { Findings, RuleProblem } from './problems.ts'
import { RuleTarget } from './schemas.ts'
import type { Known } from './values.ts'

const closed = { additionalProperties: false }
const Key = Type.String({ minLength: 1, maxLength: 255 })

/** A value that is worked out of others and stored beside them [8]. */
const CalculatedRule = Type.Object(
  {
    kind: Type.Literal('calculated'),
    name: Type.String({ minLength: 1, maxLength: 100, pattern: '\\S' }),
    mode: Type.Optional(Type.Unsafe<'on' | 'off'>({ type: 'string', enum: ['on', 'off'] })),
    target: RuleTarget,
    inputs: Type.Record(
      Type.String({ pattern: '^[A-Za-z_][A-Za-z0-9_]{0,62}$' }),
      Type.Object(
        {
          key: Type.Optional(Key),
          attr: Type.Optional(Key),
          scope: Type.Optional(Type.Unsafe<(typeof attributeScopes)[number]>({ type: 'string', enum: [...attributeScopes] })),
          default: Type.Optional(Type.Union([Type.Number(), Type.String(), Type.Boolean()])),
        },
        closed,
      ),
      { minProperties: 1, maxProperties: 20, additionalProperties: false },
    ),
    expr: Type.String({ minLength: 1 }),
    output: Type.Object(
      {
        key: Key,
        type: Type.Optional(Type.Unsafe<'telemetry' | 'attribute'>({ type: 'string', enum: ['telemetry', 'attribute'] })),
        decimals: Type.Optional(Type.Integer({ minimum: 0, maximum: 15 })),
      },
      closed,
    ),
    /** Inputs whose points make it be worked out; all that are keys, when left out. */
    trigger: Type.Optional(Type.Array(Type.String(), { minItems: 1, maxItems: 20, uniqueItems: true })),
  },
  closed,
)
export type CalculatedRule = Static<typeof CalculatedRule>

/** What a calculated field does once one of its inputs came. */
export type Calculation = {
  triggers: ReadonlySet<string>
  output: { key: string; type: 'telemetry' | 'attribute' }
  /** @returns undefined where something is unknown, or comes to nothing that can be stored */
  evaluate: (device: DeviceScene, at: number) => TypedValue | undefined
}

/** @returns the field as it runs, without a level: it never tells of anything; undefined with what is wrong in `findings` */
export function compileCalculated(document: unknown, findings: Findings): { rule: CalculatedRule; compiled: CompiledRule } | undefined {
  if (!check(document, findings)) return undefined
  const { inputs, expr, output, trigger } = document
  const reads = new Reads()
  for (const [name, { key, attr, scope = 'server' }] of Object.entries(inputs)) {
    const pointer = member('/inputs', name)
    if ((key === undefined) === (attr === undefined)) findings.add(pointer, 'operand_invalid', 'an input has a key or an attr')
    if (key !== undefined) reads.readKey(key)
    if (attr !== undefined) reads.attributes.add(`${scope}/${attr}`)
  }
  const named = trigger ?? Object.keys(inputs).filter((name) => inputs[name]!.key !== undefined)
  for (const name of named) {
    if (!Object.hasOwn(inputs, name) || inputs[name]!.key === undefined) {
      findings.add('/trigger', 'identifier_unknown', `"${name}" is no input of telemetry`)
    }
  }
  if (named.length === 0) findings.add('/trigger', 'trigger_empty', 'at least one input is telemetry')
  const parsed = parseExpression(expr, new Set(Object.keys(inputs)))
  if ('code' in parsed) {
    findings.add('/expr', parsed.code, `${parsed.detail} (offset ${parsed.offset})`)
    return undefined
  }
  walkExpression(parsed, (part) => {
    if (part.kind === 'attribute') reads.attributes.add(`server/${part.name}`)
  })
  if (output.type === 'attribute') reads.attributes.add(`server/${output.key}`)
  if (findings.problems.length > 0) return undefined
  const read = (device: DeviceScene, name: string): Known => {
    const { key, attr, scope = 'server', default: usual } = inputs[name]!
    const value = key === undefined ? device.readAttribute(scope, attr!) : device.values.slots.get(key)?.value
    return value ?? usual
  }
  const calculation: Calculation = {
    triggers: new Set(named.map((name) => inputs[name]!.key!)),
    output: { key: output.key, type: output.type ?? 'telemetry' },
    evaluate: (device, at) => {
      const { value } = evaluateExpression(parsed, {
        read: (name) => read(device, name),
        readPrevious: (name) => device.values.slots.get(inputs[name]?.key ?? '')?.previous,
        readAttribute: (name) => device.readAttribute('server', name),
        now: at,
      })
      return toTyped(typeof value === 'number' && output.decimals !== undefined ? roundHalfAway(value, output.decimals) : value)
    },
  }
  const silent = { levels: [], clearWhen: undefined, clearForMs: 0, schedule: undefined, clearsOutside: false, rearms: false }
  return { rule: document, compiled: { ...silent, reads, calculation } }
}

function check(document: unknown, findings: Findings): document is CalculatedRule {
  for (const error of Value.Errors(CalculatedRule, document)) {
    if (error.keyword === 'additionalProperties') {
      const { additionalProperties } = error.params as { additionalProperties: readonly string[] }
      for (const name of additionalProperties) {
        findings.add(member(error.instancePath, name), 'unknown_property', `there is no member "${name}" here`)
      }
    } else if (error.keyword !== 'boolean') {
      findings.add(error.instancePath, error.keyword === 'required' ? 'required' : 'invalid', error.message)
    }
  }
  return findings.problems.length === 0
}

function toTyped(value: Known): TypedValue | undefined {
  switch (typeof value) {
    case 'number':
      return Number.isSafeInteger(value) ? { kind: 'integer', value } : { kind: 'double', value }
    case 'bigint':
      return { kind: 'integer', value }
    case 'string':
      return { kind: 'string', value }
    case 'boolean':
      return { kind: 'boolean', value }
    default:
      return undefined
  }
}

/** Fields of which one feeds the next, at most. */
const longestChain = 4

/** What is wrong with a field among those that are there: it may not feed itself, over others or not, and chains are short [8.1]. */
export function chainProblems(field: CalculatedRule, others: readonly CalculatedRule[]): RuleProblem[] {
  const fields = [field, ...others]
  const readsKey = (one: CalculatedRule, key: string) => Object.values(one.inputs).some((input) => input.key === key)
  const follow = (one: CalculatedRule, path: readonly CalculatedRule[]): RuleProblem | undefined => {
    if (path.includes(one)) {
      const names = [...path.slice(path.indexOf(one)), one].map(({ output }) => output.key)
      return { pointer: '/output/key', code: 'RULE_CYCLE', detail: names.join(' → ') }
    }
    if (path.length >= longestChain) {
      return { pointer: '/output/key', code: 'RULE_DEPTH', detail: [...path, one].map(({ output }) => output.key).join(' → ') }
    }
    if (one.output.type === 'attribute') return undefined
    for (const next of fields) {
      const problem = readsKey(next, one.output.key) ? follow(next, [...path, one]) : undefined
      if (problem) return problem
    }
    return undefined
  }
  // A chain that goes through this one may begin before it.
  for (const start of fields) {
    const problem = follow(start, [])
    if (problem) return [problem]
  }
  return []
}
