// SPDX-License-Identifier: AGPL-3.0-only

/** `@iot-pms/core/testing`: real servers and databases for the tests of other packages. */
export { createTestContext, createTestDatabase, startTestPlatform, testAdmin } from './testing.ts'
export type { TestAnswer, TestContext, TestDatabase, TestPlatform } from './testing.ts'
export { createTestVendor, testLicense } from './license/testing.ts'
export type { TestVendor } from './license/testing.ts'
export { testApp } from './modules/testing.ts'
export type { TestApp, TestAppOptions, TestLicense } from './modules/testing.ts'
