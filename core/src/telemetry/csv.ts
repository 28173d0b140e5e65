// SPDX-License-Identifier: AGPL-3.0-only

/** Spreadsheets take a file for UTF-8 only with this in front [N-8]. */
export const byteOrderMark = '\ufeff'

/**
 * Keeps a spreadsheet from running a text as a formula: a text that begins like one gets a `'` [D-104].
 * For texts only; numbers, dates and booleans never pass here.
 */
export function guardCell(text: string): string {
  return /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text
}

/** Takes the guard off again: the inverse of {@link guardCell} for every text. */
export function unguardCell(text: string): string {
  return /^'+[=+\-@\t\r]/.test(text) ? text.slice(1) : text
}

/** A text as a CSV cell: guarded, always quoted, quotes doubled (RFC 4180). */
export function textCell(text: string): string {
  return `"${guardCell(text).replaceAll('"', '""')}"`
}

/** A row of finished cells. */
export function csvRow(cells: readonly string[]): string {
  return `${cells.join(',')}\r\n`
}
