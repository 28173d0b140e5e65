// SPDX-License-Identifier: AGPL-3.0-only
import { guardCell } from './csv.ts'
import type { TypedValue } from './points.ts'
import { zip } from './zip.ts'
import type { ZipEntry } from './zip.ts'

/** A row: an instant as a wall clock shows it (ms, as if that were UTC), the zone's offset, texts, and values. */
export type SheetRow = { localMs: number; offset: string; labels: readonly string[]; values: readonly (TypedValue | undefined)[] }

/** What a sheet holds, its header included [N-8], and how much of its XML we leave in one part. */
const maxSheetRows = 1_048_576
const maxSheetText = 1_000_000_000
/** Longer cells are damage to Excel. */
const maxCellText = 32_767
/** Excel knows no day after 9999-12-31, and no number beyond this. */
const endOfDays = 253_402_300_800_000
const maxNumber = 9.99999999999999e307
/** Texts kept in the shared table, so that it stays small: those that come first, and come again. */
const maxShared = 5000
const maxSharedLength = 200
const pieceLength = 65_536

const xml = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
const main = 'http://schemas.openxmlformats.org/spreadsheetml/2006/main'
const relations = 'http://schemas.openxmlformats.org/package/2006/relationships'
const office = 'http://schemas.openxmlformats.org/officeDocument/2006/relationships'
const contentType = 'application/vnd.openxmlformats-officedocument.spreadsheetml'
/** Numbers of the cell formats in `styles.xml`. */
const styles = { time: 1, header: 2, text: 3 } as const

/**
 * An Excel workbook (ECMA-376, transitional), written while the rows are read: times as dates, numbers as
 * numbers, integers of more than 15 digits as text since Excel would round them, texts guarded and never
 * formulas [N-8, N-9]. Every so many rows another sheet begins, with the header again.
 */
export function createWorkbook(
  header: readonly string[],
  blocks: AsyncIterable<readonly SheetRow[]>,
  sheetRows = maxSheetRows,
): AsyncGenerator<Buffer> {
  return zip(new Workbook(header, blocks, sheetRows).entries())
}

class Workbook {
  readonly #header: readonly string[]
  readonly #blocks: AsyncIterable<readonly SheetRow[]>
  readonly #sheetRows: number
  readonly #shared = new Map<string, number>()
  #sheets = 0

  constructor(header: readonly string[], blocks: AsyncIterable<readonly SheetRow[]>, sheetRows: number) {
    this.#header = header
    this.#blocks = blocks
    this.#sheetRows = sheetRows
  }

  async *entries(): AsyncGenerator<ZipEntry> {
    const rows = flatten(this.#blocks)
    const source = { rows, step: await rows.next() }
    try {
      do {
        this.#sheets++
        yield { name: `xl/worksheets/sheet${this.#sheets}.xml`, content: this.#sheet(source) }
      } while (!source.step.done)
      // The parts that tell what there is come last, when it is known.
      yield* this.#frame()
    } finally {
      await rows.return(undefined)
    }
  }

  /** Fills one sheet, and leaves the row that has no place in it. */
  async *#sheet(source: { rows: AsyncGenerator<SheetRow>; step: IteratorResult<SheetRow> }): AsyncGenerator<string> {
    const columns = this.#header.map((_, index) => columnName(index))
    let text = `${xml}<worksheet xmlns="${main}"><sheetViews><sheetView workbookViewId="0"><pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><cols><col min="1" max="1" width="24" customWidth="1"/></cols><sheetData><row r="1">`
    for (const [index, cell] of this.#header.entries()) text += this.#text(guardCell(cell), `${columns[index]!}1`, styles.header)
    text += '</row>'
    let length = 0
    for (let row = 2; row <= this.#sheetRows && length < maxSheetText && !source.step.done; row++) {
      const { localMs, offset, labels, values } = source.step.value
      text += `<row r="${row}">${this.#time(localMs, `A${row}`)}${this.#text(offset, `B${row}`)}`
      let column = 2
      for (const label of labels) text += this.#text(guardCell(label), `${columns[column++]!}${row}`)
      for (const value of values) {
        if (value !== undefined) text += this.#value(value, `${columns[column]!}${row}`)
        column++
      }
      text += '</row>'
      if (text.length > pieceLength) {
        length += text.length
        yield text
        text = ''
      }
      source.step = await source.rows.next()
    }
    yield `${text}</sheetData></worksheet>`
  }

  #time(localMs: number, at: string): string {
    // Excel counts days from 1899-12-30, which is 25,569 days before 1970.
    if (localMs < endOfDays) return `<c r="${at}" s="${styles.time}"><v>${localMs / 86_400_000 + 25_569}</v></c>`
    return this.#text(new Date(Math.min(localMs, 8.64e15)).toISOString(), at)
  }

  #value(value: TypedValue, at: string): string {
    switch (value.kind) {
      case 'boolean':
        return `<c r="${at}" t="b"><v>${value.value ? 1 : 0}</v></c>`
      case 'integer':
        return Math.abs(Number(value.value)) < 1e15
          ? `<c r="${at}"><v>${value.value}</v></c>`
          : this.#text(String(value.value), at, styles.text)
      case 'double':
        if (!Number.isFinite(value.value)) return ''
        return Math.abs(value.value) <= maxNumber
          ? `<c r="${at}"><v>${value.value}</v></c>`
          : this.#text(String(value.value), at, styles.text)
      case 'string':
      case 'json':
        return this.#text(guardCell(value.value), at)
    }
  }

  #text(text: string, at: string, style = 0): string {
    const format = style === 0 ? '' : ` s="${style}"`
    const shared = this.#share(text)
    if (shared !== undefined) return `<c r="${at}"${format} t="s"><v>${shared}</v></c>`
    return `<c r="${at}"${format} t="inlineStr"><is>${textElement(text)}</is></c>`
  }

  #share(text: string): number | undefined {
    const known = this.#shared.get(text)
    if (known !== undefined || this.#shared.size === maxShared || text.length > maxSharedLength) return known
    this.#shared.set(text, this.#shared.size)
    return this.#shared.size - 1
  }

  *#frame(): Generator<ZipEntry> {
    const numbers = Array.from({ length: this.#sheets }, (_, index) => index + 1)
    const part = (name: string, text: string): ZipEntry => ({ name, content: [xml + text] })
    const sheets = numbers.map((n) => `<sheet name="${n}" sheetId="${n}" r:id="rId${n}"/>`).join('')
    yield part('xl/workbook.xml', `<workbook xmlns="${main}" xmlns:r="${office}"><sheets>${sheets}</sheets></workbook>`)
    const targets = [
      ...numbers.map((n) => ({ type: 'worksheet', target: `worksheets/sheet${n}.xml` })),
      { type: 'styles', target: 'styles.xml' },
      { type: 'sharedStrings', target: 'sharedStrings.xml' },
    ].map(({ type, target }, index) => `<Relationship Id="rId${index + 1}" Type="${office}/${type}" Target="${target}"/>`)
    yield part('xl/_rels/workbook.xml.rels', `<Relationships xmlns="${relations}">${targets.join('')}</Relationships>`)
    yield part('xl/styles.xml', stylesXml)
    yield part(
      'xl/sharedStrings.xml',
      `<sst xmlns="${main}">${[...this.#shared.keys()].map((text) => `<si>${textElement(text)}</si>`).join('')}</sst>`,
    )
    yield part(
      '_rels/.rels',
      `<Relationships xmlns="${relations}"><Relationship Id="rId1" Type="${office}/officeDocument" Target="xl/workbook.xml"/></Relationships>`,
    )
    const overrides = [
      ['workbook', 'sheet.main'],
      ['styles', 'styles'],
      ['sharedStrings', 'sharedStrings'],
      ...numbers.map((n) => [`worksheets/sheet${n}`, 'worksheet']),
    ].map(([name, type]) => `<Override PartName="/xl/${name}.xml" ContentType="${contentType}.${type}+xml"/>`)
    yield part(
      '[Content_Types].xml',
      `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>${overrides.join('')}</Types>`,
    )
  }
}

/** Formats by the numbers in {@link styles}: none, time, header, text. */
const stylesXml = `<styleSheet xmlns="${main}"><numFmts count="1"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss.000"/></numFmts><fonts count="2"><font><sz val="11"/><name val="Calibri"/></font><font><b/><sz val="11"/><name val="Calibri"/></font></fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders><cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="4"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/><xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/><xf numFmtId="49" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/></cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>`

async function* flatten<T>(blocks: AsyncIterable<readonly T[]>): AsyncGenerator<T> {
  for await (const block of blocks) yield* block
}

/** A, B, … Z, AA, … */
function columnName(index: number): string {
  const rest = Math.floor(index / 26) - 1
  return (rest >= 0 ? columnName(rest) : '') + String.fromCharCode(65 + (index % 26))
}

function textElement(text: string): string {
  return `<t xml:space="preserve">${escapeText(text.length > maxCellText ? `${text.slice(0, maxCellText - 1)}…` : text)}</t>`
}

/** Characters XML cannot hold as `_x0001_` (ECMA-376 §22.9.2.19), also what only looks like that. */
function escapeText(text: string): string {
  // oxlint-disable-next-line no-control-regex -- controls are what is being replaced
  if (!/[&<>\u0000-\u001f\ufffe\uffff_\ud800-\udfff]/.test(text)) return text
  return (
    text
      .toWellFormed()
      .replace(/_(?=x[0-9a-f]{4}_)/gi, '_x005F_')
      // oxlint-disable-next-line no-control-regex -- as above
      .replace(/[\u0000-\u0008\u000b-\u001f\ufffe\uffff]/g, (one) => `_x${one.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}_`)
      .replaceAll('&', '&amp;')
      .replaceAll('<', '&lt;')
      .replaceAll('>', '&gt;')
  )
}
