// SPDX-License-Identifier: AGPL-3.0-only
import type { Compilation, Condition } from './conditions.ts'
import { never } from './moment.ts'
import type { Moment } from './moment.ts'
import { compileOperand, readNumber } from './operands.ts'
import type { Operand } from './operands.ts'
import { member } from './problems.ts'
import type { Findings } from './problems.ts'
import { addExactly, isEqual, isLike, scalarTypeOf } from './values.ts'
import type { Known, ScalarType, Truth } from './values.ts'

const orders = ['gt', 'ge', 'lt', 'le'] as const
const bands = ['between', 'outside'] as const
const equalities = ['eq', 'ne'] as const
const lists = ['in', 'notIn'] as const
const texts = ['contains', 'startsWith', 'endsWith', 'like'] as const
export const operators = [...orders, ...bands, ...equalities, ...lists, ...texts, 'isNull'] as const
export type Operator = (typeof operators)[number]

const members = ['left', 'op', 'right', 'right2', 'hysteresis'] as const
const maxListed = 100

type Leaf = { json: Record<string, unknown>; pointer: string; op: Operator; compilation: Compilation }

/** Compiles `{left, op, right, right2?, hysteresis?}` [3.2]. */
export function compileComparison(json: Record<string, unknown>, pointer: string, compilation: Compilation): Condition | undefined {
  const { findings } = compilation
  findings.checkMembers(pointer, json, members)
  const op = json['op'] as Operator
  if (!operators.includes(op)) {
    return findings.add(member(pointer, 'op'), 'operator_unknown', `an operator is one of ${operators.join(', ')}`)
  }
  const leaf = { json, pointer, op, compilation }
  const left = compileMember(leaf, 'left')
  checkExtras(leaf)
  if (isOneOf(orders, op) || isOneOf(bands, op)) return compileThreshold(leaf, left)
  const test = isOneOf(lists, op) ? compileList(leaf, op, left) : op === 'isNull' ? isNullLeaf(left) : compileEquality(leaf, op, left)
  return test && { evaluate: test, due: (moment) => ({ event: left?.due?.(moment) ?? never, server: never }) }
}

function isOneOf<T extends Operator>(list: readonly T[], op: Operator): op is T {
  return (list as readonly Operator[]).includes(op)
}

function compileMember({ json, pointer, compilation: { reads, findings } }: Leaf, name: (typeof members)[number]): Operand | undefined {
  if (json[name] === undefined) return findings.add(member(pointer, name), 'operand_missing', `${name} is missing`)
  return compileOperand(json[name], member(pointer, name), reads, findings)
}

/** Members that this operator has no use for. */
function checkExtras({ json, pointer, op, compilation: { findings } }: Leaf): void {
  const isOrder = isOneOf(orders, op)
  const isBand = isOneOf(bands, op)
  if (json['hysteresis'] !== undefined && !isOrder && !isBand) {
    findings.add(member(pointer, 'hysteresis'), 'hysteresis_invalid', `${op} has no hysteresis`)
  }
  if (json['right2'] !== undefined && !isBand) findings.add(member(pointer, 'right2'), 'operand_invalid', `${op} has one right side`)
  if (json['right'] !== undefined && op === 'isNull') findings.add(member(pointer, 'right'), 'operand_invalid', 'isNull has no right side')
}

function requireType(operand: Operand | undefined, type: ScalarType, pointer: string, findings: Findings): void {
  if (operand?.type !== undefined && operand.type !== type) findings.add(pointer, 'type_mismatch', `this is to be a ${type}`)
}

/** Comparisons of numbers, with or without hysteresis. */
function compileThreshold(leaf: Leaf, left: Operand | undefined): Condition | undefined {
  const { json, pointer, op, compilation } = leaf
  const { findings } = compilation
  const isBand = isOneOf(bands, op)
  const right = compileMember(leaf, 'right')
  const right2 = isBand ? compileMember(leaf, 'right2') : right
  const hysteresis = json['hysteresis'] === undefined ? undefined : compileMember(leaf, 'hysteresis')
  for (const [name, operand] of Object.entries({ left, right, ...(isBand && { right2 }), hysteresis })) {
    requireType(operand, 'number', member(pointer, name), findings)
  }
  checkConstants(leaf, right, right2, hysteresis)
  if (!left || !right || !right2) return undefined
  const operands = [left, right, right2, ...(hysteresis ? [hysteresis] : [])]
  const latch = hysteresis ? compilation.latchCount++ : -1
  return {
    due: (moment) => ({ event: Math.min(...operands.map((operand) => operand.due?.(moment) ?? never)), server: never }),
    evaluate: (moment) => {
      const [value, low, high] = [readNumber(left, moment), readNumber(right, moment), readNumber(right2, moment)]
      if (value === undefined || low === undefined || high === undefined) return undefined
      if (!hysteresis) return isBeyond(op, value, low, high)
      const room = readNumber(hysteresis, moment)
      if (room === undefined || room < 0) return undefined
      const truth = testLatched(op, { value, low, high, room, isLatched: moment.latches[latch] === true })
      moment.latches[latch] = truth
      return truth
    },
  }
}

function checkConstants(
  { json, pointer, op, compilation: { findings } }: Leaf,
  ...[right, right2, hysteresis]: (Operand | undefined)[]
): void {
  const [low, high, room] = [right?.constant, right2?.constant, hysteresis?.constant]
  if (isOneOf(bands, op) && typeof low === 'number' && typeof high === 'number') {
    if (low > high) findings.add(member(pointer, 'right'), 'range_reversed', 'right is above right2')
    else if (op === 'outside' && typeof room === 'number' && 2 * room >= high - low) {
      findings.add(member(pointer, 'hysteresis'), 'hysteresis_invalid', 'the hysteresis leaves nothing of the band')
    }
  }
  if (typeof room === 'number' && room < 0) {
    findings.add(member(pointer, 'hysteresis'), 'hysteresis_invalid', 'a hysteresis is not negative')
  }
  const source = json['hysteresis']
  const isPlain = source === undefined || typeof source !== 'object' || (source !== null && Object.hasOwn(source, 'attr'))
  if (!isPlain) findings.add(member(pointer, 'hysteresis'), 'hysteresis_invalid', 'a hysteresis is a number or an attribute')
}

type Test = { value: number | bigint; low: number | bigint; high: number | bigint; room: number | bigint; isLatched: boolean }

/** Once true, it stays true until the threshold, moved by the hysteresis, is passed on the way back. */
function testLatched(op: Operator, { value, low, high, room, isLatched }: Test): boolean {
  if (!isLatched) return isBeyond(op, value, low, high)
  const isDown = op === 'gt' || op === 'ge' || op === 'between'
  const back = -room
  const moved = isDown ? addExactly(low, back) : addExactly(low, room)
  return isBeyond(op, value, moved, op === 'outside' ? addExactly(high, back) : addExactly(high, room))
}

function isBeyond(op: Operator, value: number | bigint, low: number | bigint, high: number | bigint): boolean {
  switch (op) {
    case 'gt':
      return value > low
    case 'ge':
      return value >= low
    case 'lt':
      return value < low
    case 'le':
      return value <= low
    case 'between':
      return value >= low && value <= high
    default:
      return value < low || value > high
  }
}

type Evaluate = (moment: Moment) => Truth

function compileEquality(leaf: Leaf, op: Operator, left: Operand | undefined): Evaluate | undefined {
  const { pointer, compilation } = leaf
  const right = compileMember(leaf, 'right')
  if (isOneOf(texts, op)) {
    requireType(left, 'string', member(pointer, 'left'), compilation.findings)
    requireType(right, 'string', member(pointer, 'right'), compilation.findings)
  } else if (left?.type !== undefined) requireType(right, left.type, member(pointer, 'right'), compilation.findings)
  if (!left || !right) return undefined
  return (moment) => {
    const [one, other] = [left.read(moment), right.read(moment)]
    if (isOneOf(texts, op)) return typeof one === 'string' && typeof other === 'string' ? isTextMatch(op, one, other) : undefined
    const equal = isEqual(one, other)
    return equal === undefined || op === 'eq' ? equal : !equal
  }
}

function isTextMatch(op: (typeof texts)[number], text: string, wanted: string): boolean {
  if (op === 'contains') return text.includes(wanted)
  if (op === 'startsWith') return text.startsWith(wanted)
  return op === 'endsWith' ? text.endsWith(wanted) : isLike(text, wanted)
}

function compileList({ json, pointer, compilation: { findings } }: Leaf, op: Operator, left: Operand | undefined): Evaluate | undefined {
  const place = member(pointer, 'right')
  const list = json['right']
  if (!Array.isArray(list) || list.length === 0 || list.length > maxListed) {
    return findings.add(place, 'operand_invalid', `${op} has a list of 1 to ${maxListed} constants`)
  }
  const types = new Set(list.map((value) => scalarTypeOf(value as Known)))
  const [type] = types
  if (types.size !== 1 || type === undefined) return findings.add(place, 'type_mismatch', 'the constants of a list have one type')
  requireType(left, type, member(pointer, 'left'), findings)
  if (!left) return undefined
  const constants = list as (number | string | boolean)[]
  return (moment) => {
    const value = left.read(moment)
    if (scalarTypeOf(value) !== type) return undefined
    const isIn = constants.some((one) => isEqual(value, one) === true)
    return op === 'in' ? isIn : !isIn
  }
}

function isNullLeaf(left: Operand | undefined): Evaluate | undefined {
  return (
    left &&
    ((moment) => {
      const value = left.read(moment)
      return value === undefined ? undefined : value === null
    })
  )
}
