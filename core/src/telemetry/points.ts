// SPDX-License-Identifier: AGPL-3.0-only

/**
 * How a value is stored. Nothing is rounded on the way: an integer keeps 64 bits,
 * a JSON value keeps its text.
 */
export const valueKinds = ['double', 'integer', 'boolean', 'string', 'json'] as const

/** Numbers of the kinds in tables that keep one value per row. */
export const kindNumbers = { double: 0, integer: 1, boolean: 2, string: 3, json: 4 } as const

/**
 * A typed value as it travels from the codec to the store and back.
 * `integer` holds a `bigint` only when it lies beyond ±(2⁵³−1); `json` holds compact JSON text.
 */
export type TypedValue =
  | { kind: 'double'; value: number }
  | { kind: 'integer'; value: number | bigint }
  | { kind: 'boolean'; value: boolean }
  | { kind: 'string'; value: string }
  | { kind: 'json'; value: string }

/** One measured value of one device: `ts` in ms since 1970 UTC, an integer ≥ 1. */
export type Point = TypedValue & { key: string; ts: number }
