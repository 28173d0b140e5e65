// SPDX-License-Identifier: AGPL-3.0-only
import type { Finding, TrackedFile } from './files.ts'

/** A figure about speed or size. */
const figure =
  /\d[\d,.]*\s*(?:k|K|M|万|百万)?\s*(?:points\/s|points per second|点\/秒|msgs?\/s|messages\/s|消息\/秒|[KMGT]i?B\b|bytes?(?: per point|\/point)?\b|字节)/

/** Figures in the README stand beside a link to the measurement they come from. */
export function checkClaims(files: readonly TrackedFile[]): Finding[] {
  const readme = files.find((file) => file.path === 'README.md')
  if (readme?.text === undefined) return [{ path: 'README.md', message: 'is missing' }]
  return readme.text.split('\n').flatMap((text, index) => {
    const match = figure.exec(text)
    if (!match || text.includes('docs/benchmarks.md')) return []
    return [{ path: readme.path, line: index + 1, message: `"${match[0].trim()}" needs a link to docs/benchmarks.md in the same line` }]
  })
}
