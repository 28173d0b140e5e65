// SPDX-License-Identifier: AGPL-3.0-only
import { median } from './machine.ts'
import type { Machine } from './machine.ts'

export type Mode = 'smoke' | 'short' | 'normal' | 'full'

export type BenchOptions = { mode: Mode; machine: Machine; note: (line: string) => void }

/** One result. `bar` is met when `ratio` (or `value`, where there is none) is at least, or at most, that much. */
export type Figure = {
  bench: string
  /** The bar's name in the list of bars. */
  id: string
  title: string
  value: number
  unit: string
  /** Against the anchor, where the bar is one. */
  ratio: number | null
  /** Points per second over those of a plain COPY [R]. */
  ratioCopy: number | null
  anchor: string | null
  spread: { least: number; most: number }
  disturbed: boolean
  bar: { least?: number; most?: number; goal: number }
  status: 'PASS' | 'FAIL' | 'NOT RUN'
  reason?: string
}

type Measured = Omit<Figure, 'value' | 'spread' | 'status'> & { values: readonly number[] }

/** The median of several runs, judged by its bar. */
export function makeFigure({ values, ...rest }: Measured): Figure {
  const value = median(values)
  const judged = rest.ratio ?? value
  const isMet = (rest.bar.least === undefined || judged >= rest.bar.least) && (rest.bar.most === undefined || judged <= rest.bar.most)
  const missesAnchor = rest.bar.least !== undefined && rest.ratio === null
  return {
    ...rest,
    value,
    spread: { least: Math.min(...values), most: Math.max(...values) },
    status: missesAnchor ? 'NOT RUN' : isMet ? 'PASS' : 'FAIL',
  }
}

/** [RE-110] The last line of a bench. */
export function formatJson({ bench, value, unit, ratio, ratioCopy, anchor, spread, disturbed }: Figure): string {
  return JSON.stringify({
    bench,
    value: round(value),
    unit,
    ratio: roundRatio(ratio),
    ratioCopy: roundRatio(ratioCopy),
    anchor,
    spread: [round(spread.least), round(spread.most)],
    disturbed,
  })
}

export const tableHead = ['bench', 'bar', 'measured (min … max)', 'ratio', 'bar asks', 'result', 'goal']

export function formatRow(figure: Figure): string[] {
  const { id, title, value, unit, spread, ratio, bar, status, disturbed, reason } = figure
  const limitUnit = ratio === null ? ` ${unit}` : ''
  const limit = bar.least !== undefined ? `≥ ${bar.least.toFixed(2)}` : bar.most !== undefined ? `≤ ${bar.most}${limitUnit}` : 'printed'
  const isUpwards = bar.least !== undefined || (bar.most === undefined && ratio !== null)
  return [
    title,
    id,
    `${formatNumber(value)} ${unit} (${formatNumber(spread.least)} … ${formatNumber(spread.most)})`,
    ratio === null ? '–' : ratio.toFixed(2),
    limit,
    `${status}${disturbed ? ', disturbed' : ''}${reason ? ` (${reason})` : ''}`,
    `${isUpwards ? '≥' : '≤'} ${bar.goal}${limitUnit}${isGoalMet(figure, isUpwards) ? ', met' : ''}`,
  ]
}

function isGoalMet({ value, ratio, bar, status }: Figure, isUpwards: boolean): boolean {
  const judged = ratio ?? value
  return status !== 'NOT RUN' && (isUpwards ? judged >= bar.goal : judged <= bar.goal)
}

export function printTable(rows: readonly string[][]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  for (const row of rows) {
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
  }
}

export function formatNumber(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : String(round(value))
}

function round(value: number): number {
  return Math.round(value * 100) / 100
}

function roundRatio(value: number | null): number | null {
  return value === null ? null : Math.round(value * 1000) / 1000
}
