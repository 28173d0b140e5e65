// SPDX-License-Identifier: AGPL-3.0-only

/** One `count:seconds` of a limit. */
export type RateEntry = { readonly count: number; readonly seconds: number }

const maxCount = 1_000_000_000
/** 31 days */
const maxSeconds = 2_678_400
const maxEntries = 5

/**
 * The entries of a limit such as `20:1,600:60`; none for the empty text, which is no limit.
 *
 * @returns a sentence that names the wrong entry when the text is not valid
 */
export function parseRate(text: string): readonly RateEntry[] | string {
  if (text === '') return []
  const parts = text.split(',')
  if (parts.length > maxEntries) return `A limit has at most ${maxEntries} entries; "${shorten(parts[maxEntries]!)}" is one too many.`
  const entries: RateEntry[] = []
  for (const part of parts) {
    const match = /^([1-9]\d{0,9}):([1-9]\d{0,6})$/.exec(part)
    const [count, seconds] = [Number(match?.[1]), Number(match?.[2])]
    if (!match || count > maxCount || seconds > maxSeconds) {
      return `The entry "${shorten(part)}" is not count:seconds with a count of 1 to ${maxCount} and 1 to ${maxSeconds} seconds.`
    }
    if (entries.some((entry) => entry.seconds === seconds)) {
      return `The entry "${part}" is for ${seconds} seconds like another one.`
    }
    entries.push({ count, seconds })
  }
  return entries
}

function shorten(text: string): string {
  return text.slice(0, 40).toWellFormed()
}
