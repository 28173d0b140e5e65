// SPDX-License-Identifier: AGPL-3.0-only
import { readConfig } from '../config.ts'
import { createLog } from '../log.ts'
import { startPlatform } from '../start.ts'

export const killAdmin = { email: 'admin@example.com', password: 'correct-horse-9-battery' }

/** What the server of a test gets from its environment. */
export function environmentOf({ url, adminUrl }: { url: string; adminUrl: string }, dataDir: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    IOT_PMS_DATA_DIR: dataDir,
    IOT_PMS_HTTP_PORT: '0',
    IOT_PMS_HTTP_HOST: '127.0.0.1',
    IOT_PMS_MQTT_PORT: 'off',
    IOT_PMS_MQTTS_PORT: 'off',
    IOT_PMS_BUILD_DASHBOARD: '0',
    IOT_PMS_OUTBOUND_ALLOW: '127.0.0.1',
    DATABASE_URL: url,
    IOT_PMS_MIGRATE_URL: adminUrl,
  }
}

/**
 * A server of its own for tests that kill it: `node testing-kill.ts live`, or `… hold`, which commits and
 * acknowledges but judges nothing. Its settings come from the environment; it tells its port.
 */
if (import.meta.main) {
  const platform = await startPlatform({ ...readConfig(process.env), admin: killAdmin }, createLog('error'))
  await platform.ruleEngine.settled()
  if (process.argv[2] === 'hold') platform.ruleEngine.live.hold()
  process.stdout.write(`${platform.ports.http}\n`)
}
