// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import type { InjectOptions, LightMyRequestResponse } from 'fastify'
import type { Config } from '../config.ts'
import { installLicense, removeLicense } from '../license/install.ts'
import { createTestVendor } from '../license/testing.ts'
import type { TestVendor } from '../license/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { settingPrefix } from './discovery.ts'

/** Features that are granted, nothing, or a license that has run out. */
export type TestLicense = { features: readonly string[]; limits?: Record<string, number> } | 'none' | 'restricted'

/** A whole server with the modules of a test, and a license that can be changed while it runs. */
export type TestApp = TestPlatform & {
  vendor: TestVendor
  inject(options: InjectOptions): Promise<LightMyRequestResponse>
  /** Comes back when every module is what the license says. `restricted` keeps the features of before. */
  relicense(license: TestLicense): Promise<void>
}

export type TestAppOptions = {
  /** Package folders. */
  modules: readonly string[]
  license: TestLicense
  /** Settings of the modules, `IOT_PMS_<NAME>_…`. */
  settings?: Readonly<Record<string, string>>
  /** Settings of core. */
  config?: Partial<Config>
}

const actor = { id: 'test', name: 'test' }
const daySeconds = 86_400

/** Starts a server on a database of its own; close it in `afterAll`. */
export async function testApp({ modules, license, settings = {}, config = {} }: TestAppOptions): Promise<TestApp> {
  const vendor = createTestVendor()
  const names = modules.map((folder) => folder.split('/').at(-1)!)
  const ofModules = new Map(
    names.map((name) => [name, Object.fromEntries(Object.entries(settings).filter(([key]) => key.startsWith(settingPrefix(name))))]),
  )
  const platform = await startTestPlatform(
    { ...config, modules: ofModules, secretKey: randomBytes(32).toString('base64url') },
    { licenseKeys: vendor.keys, moduleFolders: modules },
  )
  let features: readonly string[] = []
  const app: TestApp = {
    ...platform,
    vendor,
    inject: (options) => platform.app.inject(options),
    async relicense(wanted) {
      const service = platform.license
      if (wanted === 'none') {
        while (service.get().inForce) await removeLicense(service, actor, true)
      } else {
        if (wanted !== 'restricted') features = wanted.features
        const today = Math.floor(Date.now() / 1000)
        const past = { iat: today - 400 * daySeconds, nbf: today - 400 * daySeconds, exp: today - 100 * daySeconds }
        const limits = wanted === 'restricted' ? { devices: -1 } : { devices: -1, ...wanted.limits }
        const text = vendor.license({ features, limits, ...(wanted === 'restricted' ? past : {}) })
        await installLicense(service, { text, actor, source: 'upload', acknowledge: true })
      }
      await platform.modules.sync()
    },
  }
  await app.relicense(license)
  return app
}
