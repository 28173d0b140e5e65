// SPDX-License-Identifier: AGPL-3.0-only
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import postgres from 'postgres'
import { configKeys } from '../src/config-keys.ts'
import { readConfig } from '../src/config.ts'
import { findRunningDatabase } from '../src/db/embedded.ts'
import { errorCodes } from '../src/errors.ts'
import { createLog } from '../src/log.ts'
import { startPlatform } from '../src/start.ts'
import { rootDir } from '../src/version.ts'
import { formatClientTypes } from './client-types.ts'
import { dumpSchema } from './schema-dump.ts'

/**
 * Writes what is generated from code: core/openapi.json, core/schema.sql, docs/reference/{errors,config}.md
 * and the API types of the dashboard and of the client package. With --check nothing is written; files that differ are named, exit code 1.
 */
const isCheck = process.argv.includes('--check')

const { openapi, schema } = await readPlatform()
const files = new Map([
  ['core/openapi.json', `${JSON.stringify(openapi, null, 2)}\n`],
  ['core/schema.sql', schema],
  ['docs/reference/errors.md', formatErrors()],
  ['docs/reference/config.md', formatConfig()],
  ['packages/client/src/api.ts', formatClientTypes(openapi, Object.keys(errorCodes))],
])
const schemaTypes = 'core/dashboard/src/api/schema.d.ts'
if (existsSync(join(rootDir, dirname(schemaTypes)))) files.set(schemaTypes, formatTypes(files.get('core/openapi.json')!))

let differing = 0
for (const [name, content] of files) {
  const file = join(rootDir, name)
  const isSame = existsSync(file) && readFileSync(file, 'utf8') === content
  if (isSame) continue
  if (isCheck) {
    console.error(`${relative(process.cwd(), file)} differs from what the code makes: run pnpm generate`)
    differing++
  } else {
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, content)
    console.log(`wrote ${name}`)
  }
}
process.exit(differing > 0 ? 1 : 0)

/** Starts a whole server on a fresh database, and asks it. */
async function readPlatform(): Promise<{ openapi: unknown; schema: string }> {
  const dataDir = mkdtempSync(join('/tmp', 'iot-pms-generate-'))
  chmodSync(dataDir, 0o711)
  const config = readConfig({
    IOT_PMS_DATA_DIR: dataDir,
    IOT_PMS_HTTP_PORT: '0',
    IOT_PMS_HTTP_HOST: '127.0.0.1',
    IOT_PMS_MQTT_PORT: 'off',
    IOT_PMS_MQTTS_PORT: 'off',
    IOT_PMS_BUILD_DASHBOARD: '0',
  })
  const platform = await startPlatform(config, createLog('error'))
  try {
    const running = await findRunningDatabase(dataDir)
    const sql = postgres(running!.adminUrl, { max: 1, onnotice: () => {} })
    const dump = await dumpSchema(sql)
    await sql.end()
    return { openapi: platform.app.swagger(), schema: dump }
  } finally {
    await platform.stop()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

function formatErrors(): string {
  const rows = Object.entries(errorCodes)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, { status, zh, en }]) => `| \`${code}\` | ${status} | ${zh} | ${en} |`)
  return `<!-- SPDX-License-Identifier: AGPL-3.0-only -->\n\n# 错误代码 Error codes\n\n由 \`pnpm generate\` 从 \`core/src/errors.ts\` 生成。Generated from \`core/src/errors.ts\`.\n\n| code | status | 中文 | English |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`
}

function formatConfig(): string {
  const rows = Object.entries(configKeys).map(
    ([name, key]) =>
      `| \`${name}\` | ${key.type} | ${key.default === '' ? '' : `\`${key.default}\``} | ${key.help.replaceAll('|', '\\|')} |`,
  )
  return `<!-- SPDX-License-Identifier: AGPL-3.0-only -->\n\n# 配置 Settings\n\n由 \`pnpm generate\` 从 \`core/src/config.ts\` 生成。Generated from \`core/src/config.ts\`. 类型为 secret 的项也可以用 \`<NAME>_FILE\` 指向文件。A secret may also come from the file named by \`<NAME>_FILE\`.\n\n| name | type | default | meaning |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`
}

function formatTypes(openapiJson: string): string {
  const file = join(mkdtempSync(join('/tmp', 'iot-pms-openapi-')), 'openapi.json')
  writeFileSync(file, openapiJson)
  const cli = join(rootDir, 'core/dashboard/node_modules/openapi-typescript/bin/cli.js')
  const result = spawnSync(process.execPath, [cli, file], { encoding: 'utf8', cwd: join(rootDir, 'core/dashboard') })
  rmSync(dirname(file), { recursive: true })
  if (result.status !== 0) throw new Error(`openapi-typescript failed: ${result.stderr}`)
  return `// SPDX-License-Identifier: AGPL-3.0-only\n${result.stdout}`
}
