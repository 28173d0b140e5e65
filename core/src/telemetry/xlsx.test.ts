// SPDX-License-Identifier: AGPL-3.0-only
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { readSheet, unzip } from './reading-xlsx.ts'
import type { TypedValue } from './points.ts'
import { createWorkbook } from './xlsx.ts'
import type { SheetRow } from './xlsx.ts'

async function pack(rows: SheetRow[], header = ['time', 'offset', 'value'], sheetRows?: number): Promise<Map<string, string>> {
  const blocks = async function* () {
    for (let at = 0; at < rows.length; at += 2) yield rows.slice(at, at + 2)
  }
  return unzip(Buffer.concat(await Array.fromAsync(createWorkbook(header, blocks(), sheetRows))))
}

async function cellOf(value: TypedValue): Promise<{ type: string; value: string } | undefined> {
  const [, row] = readSheet(await pack([{ localMs: 0, offset: '+08:00', labels: [], values: [value] }]))
  const cell = row![2]
  return cell && { type: cell.type, value: cell.value }
}

describe('a cell', () => {
  it.each<[string, TypedValue, string, string]>([
    ['a double', { kind: 'double', value: -21.5 }, 'n', '-21.5'],
    ['a tiny double', { kind: 'double', value: 1e-7 }, 'n', '1e-7'],
    ['an integer of 15 digits', { kind: 'integer', value: -999_999_999_999_999 }, 'n', '-999999999999999'],
    ['an integer of 16 digits', { kind: 'integer', value: 1_000_000_000_000_000 }, 'inlineStr', '1000000000000000'],
    ['a negative integer of 19 digits', { kind: 'integer', value: -9223372036854775808n }, 'inlineStr', '-9223372036854775808'],
    ['a number beyond those of Excel', { kind: 'double', value: 1.7e308 }, 'inlineStr', '1.7e+308'],
    ['a boolean', { kind: 'boolean', value: true }, 'b', '1'],
    ['a text', { kind: 'string', value: ' 温度 <&> "x"\n😀' }, 'inlineStr', ' 温度 <&> "x"\n😀'],
    ['a text like a formula', { kind: 'string', value: '=1+1' }, 'inlineStr', "'=1+1"],
    ['a text with controls', { kind: 'string', value: 'a\u0001\rb_x000D_\uffff' }, 'inlineStr', 'a\u0001\rb_x000D_\uffff'],
    ['half a character', { kind: 'string', value: 'a\ud800b' }, 'inlineStr', 'a\ufffdb'],
    ['a text of more than Excel takes', { kind: 'string', value: 'x'.repeat(40_000) }, 'inlineStr', `${'x'.repeat(32_766)}…`],
    ['a JSON value', { kind: 'json', value: '{"a":1}' }, 'inlineStr', '{"a":1}'],
  ])('holds %s', async (_, value, type, text) => {
    expect(await cellOf(value)).toEqual({ type, value: text })
  })

  it('is left out where there is no value', async () => {
    expect(await cellOf({ kind: 'double', value: Number.POSITIVE_INFINITY })).toBeUndefined()
    const files = await pack(
      [{ localMs: 0, offset: '+08:00', labels: ['a'], values: [undefined, { kind: 'integer', value: 1 }] }],
      ['time', 'offset', 'l', 'x', 'y'],
    )
    expect(readSheet(files)[1]!.map(({ at, value }) => [at, value])).toEqual([
      ['A2', '25569'],
      ['B2', '+08:00'],
      ['C2', 'a'],
      ['E2', '1'],
    ])
  })

  it('shows a time as a date with milliseconds, and as text after the last day of Excel', async () => {
    const times = [Date.parse('2026-11-21T12:30:15.250Z'), Date.parse('9999-12-31T23:59:59.999Z'), Date.parse('+010000-01-01T00:00:00Z')]
    const files = await pack(times.map((localMs) => ({ localMs, offset: '+08:00', labels: [], values: [] })))
    const cells = readSheet(files)
      .slice(1)
      .map((row) => row[0]!)
    expect(cells.map(({ type, style }) => `${type}${style}`)).toEqual(['n1', 'n1', 'inlineStr0'])
    const toMs = (days: string) => Math.round((Number(days) - 25_569) * 86_400_000)
    expect(cells.slice(0, 2).map(({ value }) => toMs(value))).toEqual(times.slice(0, 2))
    expect(cells[2]!.value).toBe('+010000-01-01T00:00:00.000Z')
    expect(files.get('xl/styles.xml')).toContain('formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss.000"')
  })
})

describe('a workbook', () => {
  const rows = (count: number): SheetRow[] =>
    Array.from({ length: count }, (_, i) => ({ localMs: i, offset: '+08:00', labels: [], values: [{ kind: 'integer', value: i }] }))

  it('begins another sheet, with the header again, where one is full', async () => {
    const files = await pack(rows(5), ['时间', '时区偏移', '值'], 3)
    const valuesOf = (sheet: number) => readSheet(files, sheet).map((row) => row[2]!.value)
    expect([1, 2, 3].map(valuesOf)).toEqual([
      ['值', '0', '1'],
      ['值', '2', '3'],
      ['值', '4'],
    ])
    expect(files.get('xl/workbook.xml')).toContain('<sheet name="3" sheetId="3" r:id="rId3"/>')
    expect([...files.keys()].filter((name) => name.includes('sheet4'))).toEqual([])
  })

  it('has no empty sheet behind a full one, and one sheet when there are no rows', async () => {
    expect([...(await pack(rows(4), ['t', 'o', 'v'], 3)).keys()].filter((name) => name.includes('worksheets/'))).toHaveLength(2)
    expect(readSheet(await pack([])).map((row) => row.map(({ value }) => value))).toEqual([['time', 'offset', 'value']])
  })

  it('names every part with its type, and is the same for the same rows', async () => {
    const files = await pack(rows(3))
    const types = files.get('[Content_Types].xml')!
    for (const name of files.keys()) if (!/rels$|Types/.test(name)) expect(types).toContain(`PartName="/${name}"`)
    expect(await pack(rows(3))).toEqual(files)
  })

  it('goes on to a column after Z', async () => {
    const values = Array.from({ length: 800 }, (_, value): TypedValue => ({ kind: 'integer', value }))
    const files = await pack([{ localMs: 0, offset: '+08:00', labels: [], values }], ['t', 'o', ...values.map(String)])
    expect(readSheet(files)[1]!.map(({ at }) => at)).toEqual(expect.arrayContaining(['Z2', 'AA2', 'AZ2', 'BA2', 'ZZ2', 'AAA2', 'ADV2']))
  })

  it('closes its rows when the reader stops in the middle', async () => {
    let isClosed = false
    const endless = async function* () {
      try {
        for (;;) yield rows(1000)
      } finally {
        isClosed = true
      }
    }
    const book = createWorkbook(['t', 'o', 'v'], endless())
    await book.next()
    await book.next()
    await book.return(undefined)
    await expect.poll(() => isClosed).toBe(true)
  })

  it('fails with what fails behind its rows', async () => {
    const failing = async function* () {
      yield rows(3)
      throw new Error('the database is gone')
    }
    await expect(Array.fromAsync(createWorkbook(['t', 'o', 'v'], failing()))).rejects.toThrow('the database is gone')
  })

  it('needs no more than 64 MiB for a million rows, whatever the texts', async () => {
    const program = `
      import { createWorkbook } from ${JSON.stringify(new URL('xlsx.ts', import.meta.url).href)}
      async function* blocks() {
        for (let at = 0; at < 1e6; at += 1000) {
          yield Array.from({ length: 1000 }, (_, i) => ({ localMs: 1.7e12 + at + i, offset: '+08:00', labels: ['pump', 'key'],
            values: [i % 2 ? { kind: 'double', value: Math.random() } : { kind: 'string', value: 'text ' + (at + i) }] }))
        }
      }
      for await (const _ of createWorkbook(['t', 'o', 'v'], (async function* () { yield [] })()));
      const before = process.resourceUsage().maxRSS
      let bytes = 0
      for await (const chunk of createWorkbook(['time', 'offset', 'device', 'key', 'value'], blocks())) bytes += chunk.length
      console.log(JSON.stringify({ bytes, growthMiB: (process.resourceUsage().maxRSS - before) / 1024 }))`
    const { stdout } = await promisify(execFile)(process.execPath, [
      '--max-semi-space-size=8',
      '--max-old-space-size=64',
      '--input-type=module',
      '--eval',
      program,
    ])
    const { bytes, growthMiB } = JSON.parse(stdout) as { bytes: number; growthMiB: number }
    expect(bytes).toBeGreaterThan(20_000_000)
    expect(growthMiB).toBeLessThan(64)
  }, 120_000)
})
