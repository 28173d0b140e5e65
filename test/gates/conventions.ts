// SPDX-License-Identifier: AGPL-3.0-only
import { findPattern } from './files.ts'
import type { Finding, TrackedFile } from './files.ts'
import { blankComments, codeOf } from './source.ts'

/** Lines above which a file is split. Tables of constants and tests may be longer. */
const maxLines = 600

/** Node strips types, it does not compile. The compiler refuses these too (erasableSyntaxOnly), but for any. */
const bans: readonly { pattern: RegExp; message: string }[] = [
  { pattern: /(?:[:<,|&(=]|\bas|\bextends)\s*any\b(?!\s*[(.:?])/, message: 'uses any: take unknown and narrow it' },
  { pattern: /^\s*(?:export\s+)?(?:declare\s+)?(?:const\s+)?enum\s+\w/m, message: 'uses enum: take an "as const" object or a union' },
  { pattern: /^\s*(?:export\s+)?(?:declare\s+)?namespace\s+\w/m, message: 'uses namespace: take a module' },
]

/** The parts of our conventions that a search can see; oxlint and the compiler see the rest. */
export function checkConventions(files: readonly TrackedFile[]): Finding[] {
  return files.flatMap((file) => {
    if (file.text === undefined) return []
    const findings = findPattern(file, /\b(?:TODO|FIXME|XXX)\b(?=[:( ])/, (match) => `has a ${match}: finish it or open an issue`)
    if (!/\.(?:ts|vue)$/.test(file.path) || file.path.endsWith('.d.ts')) return findings.filter(() => isSource(file.path))
    const source = codeOf(file.path, file.text)
    const code = blankComments(source)
    for (const { pattern, message } of bans) findings.push(...findPattern(file, pattern, () => message, code))
    findings.push(...findImports(file, blankComments(source, { strings: false })))
    findings.push(...checkLength(file))
    return findings
  })
}

function findImports(file: TrackedFile, code: string): Finding[] {
  const relative = /^(?:import\s+|(?:import|export)\b[^'"\n;=]*\bfrom\s+)['"](\.{1,2}\/[^'"]+)['"]/gm
  return findPattern(file, relative, (match) => match, code).flatMap((finding) => {
    const path = /['"]([^'"]+)['"]$/.exec(finding.message)?.[1] ?? ''
    return /\.(?:ts|mjs|vue|json|css|svg)(?:\?\w+)?$/.test(path) ? [] : [{ ...finding, message: `imports ${path} without its ending` }]
  })
}

function checkLength(file: TrackedFile): Finding[] {
  const lines = file.text?.split('\n').length ?? 0
  if (lines <= maxLines || /\.test\.ts$|(?:^|\/)i18n\//.test(file.path)) return []
  return [{ path: file.path, message: `has ${lines} lines, more than ${maxLines}: split it` }]
}

/** Words about unfinished work count in what we ship and run, not in documents or data. */
function isSource(path: string): boolean {
  return /\.(?:[cm]?js|css|html|sql|sh|ya?ml)$/.test(path) && path !== 'pnpm-lock.yaml'
}
