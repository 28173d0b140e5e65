// SPDX-License-Identifier: AGPL-3.0-only
import type { TypedValue } from './points.ts'

export type NumericValue = Extract<TypedValue, { kind: 'double' | 'integer' }>

/**
 * A sum that is exact for integers of any size and compensated for doubles (Neumaier 1974), so that it
 * hardly depends on the order of the points. It is an integer as long as all its parts are.
 */
export class ExactSum {
  #small = 0
  #big: bigint | undefined
  #double = 0
  #carry = 0
  #hasDouble = false

  clear(): void {
    this.#small = 0
    this.#big = undefined
    this.#double = 0
    this.#carry = 0
    this.#hasDouble = false
  }

  add({ kind, value }: NumericValue): void {
    if (kind === 'double') this.#addDouble(value)
    else this.#addInteger(value)
  }

  addDifference(value: NumericValue, before: NumericValue): void {
    if (value.kind === 'double' || before.kind === 'double') return this.#addDouble(Number(value.value) - Number(before.value))
    if (typeof value.value === 'number' && typeof before.value === 'number') {
      const difference = value.value - before.value
      if (Number.isSafeInteger(difference)) return this.#addInteger(difference)
    }
    this.#addInteger(BigInt(value.value) - BigInt(before.value))
  }

  /** A step of a counter; a smaller value means that it began again from zero [N-3]. */
  grow(value: NumericValue, before: NumericValue): void {
    if (value.value < before.value) this.add(value)
    else this.addDifference(value, before)
  }

  result(): NumericValue {
    if (this.#hasDouble) return { kind: 'double', value: this.toNumber() }
    if (this.#big === undefined) return { kind: 'integer', value: this.#small }
    const exact = this.#big + BigInt(this.#small)
    const value = Number(exact)
    return { kind: 'integer', value: Number.isSafeInteger(value) ? value : exact }
  }

  toNumber(): number {
    // Beyond the range of doubles the compensation is meaningless.
    const doubles = Number.isFinite(this.#double) ? this.#double + this.#carry : this.#double
    if (this.#big === undefined) return this.#small + doubles
    const integers = this.#big + BigInt(this.#small)
    return Number.isFinite(doubles) ? roundOnce(integers, doubles) : doubles
  }

  #addInteger(value: number | bigint): void {
    if (typeof value === 'number') {
      const next = this.#small + value
      if (Number.isSafeInteger(next)) {
        this.#small = next
        return
      }
    }
    this.#big = (this.#big ?? 0n) + BigInt(value)
  }

  #addDouble(value: number): void {
    this.#hasDouble = true
    const next = this.#double + value
    this.#carry += Math.abs(this.#double) >= Math.abs(value) ? this.#double - next + value : value - next + this.#double
    this.#double = next
  }
}

/** The double nearest to the sum: rounding the integer first would make it depend on which summand was a double. */
function roundOnce(integer: bigint, double: number): number {
  const whole = Math.floor(double)
  const sum = integer + BigInt(whole)
  // A fraction only decides between two neighbours, so that one bit stands for it.
  return double === whole ? Number(sum) : Number(sum * 2n + 1n) / 2
}
