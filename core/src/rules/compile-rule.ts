// SPDX-License-Identifier: AGPL-3.0-only
import { Value } from 'typebox/value'
import { compileCalculated } from './calculated.ts'
import type { CalculatedRule, Calculation } from './calculated.ts'
import { checkActions } from './action-schemas.ts'
import { compileCondition } from './conditions.ts'
import type { Compilation, Condition } from './conditions.ts'
import { Reads } from './operands.ts'
import { Findings, isObject, member } from './problems.ts'
import type { RuleProblem } from './problems.ts'
import { Schedule } from './schedule.ts'
import { AlarmRule, RuleLogic, severities } from './schemas.ts'
import type { RuleLevel, RuleSchedule, Severity } from './schemas.ts'

export type Repeat = { count: number; withinMs: number; isConsecutive: boolean }

/** One severity with its condition and its timing. */
export type CompiledLevel = {
  severity: Severity
  when: Condition
  /** Keys the points of which count for `repeat`. */
  keys: ReadonlySet<string>
  forMs: number
  repeat: Repeat | undefined
}

/** What the state machine of a pair runs; levels are in order of severity, the highest first. */
export type CompiledRule = {
  levels: readonly CompiledLevel[]
  clearWhen: Condition | undefined
  clearForMs: number
  schedule: Schedule | undefined
  /** Whether an open alarm ends with the schedule's window. */
  clearsOutside: boolean
  rearms: boolean
  reads: Reads
  /** Of a calculated field, which has no levels. */
  calculation?: Calculation
}

/** Dwells are 7 days at most [2]. */
const longestDwellMs = 604_800_000
const longestReopenMs = 3_600_000
const labelName = /^[a-z_][a-z0-9_]{0,62}$/
/** Names that every notification has by itself [7.2]. */
const reservedLabels: ReadonlySet<string> = new Set([
  'tenant',
  'source',
  'rule',
  'rule_id',
  'alarm_id',
  'device',
  'device_id',
  'product',
  'severity',
  'group',
])
const repeatBounds = { count: [2, 1000], withinMs: [1000, 86_400_000] } as const

/** @returns the rule as it runs, or everything that is wrong with it [12] */
export function compileRule(logic: unknown): CompiledRule | readonly RuleProblem[] {
  const findings = new Findings()
  if (!checkShape(RuleLogic, logic, findings)) return findings.problems
  const rule = compileLogic(logic, findings)
  return findings.problems.length > 0 || !rule ? findings.problems : rule
}

/**
 * Checks the whole document of an alarm rule but for its references, which only the database knows.
 *
 * @returns the rule as it runs, or everything that is wrong with it
 */
export function compileAlarmRule(document: unknown): { rule: AlarmRule; compiled: CompiledRule } | readonly RuleProblem[] {
  const findings = new Findings()
  if (!checkShape(AlarmRule, document, findings)) return findings.problems
  const compiled = compileLogic(document, findings)
  checkTarget(document, findings)
  checkDuration(document.reopenWithinMs, '/reopenWithinMs', longestReopenMs, findings)
  for (const name of Object.keys(document.labels ?? {})) {
    const pointer = member('/labels', name)
    if (!labelName.test(name)) findings.add(pointer, 'label_invalid', 'a label is named with a–z, 0–9 and _')
    else if (reservedLabels.has(name) || name.startsWith('tag_')) {
      findings.add(pointer, 'label_reserved', `the label "${name}" is set by itself`)
    }
  }
  checkActions(document.actions ?? [], findings)
  if (document.title && document.title.zh === undefined && document.title.en === undefined) {
    findings.add('/title', 'title_empty', 'a title has a text in at least one language')
  }
  return findings.problems.length > 0 || !compiled ? findings.problems : { rule: document, compiled }
}

/** A rule of any kind that may be saved, as it runs. */
export type CompiledDocument = {
  kind: 'alarm' | 'calculated'
  /** Of a calculated field what it has in common with other rules. */
  document: AlarmRule
  compiled: CompiledRule
  calculated?: CalculatedRule
}

/** @returns the rule as it runs, or everything that is wrong with it but for its references */
export function compileDocument(document: unknown): CompiledDocument | readonly RuleProblem[] {
  if (!isObject(document) || document['kind'] !== 'calculated') {
    const result = compileAlarmRule(document)
    return 'compiled' in result ? { kind: 'alarm', document: result.rule, compiled: result.compiled } : result
  }
  const findings = new Findings()
  const result = compileCalculated(document, findings)
  if (result) checkTarget(result.rule, findings)
  if (!result || findings.problems.length > 0) return findings.problems
  const { name, mode, target } = result.rule
  const common: AlarmRule = { kind: 'alarm', name, target, levels: [], ...(mode ? { mode } : {}) }
  return { kind: 'calculated', document: common, compiled: result.compiled, calculated: result.rule }
}

function checkShape<T extends typeof RuleLogic | typeof AlarmRule>(
  schema: T,
  document: unknown,
  findings: Findings,
): document is RuleLogic & AlarmRule {
  for (const error of Value.Errors(schema, document)) {
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

function compileLogic(logic: RuleLogic, findings: Findings): CompiledRule | undefined {
  const reads = new Reads()
  const counts = { leafCount: 0, latchCount: 0 }
  const compile = (json: unknown, pointer: string): { condition: Condition | undefined; reads: Reads } => {
    const own: Compilation = { reads: new Reads(), findings, ...counts }
    const condition = compileCondition(json, pointer, own)
    counts.leafCount = own.leafCount
    counts.latchCount = own.latchCount
    reads.add(own.reads)
    return { condition, reads: own.reads }
  }
  const levels = logic.levels.map((level, index) => compileLevel(level, `/levels/${index}`, compile, findings))
  checkSeverities(logic.levels, findings)
  const clearWhen = logic.clear?.when ? compile(logic.clear.when, '/clear/when').condition : undefined
  checkDuration(logic.clear?.forMs, '/clear/forMs', longestDwellMs, findings)
  const schedule = logic.schedule ? compileSchedule(logic.schedule, findings) : undefined
  if (findings.problems.length > 0) return undefined
  return {
    levels: levels.filter((level) => level !== undefined).sort((one, other) => rankOf(one.severity) - rankOf(other.severity)),
    clearWhen,
    clearForMs: logic.clear?.forMs ?? 0,
    schedule,
    clearsOutside: logic.schedule?.outside === 'clear',
    rearms: logic.manualClear === 'rearm',
    reads,
  }
}

/** 0 is the highest. */
export function rankOf(severity: Severity): number {
  return severities.indexOf(severity)
}

type Compile = (json: unknown, pointer: string) => { condition: Condition | undefined; reads: Reads }

function compileLevel(level: RuleLevel, pointer: string, compile: Compile, findings: Findings): CompiledLevel | undefined {
  const { condition, reads } = compile(level.when, `${pointer}/when`)
  checkDuration(level.forMs, `${pointer}/forMs`, longestDwellMs, findings)
  if (level.repeat) {
    if (level.forMs !== undefined && level.forMs !== 0) {
      findings.add(`${pointer}/repeat`, 'timing_conflict', 'a level has forMs or repeat, not both')
    }
    for (const [name, [least, most]] of Object.entries(repeatBounds)) {
      const value = level.repeat[name as keyof typeof repeatBounds]
      if (Number.isInteger(value) && value >= least && value <= most) continue
      findings.add(`${pointer}/repeat/${name}`, 'out_of_range', `${name} is a whole number from ${least} to ${most}`)
    }
  }
  if (!level.severity) return findings.add(`${pointer}/severity`, 'severity_missing', 'a level of an alarm rule has a severity')
  if (!condition) return undefined
  const { repeat } = level
  return {
    severity: level.severity,
    when: condition,
    keys: new Set(reads.keys.keys()),
    forMs: level.forMs ?? 0,
    repeat: repeat && { count: repeat.count, withinMs: repeat.withinMs, isConsecutive: repeat.consecutive ?? false },
  }
}

function checkSeverities(levels: readonly RuleLevel[], findings: Findings): void {
  const seen = new Set<Severity>()
  for (const [index, { severity }] of levels.entries()) {
    if (severity === undefined) continue
    if (seen.has(severity)) findings.add(`/levels/${index}/severity`, 'duplicate_severity', `there are two levels ${severity}`)
    seen.add(severity)
  }
}

function checkDuration(value: number | undefined, pointer: string, most: number, findings: Findings): void {
  if (value === undefined || (Number.isInteger(value) && value >= 0 && value <= most)) return
  findings.add(pointer, 'out_of_range', `this is a whole number of ms from 0 to ${most}`)
}

function compileSchedule({ zone, windows }: RuleSchedule, findings: Findings): Schedule | undefined {
  if (!isZone(zone)) findings.add('/schedule/zone', 'zone_unknown', `there is no zone "${zone}"`)
  if (windows.length === 0) findings.add('/schedule/windows', 'window_empty', 'a schedule has at least one window')
  for (const [index, { from, to }] of windows.entries()) {
    if (from === to) findings.add(`/schedule/windows/${index}`, 'window_empty', 'a window begins and ends at different times')
  }
  return findings.problems.length > 0 ? undefined : new Schedule(zone, windows)
}

function isZone(name: string): boolean {
  try {
    return /^[A-Za-z]/.test(name) && Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(name) !== undefined
  } catch {
    return false
  }
}

function checkTarget({ target }: Pick<AlarmRule, 'target'>, findings: Findings): void {
  const lists = [target.productIds, target.groupIds, target.deviceIds, target.tags]
  const hasLists = lists.some((list) => list !== undefined && list.length > 0)
  if (target.all === true && hasLists) findings.add('/target/all', 'target_conflict', 'all stands alone')
  if (target.all !== true && !hasLists) findings.add('/target', 'RULE_TARGET_EMPTY', 'the rule is for no device')
}
