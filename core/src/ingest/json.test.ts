// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeTelemetry } from './codecs.ts'
import { JsonReader } from './json.ts'
import { defaultPayloadRules } from './registry.ts'
import { readPoint } from './values.ts'

const strict = { ...defaultPayloadRules, json: 'strict' as const, castNumericStrings: false }

/** Reads `{"k":<text>}` and tells the value as JavaScript sees it, or that the text is no JSON. */
function read(text: string): { value: unknown } | 'malformed' | 'issue' {
  const reader = new JsonReader(Buffer.from(`{"k":${text}}`), strict)
  reader.next()
  reader.enter()
  reader.nextName(true)
  const point = readPoint(reader, 'k', false)
  reader.nextName(false)
  if (reader.finish() !== undefined) return 'malformed'
  if (typeof point === 'string') return 'issue'
  if (point === null) return { value: null }
  return { value: point.kind === 'json' ? JSON.parse(point.value) : point.value }
}

const json = fc.jsonValue({ maxDepth: 5, stringUnit: 'binary' })
const space = fc.stringMatching(/^[ \t\r\n]{0,3}$/)

/** JSON text of the value with white space between tokens. */
function spread(value: unknown, gap: string): string {
  if (Array.isArray(value)) return `[${gap}${value.map((item) => spread(item, gap)).join(`${gap},${gap}`)}${gap}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  return `{${gap}${Object.entries(value)
    .map(([name, item]) => `${JSON.stringify(name)}${gap}:${gap}${spread(item, gap)}`)
    .join(`${gap},${gap}`)}${gap}}`
}

describe('against JSON.parse', () => {
  it('reads every JSON value alike', () => {
    fc.assert(
      fc.property(json, space, (value, gap) => {
        const text = spread(value, gap)
        const found = read(text)
        // Integers beyond 2^53 come exact, beyond 64 bit as their digits: JSON.parse can give neither.
        const isExact =
          typeof found === 'object' && (typeof found.value === 'bigint' || (typeof value === 'number' && found.value === text))
        if (typeof found === 'object' && !isExact) expect(found.value).toEqual(JSON.parse(text))
        else expect(found === 'issue' ? JSON.stringify(value).includes('\\u') : typeof value === 'number').toBe(true)
      }),
      {
        numRuns: 2_000,
        examples: [
          [-9223372036854775808, ''],
          [1e20, ''],
        ],
      },
    )
  })

  it('reads every double to the nearest double', () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.nat(20), (number, digits) => {
        for (const text of [String(number), number.toFixed(digits), number.toExponential(digits)]) {
          const found = read(text)
          expect(found).not.toBe('malformed')
          if (typeof found === 'object' && typeof found.value === 'number') expect(found.value).toBe(Number(text) + 0)
        }
      }),
      { numRuns: 5_000 },
    )
  })

  it('reads every 64-bit integer exactly', () => {
    fc.assert(
      fc.property(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), (integer) => {
        const found = read(String(integer))
        expect(typeof found === 'object' && BigInt(found.value as number | bigint)).toBe(integer)
      }),
      { numRuns: 2_000 },
    )
  })

  it('agrees on what is JSON at all', () => {
    const nearlyJson = fc.oneof(
      fc.stringMatching(/^[{}[\]:,"'\\0-9.eE+\-tfnrual \n]{0,12}$/),
      fc.tuple(json, fc.nat(), fc.string({ maxLength: 1 })).map(([value, place, char]) => {
        const text = JSON.stringify(value)
        return text.slice(0, place % (text.length + 1)) + char + text.slice((place % (text.length + 1)) + 1)
      }),
    )
    fc.assert(
      fc.property(nearlyJson, (text) => {
        let isJson = true
        try {
          JSON.parse(`{"k":${text}}`)
        } catch {
          isJson = false
        }
        // A text that closes the object itself says nothing about the value alone.
        fc.pre(!text.includes('"k"') && !/^[^,]*,\s*"/.test(text))
        expect(read(text) !== 'malformed').toBe(isJson)
      }),
      { numRuns: 20_000 },
    )
  })

  it('never throws and never leaves the bounds, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.constantFrom('', '{"a":', '[{', "{a:'", '{"ts":1,"values":{'), (bytes, start) => {
        decodeTelemetry(Buffer.concat([Buffer.from(start), bytes]), defaultPayloadRules, { lastServerTs: 0 }, 1)
      }),
      { numRuns: 20_000 },
    )
  })
})

describe('names', () => {
  it('names of equal hash slots stay apart', () => {
    const texts = Array.from({ length: 5_000 }, (_, index) => `name-${index}`)
    for (const round of [texts, texts.toReversed()]) {
      for (const name of round) {
        const decoded = decodeTelemetry(Buffer.from(`{"${name}":1}`), strict, { lastServerTs: 0 }, 1)
        expect('points' in decoded && decoded.points[0]?.key).toBe(name)
      }
    }
  })
})
