// SPDX-License-Identifier: AGPL-3.0-only
import { describe, expect, it } from 'vitest'
import { isLocal, maskToken, payloadKey, renderSnippets } from './snippets.ts'
import type { SnippetOptions } from './snippets.ts'

const options: SnippetOptions = {
  transport: 'mqtt',
  system: 'unix',
  host: 'iot.example',
  mqttPort: 1883,
  http: 'https://iot.example/base/',
  credentials: { type: 'access_token', token: 'tOkEn-1' },
  isGateway: false,
}
const code = (id: string, change: Partial<SnippetOptions> = {}) =>
  renderSnippets({ ...options, ...change }).find((one) => one.id === id)?.code

describe('the commands of the Connect panel', () => {
  it('are exactly those of the contract', () => {
    expect(code('mosquitto')).toBe(
      `mosquitto_pub -d -q 1 -h iot.example -p 1883 -u "tOkEn-1" -t v1/devices/me/telemetry -m '{"temperature":25.1}'`,
    )
    expect(code('mosquitto', { system: 'windows' })).toBe(
      'mosquitto_pub -d -q 1 -h iot.example -p 1883 -u "tOkEn-1" -t v1/devices/me/telemetry -m "{temperature:25.1}"',
    )
    expect(code('mqttx')).toBe(`mqttx pub -h iot.example -p 1883 -u "tOkEn-1" -q 1 -t v1/devices/me/telemetry -m '{"temperature":25.1}'`)
    expect(code('curl', { transport: 'http' })).toBe(
      `curl -sS -i -X POST "https://iot.example/base/api/v1/tOkEn-1/telemetry" -H "Content-Type: application/json" -d '{"temperature":25.1}'`,
    )
    expect(code('curl', { transport: 'http', system: 'windows' })).toBe(
      `Invoke-RestMethod -Method Post -Uri "https://iot.example/base/api/v1/tOkEn-1/telemetry" -ContentType "application/json" -Body '{"temperature":25.1}'`,
    )
    expect(code('node')).toContain("mqtt.connectAsync('mqtt://iot.example:1883', { username: 'tOkEn-1' })")
    expect(code('python')).toContain('client.connect("iot.example", 1883, keepalive=60)')
    expect(code('esp32')).toContain('snprintf(body, sizeof body, "{\\"temperature\\":%.1f}", 20 + random(100) / 10.0);')
  })

  it('use the first key of the product unless it would need quoting', () => {
    expect(code('mosquitto', { key: 'humidity' })).toContain(`'{"humidity":25.1}'`)
    expect(code('node', { key: 'humidity' })).toContain('JSON.stringify({ humidity })')
    for (const key of ['with space', '__proto__', 'class', 'a"b', '温度', undefined]) expect(payloadKey(key)).toBe('temperature')
  })

  it('give a gateway one more line', () => {
    expect(code('mosquitto', { isGateway: true })?.split('\n')[1]).toContain(
      `-t v1/gateway/telemetry -m '{"child-1":[{"temperature":25.1}]}'`,
    )
  })

  it('keep user names and passwords from breaking out of their quotes', () => {
    const credentials = { type: 'mqtt_basic' as const, clientId: 'c-1', userName: 'u"$(id)`', password: "p'\\" }
    expect(code('mosquitto', { credentials })).toContain('-u "u\\"\\$(id)\\`" -P "p\'\\\\" -i "c-1"')
    expect(code('node', { credentials })).toContain(`{ clientId: 'c-1', username: 'u"$(id)\`', password: 'p\\'\\\\' }`)
    expect(code('python', { credentials })).toContain('client.username_pw_set("u\\"$(id)`", "p\'\\\\")')
    expect(renderSnippets({ ...options, transport: 'http', credentials })).toEqual([])
  })

  it('ask for an address where the host is this machine only', () => {
    for (const host of ['localhost', '127.0.0.1', '[::1]']) expect(isLocal(host)).toBe(true)
    expect(isLocal('192.168.1.5')).toBe(false)
    expect(renderSnippets({ ...options, host: 'localhost' }).find((one) => one.id === 'esp32')?.note).toBe('needsAddress')
  })

  it('show the last four characters of a token', () => {
    expect(maskToken('abcdefgh')).toBe('••••efgh')
  })
})
