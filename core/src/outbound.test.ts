// SPDX-License-Identifier: AGPL-3.0-only
import { createServer } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readConfig } from './config.ts'
import { classifyAddress, parseAllowEntry } from './outbound-addresses.ts'
import { ConnectError, Outbound, blockedClass, parseTarget } from './outbound.ts'
import type { Target } from './outbound.ts'

const lan = new Outbound({ policy: 'lan', allow: [] })
const open = new Outbound({ policy: 'public', allow: [] })

async function judge(outbound: Outbound, url: string, kind: 'http' | 'mqtt' = 'http'): Promise<string> {
  try {
    await outbound.check(parseTarget(url, kind))
    return 'ok'
  } catch (error) {
    if (error instanceof ConnectError) return error.reason
    const found = blockedClass(error)
    if (!found) throw error
    return found
  }
}

describe('addresses people configure [SC-90]', () => {
  it.each([
    ['127.0.0.1', 'loopback'],
    ['127.255.0.1', 'loopback'],
    ['0.0.0.0', 'loopback'],
    ['::1', 'loopback'],
    ['::', 'loopback'],
    ['169.254.1.1', 'link_local'],
    ['fe80::1', 'link_local'],
    ['fe80::1%eth0', 'link_local'],
    ['169.254.169.254', 'metadata'],
    ['100.100.100.200', 'metadata'],
    ['192.0.0.192', 'metadata'],
    ['fd00:ec2::254', 'metadata'],
    ['224.0.0.1', 'multicast'],
    ['255.255.255.255', 'multicast'],
    ['ff02::1', 'multicast'],
    ['10.1.2.3', 'private'],
    ['172.31.0.1', 'private'],
    ['192.168.1.1', 'private'],
    ['100.64.0.1', 'private'],
    ['fd12:3456::1', 'private'],
    ['::ffff:127.0.0.1', 'loopback'],
    ['::ffff:7f00:1', 'loopback'],
    ['::ffff:a9fe:a9fe', 'metadata'],
    ['::127.0.0.1', 'loopback'],
    ['64:ff9b::7f00:1', 'loopback'],
    ['64:ff9b::10.0.0.1', 'private'],
    ['64:ff9b:1::169.254.169.254', 'metadata'],
    ['2002:7f00:1::', 'loopback'],
    ['8.8.8.8', undefined],
    ['172.32.0.1', undefined],
    ['2606:4700::1111', undefined],
    ['64:ff9b::8.8.8.8', undefined],
  ])('puts %s into its class', (address, expected) => {
    expect(classifyAddress(address)).toBe(expected)
  })

  it('lets private networks be reached in a LAN and not from a public server', async () => {
    expect(await judge(lan, 'http://192.168.1.9/')).toBe('ok')
    expect(await judge(open, 'http://192.168.1.9/')).toBe('private')
    expect(await judge(open, 'mqtt://10.0.0.5', 'mqtt')).toBe('private')
    expect(await judge(open, 'https://8.8.8.8/')).toBe('ok')
  })

  it('reads addresses in every spelling of URLs, also with the schemes of MQTT [S-15]', async () => {
    for (const url of ['http://2130706433/', 'http://0x7f.1/', 'http://0177.0.0.1/', 'http://[::ffff:127.0.0.1]:8080/', 'http://127.1/']) {
      expect(await judge(lan, url), url).toBe('loopback')
      expect(await judge(lan, url.replace('http', 'mqtt').replace(':8080', ':1883'), 'mqtt'), url).toBe('loopback')
    }
    expect(await judge(lan, 'http://169.254.169.254/latest')).toBe('metadata')
    expect(await judge(lan, 'http://localhost/')).toBe('loopback')
    expect(await judge(lan, 'mqtts://LOCALHOST', 'mqtt')).toBe('loopback')
  })

  it('refuses other schemes, credentials in the address and unusual ports; the class of the address comes first', async () => {
    expect(await judge(lan, 'ftp://8.8.8.8/')).toBe('scheme')
    expect(await judge(lan, 'http://8.8.8.8/', 'mqtt')).toBe('scheme')
    expect(await judge(lan, 'mqtt://8.8.8.8')).toBe('scheme')
    expect(await judge(lan, 'nonsense', 'mqtt')).toBe('scheme')
    expect(await judge(lan, 'mqtt://', 'mqtt')).toBe('scheme')
    expect(await judge(lan, 'mqtt://a:b@8.8.8.8', 'mqtt')).toBe('credentials')
    expect(await judge(lan, 'http://8.8.8.8:22/')).toBe('port')
    expect(await judge(lan, 'http://127.0.0.1:22/')).toBe('loopback')
  })

  it('keeps the port that was written, also where it is usual for another scheme', () => {
    const port = (url: string) => parseTarget(url, 'mqtt').port
    expect(port('mqtt://broker')).toBe(1883)
    expect(port('mqtts://broker')).toBe(8883)
    expect(port('mqtt://broker:80')).toBe(80)
    expect(port('mqtts://[2606:4700::1111]:443/')).toBe(443)
    expect(port('ws://broker/mqtt')).toBe(80)
    expect(port('wss://broker:8084/mqtt')).toBe(8084)
    expect(parseTarget('mqtts://[2606:4700::1111]:443/', 'mqtt').host).toBe('2606:4700::1111')
  })

  it('opens what the host administrator lists, and nothing beside it', async () => {
    const listed = new Outbound({ policy: 'public', allow: ['127.0.0.1:1883', '10.1.0.0/16', 'localhost:8883', '[fd00::1]:1884'] })
    expect(await judge(listed, 'mqtt://127.0.0.1', 'mqtt')).toBe('ok')
    expect(await judge(listed, 'mqtt://127.0.0.1:8883', 'mqtt')).toBe('loopback')
    expect(await judge(listed, 'mqtt://127.0.0.2', 'mqtt')).toBe('loopback')
    expect(await judge(listed, 'mqtt://10.1.255.1:4242', 'mqtt')).toBe('ok')
    expect(await judge(listed, 'mqtt://10.2.0.1', 'mqtt')).toBe('private')
    expect(await judge(listed, 'mqtts://localhost', 'mqtt')).toBe('ok')
    expect(await judge(listed, 'mqtt://[fd00::1]:1884', 'mqtt')).toBe('ok')
  })

  it('does not call its own ports by the address of an interface', async () => {
    const own = Object.values(networkInterfaces())
      .flatMap((one) => one ?? [])
      .find(({ address, internal, family }) => !internal && family === 'IPv4' && classifyAddress(address) !== 'link_local')
    if (!own) return
    const outbound = new Outbound({ policy: 'lan', allow: [] }, () => [8080])
    expect(await judge(outbound, `http://${own.address}:8080/`)).toBe('loopback')
    expect(await judge(outbound, `http://${own.address}/`)).toBe('ok')
  })

  it('says which entries of the list are none at the start', () => {
    for (const entry of ['10.0.0.0/33', 'a b', 'x:99999', '[::1', '1.2.3.4/x']) expect(parseAllowEntry(entry), entry).toBeUndefined()
    expect(() => readConfig({ IOT_PMS_OUTBOUND_ALLOW: '10.0.0.0/99', IOT_PMS_OUTBOUND_POLICY: 'world' })).toThrow(/2 problems/)
    expect(readConfig({}).outbound).toEqual({ policy: 'lan', allow: [] })
  })
})

describe('outbound connections', () => {
  let server: Server
  let target: Target
  const outbound = new Outbound({ policy: 'public', allow: ['127.0.0.0/8', 'localhost'] })
  beforeAll(async () => {
    server = createServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end('hello'),
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    target = { kind: 'mqtt', host: 'localhost', port: (server.address() as AddressInfo).port }
  })
  afterAll(() => void server.close())

  it('go to a checked address of the name', async () => {
    const socket = await outbound.connect(target)
    const text = await new Promise((resolve) => socket.once('data', (data) => resolve(String(data))))
    expect(text).toBe('hello')
    socket.destroy()
  })

  it('end with a reason of a fixed list', async () => {
    const reason = (wanted: Promise<unknown>) => wanted.catch((error: unknown) => (error as ConnectError).reason)
    expect(await reason(outbound.connect(target, {}))).toBe('TLS_FAILED')
    expect(await reason(outbound.connect({ kind: 'mqtt', host: 'no-such-name.invalid', port: 1883 }))).toBe('DNS_FAILED')
    const port = (server.address() as AddressInfo).port
    await new Promise((resolve) => server.close(resolve))
    expect(await reason(outbound.connect({ ...target, port }))).toBe('CONNECTION_REFUSED')
  })

  it('are not made to a name that resolves to something blocked', async () => {
    const strict = new Outbound({ policy: 'lan', allow: [] })
    expect(blockedClass(await strict.connect(target).catch((error: unknown) => error))).toBe('loopback')
  })
})
