// SPDX-License-Identifier: AGPL-3.0-only
import { BlockList, isIP } from 'node:net'

/** Why an address may not be reached; the first four classes win over the others. */
export type AddressClass = 'loopback' | 'private' | 'link_local' | 'metadata' | 'multicast' | 'port' | 'scheme' | 'credentials'

export type OutboundPolicy = 'lan' | 'public'

type Net = readonly [network: string, prefix: number]
const v4 = (...nets: Net[]) => listOf('ipv4', nets)
const v6 = (...nets: Net[]) => listOf('ipv6', nets)

function listOf(family: 'ipv4' | 'ipv6', nets: readonly Net[]): BlockList {
  const list = new BlockList()
  for (const [network, prefix] of nets) list.addSubnet(network, prefix, family)
  return list
}

/** Looked through in order, since metadata services lie inside other ranges. */
const classes4: readonly [AddressClass, BlockList][] = [
  ['metadata', v4(['169.254.169.254', 32], ['100.100.100.200', 32], ['192.0.0.192', 32])],
  ['loopback', v4(['127.0.0.0', 8], ['0.0.0.0', 8])],
  ['link_local', v4(['169.254.0.0', 16])],
  // Beside multicast what is reserved, the broadcast address within it.
  ['multicast', v4(['224.0.0.0', 4], ['240.0.0.0', 4])],
  // RFC 1918, carrier NAT, protocol assignments and benchmarks.
  ['private', v4(['10.0.0.0', 8], ['172.16.0.0', 12], ['192.168.0.0', 16], ['100.64.0.0', 10], ['192.0.0.0', 24], ['198.18.0.0', 15])],
]
const classes6: readonly [AddressClass, BlockList][] = [
  ['metadata', v6(['fd00:ec2::254', 128])],
  ['loopback', v6(['::1', 128], ['::', 128])],
  ['link_local', v6(['fe80::', 10])],
  ['multicast', v6(['ff00::', 8])],
  ['private', v6(['fc00::', 7], ['fec0::', 10], ['100::', 64])],
]

/** Forms of IPv6 that carry an IPv4 address: where its four bytes stand. */
const carriers: readonly [BlockList, number][] = [
  [v6(['::', 96], ['::ffff:0:0', 96], ['::ffff:0:0:0', 96], ['64:ff9b::', 96], ['64:ff9b:1::', 48]), 12],
  [v6(['2002::', 16]), 2],
]

/** The class of an IP address, or undefined when anybody may be reached there. What {@link OutboundPolicy} allows of `private` is not looked at. */
export function classifyAddress(address: string): AddressClass | undefined {
  if (isIP(address) === 4) return classes4.find(([, list]) => list.check(address, 'ipv4'))?.[0]
  const plain = address.replace(/%.*$/, '')
  if (isIP(plain) !== 6) return 'loopback'
  const own = classes6.find(([, list]) => list.check(plain, 'ipv6'))?.[0]
  if (own) return own
  const at = carriers.find(([list]) => list.check(plain, 'ipv6'))?.[1]
  return at === undefined
    ? undefined
    : classifyAddress(
        bytesOf(plain)
          .slice(at, at + 4)
          .join('.'),
      )
}

/** The 16 bytes of an IPv6 address that is known to be one. */
function bytesOf(address: string): number[] {
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address)
  const hex = (high: string, low: string) => ((Number(high) << 8) | Number(low)).toString(16)
  const text = dotted ? `${dotted[1]}${hex(dotted[2]!, dotted[3]!)}:${hex(dotted[4]!, dotted[5]!)}` : address
  const [head = '', tail] = text.split('::')
  const groups = (part: string) => (part === '' ? [] : part.split(':'))
  const front = groups(head)
  const back = groups(tail ?? '')
  const zeros = Array.from({ length: tail === undefined ? 0 : 8 - front.length - back.length }, () => '0')
  return [...front, ...zeros, ...back].flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff])
}

/** One entry of IOT_PMS_OUTBOUND_ALLOW; without a port it opens all of them. */
export type AllowEntry = { port: number | undefined } & ({ host: string } | { list: BlockList })

/** `host[:port]` or `CIDR[:port]`, IPv6 with a port in brackets; undefined when it is neither. */
export function parseAllowEntry(text: string): AllowEntry | undefined {
  const [, bracketed, plain = '', portText] = /^(?:\[([^\]]+)\]|([^[\]]*?))(?::(\d{1,5}))?$/.exec(isBareV6(text) ? `[${text}]` : text) ?? []
  const port = portText === undefined ? undefined : Number(portText)
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined
  const name = bracketed ?? plain
  const [network = '', prefixText] = name.split('/')
  const family = isIP(network)
  if (family === 0) return /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$/.test(name) ? { host: name.toLowerCase(), port } : undefined
  const longest = family === 4 ? 32 : 128
  const prefix = prefixText === undefined ? longest : /^\d{1,3}$/.test(prefixText) ? Number(prefixText) : Number.NaN
  if (!(prefix <= longest)) return undefined
  return { list: family === 4 ? v4([network, prefix]) : v6([network, prefix]), port }
}

function isBareV6(text: string): boolean {
  return isIP(text.split('/')[0] ?? '') === 6
}

/** Whether the entry is about this name, or about this address. */
export function isNamed(entry: AllowEntry, host: string, address: string, port: number): boolean {
  if (entry.port !== undefined && entry.port !== port) return false
  if ('host' in entry) return entry.host === host
  return entry.list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}
