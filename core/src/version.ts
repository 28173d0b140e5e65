// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** Folder of the checkout or image: core lies in it. */
export const rootDir = join(import.meta.dirname, '../..')

/** Version of this product. */
export const version = (JSON.parse(readFileSync(join(rootDir, 'core/package.json'), 'utf8')) as { version: string }).version
