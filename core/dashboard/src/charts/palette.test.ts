// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { readTokens } from '../../element-tokens.ts'
import { contrast, labOf, simulate, visions } from './color-math.ts'
import { palette, strokeOf } from './palette.ts'

/** Smallest distance over all pairs and kinds of vision that was computed for these colours [D-14]. */
const least = { light: 27, dark: 29 }

describe.each(['light', 'dark'] as const)('the %s series colours', (theme) => {
  const colors = palette[theme]

  it.each(visions)('stay apart for %s vision', (vision) => {
    const labs = colors.map((color) => labOf(simulate(color, vision)))
    for (const [index, one] of labs.entries()) {
      for (const other of labs.slice(index + 1)) {
        expect(Math.hypot(...one.map((value, at) => value - other[at]!))).toBeGreaterThanOrEqual(least[theme])
      }
    }
  })

  it('have a contrast of at least 3 on the surface charts are drawn on', () => {
    const surface = readTokens(theme).get('surface')!
    for (const color of colors) expect(contrast(color, surface)).toBeGreaterThanOrEqual(3)
  })

  it('repeat dashed after the seventh', () => {
    expect(strokeOf(7, theme === 'dark')).toEqual({ color: colors[0], dash: [6, 4] })
    expect(strokeOf(6, theme === 'dark').dash).toBeUndefined()
  })
})
