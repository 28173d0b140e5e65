// SPDX-License-Identifier: AGPL-3.0-only

/**
 * Seven series colours a theme, told apart also by people who see fewer colours; distances and contrast
 * are tested [D-14]. Red and green stay for status. Series 8 to 14 repeat them dashed.
 */
export const palette = {
  light: ['#2f5fe0', '#df750c', '#13aa68', '#c374b6', '#794006', '#184249', '#57207e'],
  dark: ['#7ba2ff', '#935f1a', '#3eea94', '#c51679', '#f4ce25', '#c9dce8', '#7d34f4'],
} as const

export type Stroke = { color: string; dash: number[] | undefined }

export function strokeOf(index: number, isDark: boolean): Stroke {
  const colors = palette[isDark ? 'dark' : 'light']
  return { color: colors[index % colors.length]!, dash: index >= colors.length ? [6, 4] : undefined }
}
