// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { formatMixed, readTokens } from '../../element-tokens.ts'
import { contrast } from '../charts/color-math.ts'

/** What stands on what, and how strong it has to be at least [D-14]. */
const pairs: [text: string, ground: string, least: number][] = [
  ['text', 'surface', 4.5],
  ['text', 'canvas', 4.5],
  ['text', 'raised', 4.5],
  ['text-2', 'surface', 4.5],
  ['text-2', 'canvas', 4.5],
  ['text-2', 'raised', 4.5],
  ['text-3', 'surface', 4.5],
  ['text-3', 'canvas', 4.5],
  ['text-3', 'raised', 4.5],
  ['accent-text', 'surface', 4.5],
  ['accent-text', 'canvas', 4.5],
  ['accent-text', 'accent-soft', 4.5],
  ['ok', 'surface', 4.5],
  ['ok', 'ok-soft', 4.5],
  ['warn', 'surface', 4.5],
  ['warn', 'warn-soft', 4.5],
  ['danger', 'surface', 4.5],
  ['danger', 'danger-soft', 4.5],
  ['on-solid', 'accent', 4.5],
  ['on-solid', 'accent-hover', 4.5],
  ['on-solid', 'accent-active', 4.5],
  ['on-solid', 'ok-solid', 4.5],
  ['on-solid', 'warn-solid', 4.5],
  ['on-solid', 'danger-solid', 4.5],
  ['on-solid', 'info-solid', 4.5],
  ['control', 'surface', 3],
  ['control', 'canvas', 3],
  ['focus', 'surface', 3],
  ['focus', 'canvas', 3],
]

describe.each(['light', 'dark'] as const)('the %s tokens', (theme) => {
  const tokens = readTokens(theme)
  it.each(pairs)('show %s on %s with a contrast of at least %s', (text, ground, least) => {
    expect(contrast(tokens.get(text)!, tokens.get(ground)!)).toBeGreaterThanOrEqual(least)
  })
})

it('are what the mixed shades of Element Plus were made from', () => {
  expect(readFileSync(new URL('element-mixed.css', import.meta.url), 'utf8')).toBe(formatMixed())
})
