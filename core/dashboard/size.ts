// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * `pnpm --filter @iot-pms/dashboard size`: what each first view loads, gzip, against the budgets of
 * dashboard.md §19. The browser suite measures the same over the wire.
 */
type Chunk = { file: string; css?: string[]; imports?: string[] }
type Manifest = Record<string, Chunk>

const dist = join(fileURLToPath(new URL('.', import.meta.url)), 'dist')
const manifestFile = join(dist, 'chunks.json')

const shell = ['src/shell/AppShell.vue']
const views: { name: string; chunks: string[]; js: number; css: number }[] = [
  { name: '/login', chunks: ['src/pages/start/LoginPage.vue'], js: 130, css: 30 },
  { name: '/setup', chunks: ['src/pages/start/SetupPage.vue'], js: 130, css: 30 },
  { name: '/', chunks: [...shell, 'src/pages/overview/OverviewPage.vue'], js: 260, css: 60 },
  { name: '/devices', chunks: [...shell, 'src/pages/devices/DeviceListPage.vue'], js: 260, css: 60 },
  {
    name: '/devices/:id/overview',
    chunks: [...shell, 'src/pages/device/DevicePage.vue', 'src/pages/device/OverviewTab.vue'],
    js: 320,
    css: 60,
  },
  {
    name: '/devices/:id/connect',
    chunks: [...shell, 'src/pages/device/DevicePage.vue', 'src/pages/device/ConnectTab.vue'],
    js: 320,
    css: 60,
  },
  {
    name: '/devices/:id/attributes',
    chunks: [...shell, 'src/pages/device/DevicePage.vue', 'src/pages/device/AttributesTab.vue'],
    js: 320,
    css: 60,
  },
  {
    name: '/devices/:id/commands',
    chunks: [...shell, 'src/pages/device/DevicePage.vue', 'src/pages/device/CommandsTab.vue'],
    js: 320,
    css: 60,
  },
  {
    name: '/products/:id/limits',
    chunks: [...shell, 'src/pages/products/ProductPage.vue', 'src/pages/products/LimitsTab.vue'],
    js: 320,
    css: 60,
  },
  { name: '/settings/users', chunks: [...shell, 'src/pages/settings/UsersPage.vue'], js: 320, css: 60 },
  { name: '/settings/license', chunks: [...shell, 'src/pages/license/LicensePage.vue'], js: 320, css: 60 },
]
/** Texts: one language, the larger one is counted [D-98]; the second file comes with the shell. */
const languages = [
  ['src/i18n/zh.ts', 'src/i18n/zh-pages.ts'],
  ['src/i18n/en.ts', 'src/i18n/en-pages.ts'],
] as const
const languageLimit = 35

if (!existsSync(manifestFile)) {
  console.error('dist/chunks.json is missing: build the dashboard first')
  process.exit(1)
}
const manifest = JSON.parse(readFileSync(manifestFile, 'utf8')) as Manifest

function kilobytes(files: Iterable<string>): number {
  let bytes = 0
  for (const file of files) bytes += statSync(join(dist, `${file}.gz`)).size
  return bytes / 1000
}

/** Everything a chunk pulls in before it runs. */
function collect(name: string, files: { js: Set<string>; css: Set<string> }): void {
  const chunk = manifest[name]
  if (!chunk) throw new Error(`${name} is not in the build`)
  if (files.js.has(chunk.file)) return
  files.js.add(chunk.file)
  for (const css of chunk.css ?? []) files.css.add(css)
  for (const one of chunk.imports ?? []) collect(one, files)
}

let isOver = false
const language = languages
  .map((names) => ({ names, size: kilobytes(names.map((name) => manifest[name]!.file)) }))
  .sort((a, b) => b.size - a.size)[0]!
const line = (name: string, kind: string, size: number, limit: number) => {
  if (size > limit) isOver = true
  console.log(`${name.padEnd(24)} ${kind.padEnd(4)} ${size.toFixed(1).padStart(7)} kB of ${limit} kB${size > limit ? '  OVER' : ''}`)
}
for (const view of views) {
  const files = { js: new Set<string>(), css: new Set<string>() }
  const texts = view.chunks.includes(shell[0]!) ? language.names : language.names.slice(0, 1)
  for (const name of ['index.html', ...texts, ...view.chunks]) collect(name, files)
  line(view.name, 'js', kilobytes(files.js), view.js)
  line(view.name, 'css', kilobytes(files.css), view.css)
}
line(language.names[0], 'text', language.size, languageLimit)
process.exit(isOver ? 1 : 0)
