// SPDX-License-Identifier: AGPL-3.0-only

export type Pick = (below: number) => number

/** A small generator of whole numbers that a seed repeats. */
export function createPick(seed: number): Pick {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 0x1_0000_0000) * below)
  }
}

/** A packet shorter than 128 bytes, damaged in one of the ways that hurt parsers; half of the time as it was. */
export function mutatePacket(packet: Buffer, pick: Pick): Buffer {
  const bytes = Buffer.from(packet)
  switch (pick(14)) {
    case 0: // a bit
      bytes[pick(bytes.length)]! ^= 1 << pick(8)
      return bytes
    case 1: // a byte
      bytes[pick(bytes.length)] = pick(256)
      return bytes
    case 2: // flags
      bytes[0] = pick(256)
      return bytes
    case 3: // length
      return Buffer.concat([bytes.subarray(0, 1), Buffer.from(Array.from({ length: 1 + pick(5) }, () => pick(256))), bytes.subarray(2)])
    case 4: // cut, with a length that says so
      bytes[1] = pick(bytes.length - 1)
      return bytes.subarray(0, 2 + bytes[1])
    case 5: {
      // a byte more somewhere, counted
      const at = 2 + pick(bytes.length - 1)
      const longer = Buffer.concat([bytes.subarray(0, at), Buffer.from([pick(256)]), bytes.subarray(at)])
      longer[1] = Math.min(127, longer.length - 2)
      return longer
    }
    case 6: // cut, without saying so
      return bytes.subarray(0, 1 + pick(bytes.length))
    default:
      return bytes
  }
}

const tokens = [
  '{', '}', '[', ']', '"', "'", ',', ':', '\\', '\\u0000', '\\ud800', 'null', 'true', 'NaN', '1e999', '-0', '0.1e-400', '9'.repeat(40), '__proto__',
  '\u0000', '/*', '[['.repeat(40), '{"a":'.repeat(40), '\u{1f300}', ' ',
] // prettier-ignore

/** A text damaged as a sender with a mistake would: pieces lost, twice, or from elsewhere; not always well-formed UTF-8 afterwards. */
export function mutateText(text: string, pick: Pick): Buffer {
  const bytes = Buffer.from(text)
  const at = pick(bytes.length + 1)
  switch (pick(6)) {
    case 0:
      return bytes.subarray(0, at)
    case 1:
      return Buffer.concat([bytes.subarray(0, at), Buffer.from(tokens[pick(tokens.length)]!), bytes.subarray(at)])
    case 2:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + pick(8))])
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - pick(20)))])
    case 4:
      if (bytes.length > 0) bytes[pick(bytes.length)] = pick(256)
      return bytes
    default:
      return bytes
  }
}
