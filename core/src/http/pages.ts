// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { extname, join, relative, sep } from 'node:path'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ProblemError } from '../errors.ts'
import type { App } from './server.ts'

/** The header of every HTML answer, exactly (dashboard [D-94]). */
export const contentPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; media-src 'self'; " +
  "worker-src 'self'; manifest-src 'self'; frame-src 'none'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.json': 'application/json; charset=utf-8',
  '.webmanifest': 'application/manifest+json',
  '.woff2': 'font/woff2',
}

type File = { path: string; type: string; isImmutable: boolean; encodings: string[] }

/** What is shown while the dashboard is being built for the first time; it looks again by itself. */
const buildingPage = `<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="2"><title>IoT PMS</title></head><body><h1>正在构建界面</h1><p>Building the interface. 稍候会自动刷新。</p></body></html>`

/**
 * Serves the built dashboard from a list made when it appears: no path of a request ever reaches
 * the file system [SC-47]. Every other page address answers index.html with its `<base>` set.
 *
 * @param basePath path the product is served under, with both slashes
 */
export function registerPages(app: App, dist: string, basePath: string): { reload: () => void } {
  let files = listFiles(dist)
  let index = readIndex(dist, basePath)
  // A few megabytes at most; the ingest path should not wait for a disk.
  const contents = new Map<string, Buffer>()
  const read = (path: string): Buffer => {
    const content = contents.get(path) ?? readFileSync(path)
    contents.set(path, content)
    return content
  }

  app.get('/*', { schema: { hide: true } }, (request, reply) => {
    const path = decodePath(request.url)
    if (path === undefined || path.startsWith('/api/')) throw new ProblemError('NOT_FOUND')
    const file = path === '/index.html' ? undefined : files.get(path)
    if (file) return sendFile(request, reply, file, read)
    if (!(request.headers.accept ?? '').includes('text/html')) throw new ProblemError('NOT_FOUND')
    reply.headers({ 'content-security-policy': contentPolicy, 'cache-control': 'no-store' }).type(types['.html']!)
    return reply.code(index ? 200 : 503).send(index ?? buildingPage)
  })

  return {
    reload() {
      contents.clear()
      files = listFiles(dist)
      index = readIndex(dist, basePath)
    },
  }
}

/** The decoded path, or undefined where it tries to be clever: dot files, `..`, encoded separators, backslash, NUL. */
function decodePath(url: string): string | undefined {
  const raw = url.replace(/[?#].*$/, '')
  if (/%2f|%5c|%00|\\/i.test(raw)) return undefined
  try {
    const path = decodeURIComponent(raw)
    return path.split('/').some((part) => part.startsWith('.')) ? undefined : path
  } catch {
    return undefined
  }
}

function sendFile(request: FastifyRequest, reply: FastifyReply, file: File, read: (path: string) => Buffer): FastifyReply {
  const accepted = request.headers['accept-encoding'] ?? ''
  const encoding = file.encodings.find((one) => accepted.includes(one))
  reply
    .headers({ vary: 'accept-encoding', 'cache-control': file.isImmutable ? 'public, max-age=31536000, immutable' : 'no-store' })
    .type(file.type)
  if (!encoding) return reply.send(read(file.path))
  return reply.header('content-encoding', encoding).send(read(file.path + (encoding === 'br' ? '.br' : '.gz')))
}

function listFiles(dist: string): Map<string, File> {
  const files = new Map<string, File>()
  if (!existsSync(join(dist, 'index.html'))) return files
  for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    const type = types[extname(entry.name)]
    if (!entry.isFile() || !type) continue
    const name = `/${relative(dist, path).split(sep).join('/')}`
    const encodings = [
      ['br', '.br'],
      ['gzip', '.gz'],
    ]
      .filter(([, suffix]) => existsSync(path + suffix))
      .map(([encoding]) => encoding!)
    files.set(name, { path, type, isImmutable: name.startsWith('/assets/'), encodings })
  }
  return files
}

function readIndex(dist: string, basePath: string): string | undefined {
  const file = join(dist, 'index.html')
  return existsSync(file) ? readFileSync(file, 'utf8').replace('<base href="/"', `<base href="${basePath}"`) : undefined
}

/** Whether the sources of the dashboard are newer than its build, so that a checkout builds it again. */
export function isBuildStale(dashboardDir: string): boolean {
  const built = join(dashboardDir, 'dist/build.json')
  if (!existsSync(built)) return true
  const builtAt = statSync(built).mtimeMs
  return ['src', 'public', 'index.html', 'package.json', 'vite.config.ts', ...listModuleDashboards(dashboardDir)].some(
    (name) => newestChange(join(dashboardDir, name)) > builtAt,
  )
}

/** Pages of modules, which are built together with ours. */
function listModuleDashboards(dashboardDir: string): string[] {
  return ['verticals', 'enterprise', 'saas'].flatMap((group) => {
    const folder = join('../..', group)
    const names = existsSync(join(dashboardDir, folder)) ? readdirSync(join(dashboardDir, folder)) : []
    return names.map((name) => join(folder, name, 'dashboard'))
  })
}

function newestChange(path: string): number {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat) return 0
  if (!stat.isDirectory()) return stat.mtimeMs
  return readdirSync(path).reduce((newest, name) => Math.max(newest, newestChange(join(path, name))), 0)
}
