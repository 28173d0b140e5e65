// SPDX-License-Identifier: AGPL-3.0-only
import type { Finding, TrackedFile } from './files.ts'

/** One `[[annotations]]` of REUSE.toml: the licence of files that cannot hold a comment. */
export type Annotation = { paths: string[]; licence: string }

const commercialFolders = /^(?:verticals|enterprise|saas|license-tools)\//

/** Comments are possible here, so a table row with a wildcard does not do. */
const canHoldComment = /\.(?:[cm]?[jt]s|vue|css|html|sql|sh|md|ya?ml|toml)$/

/** Licence texts carry their own names. */
const isLicenceText = /(?:^|\/)(?:LICENSE[^/]*|LICENSES\/[^/]+)$/

/** The licence of a path by the map in LICENSE. */
export function licenceOf(path: string): string {
  return commercialFolders.test(path) ? 'LicenseRef-IoT-PMS-Commercial' : 'AGPL-3.0-only'
}

/** Each tracked file names exactly the licence of its folder, in its first ten lines or in the table. */
export function checkLicences(files: readonly TrackedFile[], table: readonly Annotation[]): Finding[] {
  return files.flatMap(({ path, text }): Finding[] => {
    if (isLicenceText.test(path)) return []
    const wanted = licenceOf(path)
    const found = findHeaders(text)
    if (found.length > 1) return [{ path, message: `names ${found.length} licences: ${found.join(', ')}` }]
    if (found[0] !== undefined) return found[0] === wanted ? [] : [{ path, message: `says ${found[0]}, its folder is ${wanted}` }]
    // The last row that fits counts, as in the REUSE specification.
    const row = table.findLast((one) => one.paths.some((pattern) => fitsRow(path, pattern)))
    if (!row) return [{ path, message: `has no "SPDX-License-Identifier: ${wanted}" in its first 10 lines and no row in REUSE.toml` }]
    return row.licence === wanted ? [] : [{ path, message: `is ${row.licence} in REUSE.toml, its folder is ${wanted}` }]
  })
}

/** The `license` member of each package fits its folder; the root and commercial packages point to LICENSE. */
export function checkPackageLicences(files: readonly TrackedFile[]): Finding[] {
  return files.flatMap(({ path, text }): Finding[] => {
    if (!/(?:^|\/)package\.json$/.test(path) || text === undefined) return []
    const manifest = JSON.parse(text) as { license?: string; private?: boolean }
    const wanted = path === 'package.json' || commercialFolders.test(path) ? 'SEE LICENSE IN LICENSE' : 'AGPL-3.0-only'
    const findings: Finding[] = []
    if (manifest.license !== wanted) findings.push({ path, message: `has license ${String(manifest.license)}, should be ${wanted}` })
    if (manifest.private !== true) findings.push({ path, message: 'should have "private": true' })
    return findings
  })
}

/** LICENSE-AGPL is the unmodified text. */
export function checkAgplText(files: readonly TrackedFile[], original: string): Finding[] {
  return ['LICENSE-AGPL', 'core/LICENSE'].flatMap((path): Finding[] => {
    const file = files.find((one) => one.path === path)
    if (!file) return path === 'LICENSE-AGPL' ? [{ path, message: 'is missing' }] : []
    return file.text?.trimEnd() === original.trimEnd() ? [] : [{ path, message: 'differs from the text of AGPL-3.0-only' }]
  })
}

/** Reads the part of REUSE.toml that we use: `path` as a string or list, and the licence. */
export function parseReuse(text: string): Annotation[] {
  return text
    .replaceAll(/^\s*#.*$/gm, '')
    .split('[[annotations]]')
    .slice(1)
    .map((block) => {
      const paths = /^path\s*=\s*(\[[^\]]*\]|"[^"]*")/m.exec(block)?.[1] ?? ''
      const licence = /^SPDX-License-Identifier\s*=\s*"([^"]+)"/m.exec(block)?.[1] ?? ''
      if (paths === '' || licence === '') throw new Error(`REUSE.toml: a block has no path or no licence:${block}`)
      return { paths: Array.from(paths.matchAll(/"([^"]*)"/g), (match) => match[1]!), licence }
    })
}

function findHeaders(text: string | undefined): string[] {
  const head = (text ?? '').split('\n', 10).join('\n')
  return Array.from(head.matchAll(/SPDX-License-Identifier:[ \t]+([\w.+-]+)/g), (match) => match[1]!)
}

function fitsRow(path: string, pattern: string): boolean {
  if (!pattern.includes('*')) return path === pattern
  return !canHoldComment.test(path) && toRegExp(pattern).test(path)
}

/** REUSE globs: `*` stays within a folder, `**` does not; a leading dot is nothing special. */
function toRegExp(pattern: string): RegExp {
  const source = pattern.split(/(\*\*\/|\*\*|\*)/).map((part) => {
    if (part === '**/') return '(?:.*/)?'
    if (part === '**') return '.*'
    if (part === '*') return '[^/]*'
    return RegExp.escape(part)
  })
  return new RegExp(`^${source.join('')}$`)
}
