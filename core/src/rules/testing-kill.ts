// SPDX-License-Identifier: AGPL-3.0-only
import { readConfig } from '../config.ts'
import { createLog } from '../log.ts'
import { startPlatform } from '../start.ts'

/**
 * A server of its own for tests that kill it: `node testing-kill.ts live`, or `… hold`, which commits and
 * acknowledges but judges nothing. Its settings come from the environment; it tells its port.
 */
if (import.meta.main) {
  const admin = { email: process.env['TEST_ADMIN_EMAIL'] ?? '', password: process.env['TEST_ADMIN_PASSWORD'] ?? '' }
  const platform = await startPlatform({ ...readConfig(process.env), admin }, createLog('error'))
  await platform.ruleEngine.settled()
  if (process.argv[2] === 'hold') platform.ruleEngine.live.hold()
  console.log(String(platform.ports.http))
}
