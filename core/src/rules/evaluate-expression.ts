// SPDX-License-Identifier: AGPL-3.0-only
import type { BinaryOperator, Expression, FunctionName } from './expression.ts'
import { isEqual, isNumeric } from './values.ts'
import type { Known } from './values.ts'

/** What an expression reads; every reader answers undefined for what is unknown. */
export type Inputs = {
  read: (name: string) => Known
  readPrevious: (name: string) => Known
  readAttribute: (name: string) => Known
  /** The instant of the evaluation, ms. */
  now: number
}

/** Thrown where an exact integer beyond ±2⁵³ would have to be rounded. */
class Precision extends Error {}

/** The sphere of `haversine`: the mean radius of the earth, m. */
const earthRadiusM = 6_371_008.8

/** @returns the value; unknown with the reason `precision` where a number would have been rounded [8.2] */
export function evaluateExpression(expression: Expression, inputs: Inputs): { value: Known; reason?: 'precision' } {
  try {
    return { value: finite(run(expression, inputs)) }
  } catch (error) {
    if (error instanceof Precision) return { value: undefined, reason: 'precision' }
    throw error
  }
}

function finite(value: Known): Known {
  return typeof value === 'number' && !Number.isFinite(value) ? undefined : value
}

function run(expression: Expression, inputs: Inputs): Known {
  switch (expression.kind) {
    case 'constant':
      return expression.value
    case 'name':
      return inputs.read(expression.name)
    case 'previous':
      return inputs.readPrevious(expression.name)
    case 'attribute': {
      const value = inputs.readAttribute(expression.name)
      return value === undefined && expression.fallback ? run(expression.fallback, inputs) : value
    }
    case 'unary':
      return runUnary(expression.operator, run(expression.operand, inputs))
    case 'binary':
      return finite(runBinary(expression.operator, run(expression.left, inputs), run(expression.right, inputs)))
    case 'choice':
      return choose([expression.condition, expression.yes, expression.no], inputs)
    case 'call':
      if (expression.name === 'if') return choose(expression.arguments, inputs)
      if (expression.name === 'coalesce') return coalesce(expression.arguments, inputs)
      return finite(
        call(
          expression.name,
          expression.arguments.map((part) => run(part, inputs)),
          inputs.now,
        ),
      )
    default:
      return expression satisfies never
  }
}

function choose([condition, yes, no]: readonly Expression[], inputs: Inputs): Known {
  const value = run(condition!, inputs)
  return typeof value === 'boolean' ? run(value ? yes! : no!, inputs) : undefined
}

function coalesce(parts: readonly Expression[], inputs: Inputs): Known {
  for (const part of parts) {
    const value = run(part, inputs)
    if (value !== undefined && value !== null) return value
  }
  return undefined
}

function runUnary(operator: '-' | '!' | '+', value: Known): Known {
  if (operator === '!') return typeof value === 'boolean' ? !value : undefined
  const number = numberOf(value)
  return number === undefined ? undefined : operator === '-' ? -number : number
}

/** @throws {Precision} for an integer that no double holds */
function numberOf(value: Known): number | undefined {
  if (typeof value === 'bigint') throw new Precision()
  return typeof value === 'number' ? value : undefined
}

function runBinary(operator: BinaryOperator, left: Known, right: Known): Known {
  switch (operator) {
    case '&&':
    case '||':
      if (typeof left !== 'boolean' || typeof right !== 'boolean') return undefined
      return operator === '&&' ? left && right : left || right
    case '==':
      return isEqual(left, right)
    case '!=': {
      const equal = isEqual(left, right)
      return equal === undefined ? undefined : !equal
    }
    case '<':
    case '<=':
    case '>':
    case '>=':
      return isNumeric(left) && isNumeric(right) ? isOrdered(operator, left, right) : undefined
    case '+':
    case '-':
    case '*':
    case '/':
    case '%':
    case '**': {
      const [one, other] = [numberOf(left), numberOf(right)]
      return one === undefined || other === undefined ? undefined : calculate(operator, one, other)
    }
    default:
      return operator satisfies never
  }
}

function isOrdered(operator: '<' | '<=' | '>' | '>=', left: number | bigint, right: number | bigint): boolean {
  if (operator === '<') return left < right
  if (operator === '<=') return left <= right
  return operator === '>' ? left > right : left >= right
}

function calculate(operator: '+' | '-' | '*' | '/' | '%' | '**', one: number, other: number): number | undefined {
  switch (operator) {
    case '+':
      return one + other
    case '-':
      return one - other
    case '*':
      return one * other
    case '/':
      return other === 0 ? undefined : one / other
    case '%':
      return other === 0 ? undefined : one % other
    case '**':
      return one ** other
    default:
      return operator satisfies never
  }
}

type OtherFunction = Exclude<FunctionName, 'if' | 'coalesce'>
type NumberFunction = (...numbers: number[]) => number
const numberFunctions: Partial<Record<OtherFunction, NumberFunction>> = {
  abs: Math.abs,
  min: Math.min,
  max: Math.max,
  round: (value, digits = 0) => roundHalfAway(value, digits),
  floor: Math.floor,
  ceil: Math.ceil,
  sqrt: Math.sqrt,
  pow: (base, exponent) => base ** exponent,
  exp: Math.exp,
  ln: Math.log,
  log10: Math.log10,
  sin: Math.sin,
  cos: Math.cos,
  tan: Math.tan,
  clamp: (value, low, high) => Math.min(Math.max(value, low), high),
  dewPoint,
  haversine,
}

function call(name: OtherFunction, values: readonly Known[], now: number): Known {
  const numeric = numberFunctions[name]
  if (numeric) {
    const numbers = values.map(numberOf)
    return numbers.every((number) => number !== undefined) ? numeric(...numbers) : undefined
  }
  if (values.some((value) => value === undefined || value === null)) return undefined
  const [first, second, third] = values
  switch (name) {
    case 'now':
      return now
    case 'hour':
    case 'weekday':
      return typeof first === 'string' ? clockOf(name, first, now) : undefined
    case 'lower':
      return typeof first === 'string' ? first.toLowerCase() : undefined
    case 'upper':
      return typeof first === 'string' ? first.toUpperCase() : undefined
    case 'len':
      return typeof first === 'string' ? first.length : undefined
    case 'contains':
      return typeof first === 'string' && typeof second === 'string' ? first.includes(second) : undefined
    case 'substr':
      return substring(first, second, third)
    case 'num':
      return toNumber(first)
    case 'str':
      return typeof first === 'object' ? undefined : String(first)
    case 'bool':
      return toBoolean(first)
    case 'bit':
      return bitOf(first, second)
    default:
      return undefined
  }
}

function substring(text: Known, start: Known, length: Known): Known {
  if (typeof text !== 'string' || typeof start !== 'number' || start < 0) return undefined
  return length === undefined
    ? text.slice(start)
    : typeof length === 'number' && length >= 0
      ? text.slice(start, start + length)
      : undefined
}

function toNumber(value: Known): Known {
  if (isNumeric(value)) return value
  if (typeof value === 'boolean') return value ? 1 : 0
  return typeof value === 'string' && value.trim() !== '' ? finiteNumber(Number(value)) : undefined
}

function finiteNumber(value: number): number | undefined {
  return Number.isFinite(value) ? value : undefined
}

function toBoolean(value: Known): Known {
  if (typeof value === 'boolean') return value
  if (isNumeric(value)) return Number(value) !== 0
  return value === 'true' ? true : value === 'false' ? false : undefined
}

/** Bit `place` of an integer, 0 the lowest; negative numbers in two's complement of 64 bits. */
function bitOf(value: Known, place: Known): Known {
  if (!isNumeric(value) || typeof place !== 'number' || !Number.isInteger(place) || place < 0 || place > 63) return undefined
  if (typeof value === 'number' && !Number.isInteger(value)) return undefined
  return Number((BigInt.asUintN(64, BigInt(value)) >> BigInt(place)) & 1n)
}

/** Hour 0–23, or the weekday with Monday as 1, of an instant in a zone. */
function clockOf(name: 'hour' | 'weekday', zone: string, at: number): Known {
  try {
    const time = Temporal.Instant.fromEpochMilliseconds(Math.trunc(at)).toZonedDateTimeISO(zone)
    return name === 'hour' ? time.hour : time.dayOfWeek
  } catch {
    // A zone nobody knows is one more thing that is unknown.
    return undefined
  }
}

/** Decimal rounding, half away from zero, as 2.675 reads and not as its double is [8.1]. */
export function roundHalfAway(value: number, digits: number): number {
  if (!Number.isInteger(digits) || digits < 0 || digits > 15 || !Number.isFinite(value)) return Number.NaN
  const [mantissa, exponent = '0'] = String(Math.abs(value)).split('e')
  const shifted = Math.round(Number(`${mantissa}e${Number(exponent) + digits}`))
  const [digitsOf, power = '0'] = String(shifted).split('e')
  return Math.sign(value) * Number(`${digitsOf}e${Number(power) - digits}`)
}

/** Dew point in °C of air of `celsius` and relative humidity in percent: Magnus, with Sonntag's constants of 1990 over water. */
function dewPoint(celsius: number, humidity: number): number {
  const [b, c] = [17.62, 243.12]
  const gamma = Math.log(humidity / 100) + (b * celsius) / (c + celsius)
  return (c * gamma) / (b - gamma)
}

/** Distance on the sphere in m between two positions in degrees. */
function haversine(lat1: number, lon1: number, lat2: number, lon2: number): number {
  const radians = (degrees: number) => (degrees * Math.PI) / 180
  const half = (from: number, to: number) => Math.sin(radians(to - from) / 2) ** 2
  const h = half(lat1, lat2) + Math.cos(radians(lat1)) * Math.cos(radians(lat2)) * half(lon1, lon2)
  return 2 * earthRadiusM * Math.asin(Math.min(1, Math.sqrt(h)))
}
