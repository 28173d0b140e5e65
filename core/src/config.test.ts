// SPDX-License-Identifier: AGPL-3.0-only
import { chmodSync, mkdtempSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readConfig } from './config.ts'
import { StartError } from './errors.ts'

function refusal(environment: Record<string, string>): string {
  try {
    readConfig(environment)
  } catch (error) {
    if (error instanceof StartError && error.exitCode === 78) return error.message
    throw error
  }
  return 'accepted'
}

describe('the configuration', () => {
  it('has defaults for everything', () => {
    expect(readConfig({})).toMatchObject({
      http: { port: 8080 },
      mqtt: { port: 1883 },
      database: { url: undefined },
      writer: { commitWindowMs: 5 },
    })
  })

  it('lists all problems at once', () => {
    const message = refusal({
      IOT_PMS_HTTP_PORT: '99999',
      IOT_PMS_COMMIT_WINDOW_MS: '50',
      IOT_PMS_PUBLIC_URL: 'ftp://x',
      IOT_PMS_TRUSTED_PROXIES: '*',
      IOT_PMS_LOG_LEVEL: 'loud',
      DATABASE_URL: 'mysql://x',
      IOT_PMS_ADMIN_PASSWORD: 'x',
    })
    for (const part of [
      '7 problems',
      'IOT_PMS_HTTP_PORT=99999',
      'IOT_PMS_COMMIT_WINDOW_MS=50',
      'IOT_PMS_PUBLIC_URL=ftp://x',
      'IOT_PMS_TRUSTED_PROXIES=*',
      'IOT_PMS_LOG_LEVEL=loud',
      'DATABASE_URL',
      'IOT_PMS_ADMIN_EMAIL',
    ]) {
      expect(message).toContain(part)
    }
  })

  it('names the nearest setting for a misspelt one', () => {
    expect(refusal({ IOT_PMS_MQQT_PORT: '1883' })).toContain('Did you mean IOT_PMS_MQTT_PORT?')
  })

  it('closes a port that is empty or off, and takes a free one for 0 [E-1]', () => {
    expect(readConfig({ IOT_PMS_MQTT_PORT: '', IOT_PMS_HTTP_PORT: 'off' })).toMatchObject({ http: { port: 'off' }, mqtt: { port: 'off' } })
    expect(readConfig({ IOT_PMS_MQTT_PORT: '0' }).mqtt.port).toBe(0)
  })

  it('reads secrets from files, refuses both forms and files that others may read, and takes secrets out of the environment [SC-8, SC-3]', () => {
    const file = join(mkdtempSync('/tmp/iot-pms-config-'), 'password')
    writeFileSync(file, 'from the file\n', { mode: 0o600 })
    const environment: Record<string, string> = { IOT_PMS_ADMIN_EMAIL: 'a@b.c', IOT_PMS_ADMIN_PASSWORD_FILE: file, IOT_PMS_SECRET_KEY: 'k' }
    expect(readConfig(environment)).toMatchObject({ admin: { password: 'from the file' }, secretKey: 'k' })
    expect(environment).not.toHaveProperty('IOT_PMS_SECRET_KEY')
    expect(refusal({ IOT_PMS_ADMIN_EMAIL: 'a@b.c', IOT_PMS_ADMIN_PASSWORD_FILE: file, IOT_PMS_ADMIN_PASSWORD: 'x' })).toContain('both set')
    chmodSync(file, 0o644)
    expect(refusal({ IOT_PMS_ADMIN_EMAIL: 'a@b.c', IOT_PMS_ADMIN_PASSWORD_FILE: file })).toContain(`chmod 600 ${file}`)
    expect(refusal({ IOT_PMS_SECRET_KEY_FILE: '/nowhere' })).toContain('does not exist')
  })

  it('refuses unknown test hooks, and any in production [RE-20, RE-21]', () => {
    expect(readConfig({ IOT_PMS_TEST_HOOKS: 'ack-early' }).testHooks.has('ack-early')).toBe(true)
    expect(refusal({ IOT_PMS_TEST_HOOKS: 'lose-data' })).toContain('lose-data is not a hook')
    expect(refusal({ IOT_PMS_TEST_HOOKS: 'ack-early', IOT_PMS_PRODUCTION: '1' })).toContain('TEST_HOOKS_IN_PRODUCTION')
  })

  it('ends a public address with a slash and keeps its path', () => {
    expect(readConfig({ IOT_PMS_PUBLIC_URL: 'https://example.com/iot' }).publicUrl?.href).toBe('https://example.com/iot/')
    for (const url of ['https://u:p@example.com', 'https://example.com/?x=1', 'example.com']) {
      expect(refusal({ IOT_PMS_PUBLIC_URL: url }), url).not.toBe('accepted')
    }
  })
})
