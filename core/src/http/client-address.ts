// SPDX-License-Identifier: AGPL-3.0-only
import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'

/**
 * Address of a client that asks for another protocol, which Fastify does not see: that of the connection, or what the
 * proxies before us say where they are trusted.
 */
export function createAddressOf(trustedProxies: readonly string[]): (request: IncomingMessage) => string | undefined {
  const trusted = new BlockList()
  const family = (address: string) => (isIP(address) === 6 ? 'ipv6' : 'ipv4')
  for (const proxy of trustedProxies) {
    const [address = '', bits] = proxy.split('/')
    if (isIP(address) === 0) continue
    if (bits === undefined) trusted.addAddress(address, family(address))
    else trusted.addSubnet(address, Number(bits), family(address))
  }
  const isTrusted = (address: string) => isIP(address) !== 0 && trusted.check(address, family(address))
  return ({ headers, socket }) => {
    const { remoteAddress } = socket
    if (remoteAddress === undefined) return undefined
    const hops = [headers['x-forwarded-for'] ?? []].flat().flatMap((list) => list.split(','))
    const way = [...hops.map((hop) => plain(hop.trim())).filter(Boolean), plain(remoteAddress)]
    // From our end backwards: the first that is no proxy of ours.
    return way.findLast((address) => !isTrusted(address)) ?? way[0]
  }
}

function plain(address: string): string {
  return address.startsWith('::ffff:') ? address.slice(7) : address
}

/** `::ffff:192.0.2.1`, as dual-stack sockets give it, is 192.0.2.1. */
export function plainAddress(address: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address
}
