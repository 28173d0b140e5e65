// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { checkImports } from './imports.ts'

const found = (path: string, text: string) => checkImports([{ path, text }]).map((one) => one.message)

describe('imports between packages', () => {
  it.each([
    ["import { a } from '../../../saas/costs/src/a.ts'", 'static'],
    ["import type { A } from '../../../core/src/context.ts'", 'type-only'],
    ["export { a } from '../../sso/src/a.ts'", 're-export'],
    ["export * from '@iot-pms/sso'", 're-export of a package'],
    ["const a = await import('@iot-pms/retail')", 'dynamic'],
    ["import '@iot-pms/core/src/start.ts'", 'deep path'],
    ["import { testApp } from '@iot-pms/core/testing'", 'test help outside of tests'],
    ["import { verifyLicense } from '@iot-pms/core/license'", 'the verifier'],
    ['const a = await import(name)', 'computed'],
    ["import.meta.resolve('../../sso/src/a.ts')", 'resolved'],
  ])('of a module are refused: %s (%s)', (text) => {
    expect(found('enterprise/audit/src/a.ts', text)).toHaveLength(1)
  })

  it('of a module come from the front door of core, npm and its own files', () => {
    const text =
      "import { defineModule } from '@iot-pms/core'\nimport { sql } from 'drizzle-orm'\nimport { a } from './a.ts'\nimport b from '../b.ts'\n"
    expect(found('enterprise/audit/src/module.ts', text)).toEqual([])
    expect(found('enterprise/audit/src/a.test.ts', "import { testApp } from '@iot-pms/core/testing'")).toEqual([])
    expect(found('enterprise/audit/dashboard/Page.vue', "<script>import { x } from '@iot-pms/core/dashboard'</script>")).toEqual([])
  })

  it('of core never lead to another package, and its pages not to the server', () => {
    expect(found('core/src/a.ts', "import { a } from '../../enterprise/sso/src/a.ts'")).toHaveLength(1)
    expect(found('core/src/a.ts', "import { a } from '@iot-pms/sso'")).toHaveLength(1)
    expect(found('core/src/a.ts', "import { a } from '../dashboard/src/a.ts'")).toHaveLength(1)
    expect(found('core/dashboard/src/a.ts', "import { a } from '../../src/a.ts'")).toHaveLength(1)
    expect(found('core/src/a.ts', 'await import(`../${name}.ts`)')).toHaveLength(1)
    expect(found('core/src/modules/modules.ts', 'await import(pathToFileURL(entry).href)')).toEqual([])
    expect(found('core/src/a.ts', "// import { a } from '../../enterprise/sso/src/a.ts'\nimport { b } from './b.ts'")).toEqual([])
  })

  it('of the license tool come from the pure part of core', () => {
    expect(found('license-tools/src/a.ts', "import { verifyLicense } from '@iot-pms/core/license'")).toEqual([])
    expect(found('license-tools/src/a.ts', "import { defineModule } from '@iot-pms/core'")).toHaveLength(1)
    expect(found('license-tools/src/a.ts', "import { verify } from '../../core/src/license/token.ts'")).toHaveLength(1)
  })
})
