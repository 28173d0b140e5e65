// SPDX-License-Identifier: AGPL-3.0-only
import { posix } from 'node:path'
import { findPattern } from './files.ts'
import type { Finding, TrackedFile } from './files.ts'
import { blankComments } from './source.ts'

/** Who may import which of our packages. Everybody may import own files and what npm gives. */
type Zone = { inside: RegExp; packages: readonly string[]; onlyInTests?: readonly string[] }

const zones: readonly Zone[] = [
  { inside: /^(core)\/(?!dashboard\/)/, packages: [] },
  { inside: /^(core\/dashboard)\//, packages: [] },
  {
    inside: /^((?:verticals|enterprise|saas)\/[\w-]+)\//,
    packages: ['@iot-pms/core', '@iot-pms/core/dashboard'],
    onlyInTests: ['@iot-pms/core/testing', '@iot-pms/core/license'],
  },
  { inside: /^(license-tools)\//, packages: ['@iot-pms/core/license'], onlyInTests: ['@iot-pms/core/testing'] },
]

/** What is only known at run time: a module that the license grants, the PostgreSQL package of this platform. */
const loaders = ['core/src/modules/modules.ts', 'core/src/db/place.ts']
/** Rules with nothing of a server in them, which pages show as they will be applied; each imports nothing. */
const shared = ['core/src/provisioning/name-pattern.ts']
const source = /\.(?:ts|vue|mjs)$/
const isTest = /\.test\.ts$|(?:^|\/)testing(?:-[\w-]+)?\.ts$/

/** Static, type-only, re-exporting and dynamic imports, and `import.meta.resolve`. */
const specifier = /(?:\bfrom|\bimport)\s*\(?\s*(['"`])([^'"`$]+)\1|\bimport\.meta\.resolve\(\s*(['"`])([^'"`$]+)\3/g
const computed = /\bimport\s*\(\s*(?!\s*['"`][^'"`$]*['"`]\s*[,)])/

/** [MO-70] Nobody reaches into the files of another package, and modules know core by its front door only. */
export function checkImports(files: readonly TrackedFile[]): Finding[] {
  return files.flatMap((file) => {
    const zone = zones.find(({ inside }) => inside.test(file.path))
    if (!zone || !source.test(file.path) || file.text === undefined) return []
    const home = zone.inside.exec(file.path)![1]!
    const code = blankComments(file.text, { strings: false })
    const findings = findPattern(file, specifier, (match) => judge(file.path, home, zone, match) ?? '', code).filter(
      ({ message }) => message !== '',
    )
    if (loaders.includes(file.path) || isTest.test(file.path)) return findings
    return [
      ...findings,
      ...findPattern(file, computed, () => 'imports what is only known at run time: the loader of modules does that', code),
    ]
  })
}

function judge(path: string, home: string, zone: Zone, match: string): string | undefined {
  const [, wanted = ''] = /(['"`])([^'"`]+)\1/.exec(match)?.slice(1) ?? []
  if (wanted.startsWith('.')) {
    const target = posix.join(posix.dirname(path), wanted)
    const isOwn = target.startsWith(`${home}/`) && !(home === 'core' && target.startsWith('core/dashboard/'))
    const isShared = home === 'core/dashboard' && shared.includes(target)
    return isOwn || isShared ? undefined : `reaches into another package: ${wanted}`
  }
  if (!wanted.startsWith('@iot-pms/') || zone.packages.includes(wanted)) return undefined
  return isTest.test(path) && zone.onlyInTests?.includes(wanted) ? undefined : `may not import ${wanted}`
}
