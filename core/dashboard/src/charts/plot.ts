// SPDX-License-Identifier: AGPL-3.0-only
import uPlot from 'uplot'
import { formatTick } from '../time.ts'
import type { TimeLanguage } from '../time.ts'
import { formatNumber } from '../format.ts'
import { strokeOf } from './palette.ts'
import type { ChartSeries } from './series.ts'

export type PlotLook = { isDark: boolean; zone: string; language: TimeLanguage; height: number; width: number }

export type PlotOptions = PlotLook & {
  series: readonly ChartSeries[]
  hidden: ReadonlySet<string>
  range(): [number, number]
  isFromZero: boolean
  syncKey: string | undefined
  onCursor(index: number | null): void
  onZoom(from: number, to: number): void
  onReset(): void
}

function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim()
}

/** Translucent form of a palette colour, for the band between smallest and largest. */
function faint(color: string): string {
  return `${color}26`
}

function xAxis(options: PlotOptions): uPlot.Axis {
  return {
    stroke: token('--text-3'),
    font: `12px ${token('--font')}`,
    grid: { stroke: token('--hairline'), width: 1 },
    ticks: { show: false },
    space: 72,
    size: 28,
    gap: 6,
    values: (_plot, splits, _axis, _space, step) => splits.map((ts) => formatTick(ts, step, options.zone, options.language)),
  }
}

function yAxis(options: PlotOptions): uPlot.Axis {
  return {
    stroke: token('--text-3'),
    font: `12px ${token('--font')}`,
    grid: { stroke: token('--hairline'), width: 1 },
    ticks: { show: false },
    space: 36,
    gap: 6,
    values: (_plot, splits) => splits.map((value) => formatNumber(value, options.language)),
    size: (_plot, values) => Math.max(28, ...(values ?? []).map((text) => text.length * 7.2 + 12)),
  }
}

function lines(options: PlotOptions): { series: uPlot.Series[]; bands: uPlot.Band[] } {
  const series: uPlot.Series[] = [{}]
  const bands: uPlot.Band[] = []
  for (const [index, one] of options.series.entries()) {
    const { color, dash } = strokeOf(index, options.isDark)
    const isShown = !options.hidden.has(one.id)
    const isSparse = one.points.length < 40
    series.push({
      label: one.label,
      stroke: color,
      width: 1.5,
      show: isShown,
      points: { show: isSparse, size: 5 },
      ...(dash ? { dash } : {}),
    })
    if (!one.band) continue
    const edge = { stroke: 'transparent', width: 0, show: isShown, points: { show: false } }
    series.push({ ...edge, label: `${one.label} max` }, { ...edge, label: `${one.label} min` })
    bands.push({ series: [series.length - 2, series.length - 1], fill: faint(color) })
  }
  return { series, bands }
}

/** uPlot with our zone, words, zoom and colours. The only place that knows its options. */
export function createPlot(root: HTMLElement, data: uPlot.AlignedData, options: PlotOptions): uPlot {
  const { series, bands } = lines(options)
  const plot = new uPlot(
    {
      width: options.width,
      height: options.height,
      ms: 1,
      tzDate: (ts) => uPlot.tzDate(new Date(ts), options.zone),
      padding: [8, 8, 0, 0],
      legend: { show: false },
      series,
      bands,
      axes: [xAxis(options), yAxis(options)],
      scales: {
        x: { time: true, range: () => options.range() },
        y: {
          range: (_plot, min, max) => {
            if (min === null || max === null) return [0, 1]
            const low = options.isFromZero ? Math.min(0, min) : min
            const high = options.isFromZero ? Math.max(0, max) : max
            // A line that does not move is drawn in the middle, with room for small moves.
            const room = low === high ? Math.abs(low) * 0.05 || 1 : 0
            return uPlot.rangeNum(low - room, high + room, 0.1, true)
          },
        },
      },
      cursor: {
        y: false,
        points: { size: 7 },
        drag: { x: true, y: false, setScale: false },
        ...(options.syncKey ? { sync: { key: options.syncKey, setSeries: false } } : {}),
        bind: {
          dblclick: () => () => {
            options.onReset()
            return null
          },
        },
      },
      hooks: {
        setCursor: [(now) => options.onCursor(now.cursor.idx ?? null)],
        setSelect: [
          (now) => {
            if (now.select.width < 4) return
            options.onZoom(
              Math.round(now.posToVal(now.select.left, 'x')),
              Math.round(now.posToVal(now.select.left + now.select.width, 'x')),
            )
            now.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false)
          },
        ],
      },
    },
    data,
    root,
  )
  return plot
}
