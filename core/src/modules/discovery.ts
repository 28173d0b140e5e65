// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync, readdirSync } from 'node:fs'
import { basename, join, relative, resolve } from 'node:path'
import { FEATURES } from '../license/features.ts'
import type { BothLanguages, Feature, OnExpire } from '../license/features.ts'
import { rootDir } from '../version.ts'

/** Folders beside core whose sub-folders may be modules [MO-11]; no setting adds others. */
const groups = ['verticals', 'enterprise', 'saas'] as const

export type ModulePort = { name: string; env: string; default: number; protocol: 'tcp' | 'udp' }
export type ModuleNav = { path: string; group: string; icon: string; title: BothLanguages }

/** What package.json says of a module: all that is known of one that is locked. */
export type ModuleBlock = {
  name: string
  folder: string
  version: string
  feature: string
  /** Row of the feature: ours, or what the module brings. */
  row: Feature
  core: string
  entry: string
  title: BothLanguages
  summary: BothLanguages
  prefixes: readonly string[]
  migrations: string | undefined
  ports: readonly ModulePort[]
  nav: readonly ModuleNav[]
  requires: readonly string[]
  /** Scripts of `iot-pms <module> <word>`, by their words. */
  commands: ReadonlyMap<string, string>
}

export type Discovery = { modules: ModuleBlock[]; problems: { file: string; problems: string[] }[] }

/** Package folders of this checkout or image, by group and name. */
function listModuleFolders(root = rootDir): string[] {
  return groups.flatMap((group) => listFolder(join(root, group)).map((name) => join(root, group, name)))
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort()
  } catch {
    return []
  }
}

/**
 * Finds modules by their package.json, and opens no other file of theirs [MO-1]. A folder without an `iotPms` block is
 * none; one with a bad block is left out and named with all its problems.
 */
export function discoverModules(folders: readonly string[] = listModuleFolders()): Discovery {
  const found: Discovery = { modules: [], problems: [] }
  for (const folder of folders) {
    const file = join(folder, 'package.json')
    const pack = readPackage(file)
    if (!pack) continue
    const problems: string[] = []
    const block = readBlock(pack.block, { folder, version: pack.version }, problems)
    problems.push(...findClashes(block, found.modules))
    if (problems.length > 0) found.problems.push({ file, problems })
    else found.modules.push(block)
  }
  return found
}

function readPackage(file: string): { block: Record<string, unknown>; version: string } | undefined {
  try {
    const { iotPms, version } = JSON.parse(readFileSync(file, 'utf8')) as { iotPms?: unknown; version?: unknown }
    return isObject(iotPms) ? { block: iotPms, version: String(version ?? '') } : undefined
  } catch {
    return undefined
  }
}

const moduleName = /^[a-z][a-z0-9-]{1,31}$/
const featureName = /^[a-z][a-z0-9_]{1,31}$/
const prefixPattern = /^\/api\/v1\/[a-z][a-z0-9-]*(\/[a-z][a-z0-9-]*)?$/

function readBlock(
  block: Record<string, unknown>,
  { folder, version }: { folder: string; version: string },
  problems: string[],
): ModuleBlock {
  const text = (field: string, pattern: RegExp): string => {
    const value = block[field]
    if (typeof value === 'string' && pattern.test(value)) return value
    problems.push(`${field} must be a text like ${pattern.source}`)
    return ''
  }
  const both = (value: unknown, field: string, max: number): BothLanguages => {
    const { zh, en } = (isObject(value) ? value : {}) as Partial<BothLanguages>
    const isGood = [zh, en].every((one) => typeof one === 'string' && one.length >= 1 && one.length <= max)
    if (!isGood) problems.push(`${field} needs zh and en of up to ${max} characters`)
    return { zh: zh ?? '', en: en ?? '' }
  }
  const path = (field: string): string => {
    const inside = relative(folder, resolve(folder, text(field, /^\.\//)))
    if (inside.startsWith('..')) problems.push(`${field} leads out of the package`)
    return resolve(folder, inside)
  }
  const inside = (file: string) => !relative(folder, resolve(folder, file)).startsWith('..')
  const name = text('name', moduleName)
  if (name !== basename(folder)) problems.push('name must be that of the folder')
  const feature = text('feature', featureName)
  return {
    name,
    folder,
    version,
    feature,
    row: readRow(block, feature, both, problems),
    core: text('core', /./),
    entry: path('entry'),
    title: both(block['title'], 'title', 40),
    summary: both(block['summary'], 'summary', 200),
    prefixes: readPrefixes(block['prefixes'], problems),
    migrations: block['migrations'] === undefined ? undefined : path('migrations'),
    ports: readList(block['ports'], 'ports', isPort, problems),
    nav: readList(block['nav'], 'nav', isNav, problems),
    requires: readList(block['requires'], 'requires', (one): one is string => typeof one === 'string' && moduleName.test(one), problems),
    commands: readCommands(block['commands'], folder, inside, problems),
  }
}

function readCommands(value: unknown, folder: string, isInside: (file: string) => boolean, problems: string[]): Map<string, string> {
  if (value === undefined) return new Map()
  const entries = isObject(value) ? Object.entries(value) : []
  const isGood = isObject(value) && entries.every(([word, file]) => moduleName.test(word) && typeof file === 'string' && isInside(file))
  if (!isGood) problems.push('commands names a script that is not valid')
  return new Map(isGood ? entries.map(([word, file]) => [word, resolve(folder, String(file))]) : [])
}

/** A feature of ours has its row; any other brings one along. */
function readRow(
  block: Record<string, unknown>,
  feature: string,
  both: (value: unknown, field: string, max: number) => BothLanguages,
  problems: string[],
): Feature {
  const own = FEATURES[feature]
  if (own) return own
  const brought = block['featureInfo']
  const { onExpire, message, editions } = isObject(brought) ? brought : {}
  const isGood = ['keep', 'readonly', 'stop_new', 'off'].includes(String(onExpire)) && Array.isArray(editions)
  if (!isGood) problems.push('feature is none of ours, and featureInfo has no onExpire and editions')
  return {
    title: both(block['title'], 'title', 40),
    editions: (Array.isArray(editions) ? editions : []) as Feature['editions'],
    onExpire: onExpire as OnExpire,
    message: both(message, 'featureInfo.message', 500),
  }
}

function readPrefixes(value: unknown, problems: string[]): string[] {
  const prefixes = readList(value, 'prefixes', (one): one is string => typeof one === 'string' && prefixPattern.test(one), problems)
  if (prefixes.length < 1 || prefixes.length > 4) problems.push('prefixes needs 1 to 4 entries')
  return prefixes
}

function readList<T>(value: unknown, field: string, isGood: (one: unknown) => one is T, problems: string[]): T[] {
  if (value === undefined) return []
  if (Array.isArray(value) && value.every(isGood)) return value
  problems.push(`${field} has an entry that is not valid`)
  return []
}

function isPort(value: unknown): value is ModulePort {
  if (!isObject(value)) return false
  const { name, env, default: port, protocol } = value
  const isNamed = typeof name === 'string' && typeof env === 'string' && env.startsWith('IOT_PMS_')
  return isNamed && Number.isInteger(port) && (protocol === 'tcp' || protocol === 'udp')
}

function isNav(value: unknown): value is ModuleNav {
  return isObject(value) && ['path', 'group', 'icon'].every((field) => typeof value[field] === 'string') && isObject(value['title'])
}

function findClashes(block: ModuleBlock, before: readonly ModuleBlock[]): string[] {
  const problems: string[] = []
  for (const other of before) {
    if (other.name === block.name) problems.push(`another module is named ${block.name}`)
    for (const mine of block.prefixes) {
      const clash = other.prefixes.find((theirs) => isBelow(mine, theirs) || isBelow(theirs, mine))
      if (clash) problems.push(`the prefix ${mine} clashes with ${clash} of ${other.name}`)
    }
  }
  return problems
}

/** Whether a path is a prefix or lies below it. */
export function isBelow(path: string, prefix: string): boolean {
  return path === prefix || path.startsWith(`${prefix}/`)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Names of the modules of this build, good or not: settings of one that is left out must not keep core from starting. */
export function listModuleNames(): string[] {
  return listModuleFolders().map((folder) => basename(folder))
}

/** Beginning of the environment variables of a module. */
export function settingPrefix(name: string): string {
  return `IOT_PMS_${name.toUpperCase().replaceAll('-', '_')}_`
}

/** Whether a version lies in a range: `*`, `1.2.3`, `^1.2.3`, `~1.2.3`, `>=1.2.3`, several joined by `||`. */
export function isInRange(version: string, range: string): boolean {
  return range.split('||').some((part) => {
    const match = /^(\^|~|>=)?(\d+)\.(\d+)\.(\d+)$/.exec(part.trim())
    if (!match) return part.trim() === '*'
    const [major = 0, minor = 0, patch = 0] = version.replace(/-.*$/, '').split('.').map(Number)
    const [a, b, c] = match.slice(2).map(Number) as [number, number, number]
    const isAtLeast = major > a || (major === a && (minor > b || (minor === b && patch >= c)))
    switch (match[1]) {
      case '^':
        return isAtLeast && major === a && (a > 0 || minor === b)
      case '~':
        return isAtLeast && major === a && minor === b
      case '>=':
        return isAtLeast
      default:
        return major === a && minor === b && patch === c
    }
  })
}
