// SPDX-License-Identifier: AGPL-3.0-only
import type { ChannelType } from './channel-type.ts'
import type { Entity, Text } from './render.ts'

type Unit = ChannelType['limit']['unit']

const maxParts = 5

/** Size of a text as the provider counts. */
export function sizeOf(text: string, unit: Unit): number {
  if (unit === 'bytes') return Buffer.byteLength(text)
  return unit === 'utf16' ? text.length : [...text].length
}

/**
 * Cuts a text that is too large: at a paragraph, a line, or else between two characters, never inside one or inside
 * a marked range. Parts end with ` (1/3)`, which counts. Of more than five parts, the fifth ends with `more`.
 *
 * @param more what stands for the rest, such as a link to the full text
 */
export function splitText(whole: Text, limit: number, unit: Unit, more = '…'): Text[] {
  if (sizeOf(whole.text, unit) <= limit) return [whole]
  // The marker's own size depends on the number of parts by a digit at most.
  const room = limit - sizeOf(' (5/5)', unit)
  const parts: Text[] = []
  for (let start = 0; start < whole.text.length;) {
    const isLast = parts.length === maxParts - 1
    const rest = whole.text.slice(start)
    if (isLast && sizeOf(rest, unit) > room) {
      const end = start + cutAt(rest, room - sizeOf(more, unit), unit, whole.entities, start)
      const { text, entities } = slice(whole, start, end)
      parts.push({ text: text + more, entities })
      break
    }
    const end = start + cutAt(rest, room, unit, whole.entities, start)
    parts.push(slice(whole, start, end))
    start = end
    while (whole.text[start] === '\n') start++
  }
  return parts.map(({ text, entities }, index) => ({ text: `${text} (${index + 1}/${parts.length})`, entities }))
}

function slice({ text, entities }: Text, start: number, end: number): Text {
  const own = entities.filter((one) => one.offset >= start && one.offset + one.length <= end)
  return { text: text.slice(start, end).trimEnd(), entities: own.map((one) => ({ ...one, offset: one.offset - start })) }
}

/** How much of `rest` fits: up to a blank line, else a line end, else a character, if that is past the half. */
function cutAt(rest: string, room: number, unit: Unit, entities: readonly Entity[], start: number): number {
  let fits = 0
  let size = 0
  for (const character of rest) {
    size += sizeOf(character, unit)
    if (size > room) break
    fits += character.length
  }
  if (fits === rest.length) return fits
  const head = rest.slice(0, fits)
  for (const mark of ['\n\n', '\n']) {
    const at = head.lastIndexOf(mark)
    if (at > fits / 2) return at
  }
  const inside = entities.find((one) => one.offset < start + fits && one.offset + one.length > start + fits)
  const before = inside === undefined ? fits : inside.offset - start
  // A link in the text is one word.
  const link = /\[[^\]\n]*\]?\(?[^)\s]*$|https?:\/\/\S*$/.exec(head)
  const at = link && link.index > fits / 2 ? link.index : before
  return at > 0 ? at : fits
}
