// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'

/** Folder of the checkout or image: core lies in it. */
export const rootDir = join(import.meta.dirname, '../..')

/** Version of this product. */
export const version = (JSON.parse(readFileSync(join(rootDir, 'core/package.json'), 'utf8')) as { version: string }).version

/** ms since 1970 at which this build was made or checked out: it cannot be earlier now. */
export const builtAt = Math.floor(statSync(join(rootDir, 'core/package.json')).mtimeMs)
