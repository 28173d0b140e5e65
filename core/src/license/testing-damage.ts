// SPDX-License-Identifier: AGPL-3.0-only
import fc from 'fast-check'

/** What can happen to a token on its way: bytes flipped, cut out, put in, parts of another, the end cut off. */
export function damageToken(good: string, other: string): fc.Arbitrary<string> {
  const position = fc.nat(good.length - 1)
  const foreign = other.split('.')
  return fc.oneof(
    fc.tuple(position, fc.integer({ min: 1, max: 255 })).map(([at, by]) => {
      const bytes = Buffer.from(good, 'latin1')
      bytes[at]! ^= by
      return bytes.toString('latin1')
    }),
    fc.tuple(position, position).map(([a, b]) => good.slice(0, Math.min(a, b)) + good.slice(Math.max(a, b) + 1)),
    fc
      .tuple(position, fc.string({ minLength: 1, maxLength: 8, unit: 'binary' }))
      .map(([at, text]) => good.slice(0, at) + text + good.slice(at)),
    fc.tuple(fc.shuffledSubarray([0, 1, 2], { minLength: 1 }), fc.nat(2)).map(([order, from]) => {
      const own = good.split('.')
      return order.map((index) => (index === from ? foreign[index] : own[index])).join('.')
    }),
    position.map((at) => good.slice(0, at)),
  )
}
