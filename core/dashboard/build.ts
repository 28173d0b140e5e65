// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { extname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { brotliCompress, constants, gzip } from 'node:zlib'
import { build } from 'vite'

/** What was built, for the server and for whoever asks what runs [D-23]. */
export type BuildInfo = { version: string; commit: string | null; target: string; modules: string[]; assets: Record<string, string> }

const folder = fileURLToPath(new URL('.', import.meta.url))
const target = 'chrome99'
const compressible = new Set(['.js', '.css', '.svg', '.json'])

/** Builds the dashboard into dist/, compressed beside each file; dist/build.json comes last and says it is whole. */
export async function buildDashboard(): Promise<BuildInfo> {
  // Vite takes what the caller runs as (a test, a watcher) over its own mode.
  process.env['NODE_ENV'] = 'production'
  // Built aside and moved into place, so that a running server never finds half of it.
  const built = join(folder, 'node_modules/.dist-next')
  await build({ root: folder, configFile: join(folder, 'vite.config.ts'), logLevel: 'warn', build: { outDir: built } })
  const files = listFiles(join(built, 'assets'))
  await Promise.all(files.filter((file) => compressible.has(extname(file))).map(compress))
  const assets: Record<string, string> = {}
  for (const file of files) {
    assets[relative(built, file).split(sep).join('/')] = createHash('sha256').update(readFileSync(file)).digest('hex')
  }
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string }
  const info: BuildInfo = { version, commit: readCommit(join(folder, '../../.git')), target, modules: [], assets }
  writeFileSync(join(built, 'build.json'), `${JSON.stringify(info, null, 2)}\n`)
  const dist = join(folder, 'dist')
  rmSync(dist, { recursive: true, force: true })
  renameSync(built, dist)
  return info
}

function listFiles(path: string): string[] {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

async function compress(file: string): Promise<void> {
  const content = readFileSync(file)
  const [small, smaller] = await Promise.all([
    promisify(gzip)(content, { level: 9 }),
    promisify(brotliCompress)(content, {
      params: { [constants.BROTLI_PARAM_QUALITY]: 10, [constants.BROTLI_PARAM_SIZE_HINT]: content.length },
    }),
  ])
  writeFileSync(`${file}.gz`, small)
  writeFileSync(`${file}.br`, smaller)
}

/** The commit that is checked out, read from git's own files; null outside of a checkout. */
function readCommit(git: string): string | null {
  const head = readText(join(git, 'HEAD'))
  if (!head?.startsWith('ref: ')) return head ?? null
  const name = head.slice(5)
  const packed = readText(join(git, 'packed-refs'))
    ?.split('\n')
    .find((line) => line.endsWith(` ${name}`))
  return readText(join(git, name)) ?? packed?.slice(0, 40) ?? null
}

function readText(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined
}

if (import.meta.main) await buildDashboard()
