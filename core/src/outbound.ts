// SPDX-License-Identifier: AGPL-3.0-only
import { lookup } from 'node:dns/promises'
import { connect as connectTcp, isIP } from 'node:net'
import type { Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { connect as connectTls } from 'node:tls'
import { ProblemError } from './errors.ts'
import { classifyAddress, isNamed, parseAllowEntry } from './outbound-addresses.ts'
import type { AddressClass, AllowEntry, OutboundPolicy } from './outbound-addresses.ts'

/** What is spoken there, which says the schemes and the ports that need no listing. */
export type OutboundKind = 'http' | 'smtp' | 'mqtt' | 'syslog'

export type Target = { kind: OutboundKind; /** A name, or an address without brackets. */ host: string; port: number }
/** A target after its one resolution: every one of its addresses was checked, and only these may be connected to. */
export type CheckedTarget = Target & { addresses: readonly string[] }

/** What TLS needs beside the address; the certificate is checked against `Target.host` always. */
export type OutboundTls = { /** PEM of the authorities to trust instead of the usual ones. */ ca?: string | undefined }

/** Stable reasons why a connection did not come about, apart from a blocked address. */
export type ConnectFailure = 'DNS_FAILED' | 'CONNECTION_REFUSED' | 'CONNECTION_TIMEOUT' | 'UNREACHABLE' | 'TLS_FAILED'

export class ConnectError extends Error {
  readonly reason: ConnectFailure

  constructor(reason: ConnectFailure, message: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'ConnectError'
    this.reason = reason
  }
}

const schemes: Record<OutboundKind, Readonly<Record<string, number>>> = {
  http: { 'http:': 80, 'https:': 443 },
  smtp: {},
  syslog: {},
  mqtt: { 'mqtt:': 1883, 'mqtts:': 8883, 'ws:': 80, 'wss:': 443 },
}
const webPorts = [80, 443, 8080, 8443]
const ports: Record<OutboundKind, readonly number[]> = {
  http: webPorts,
  smtp: [25, 465, 587, 2525],
  syslog: [514, 601, 6514],
  // 8083 and 8084 are where EMQX speaks WebSocket.
  mqtt: [...webPorts, 1883, 8883, 8083, 8084],
}

/** [SC-92] */
const dnsMs = 2000
const connectMs = 5000

const explanations: Record<AddressClass, string> = {
  loopback: 'it is this computer itself',
  private: 'it lies in a private network',
  link_local: 'it is link-local',
  metadata: 'it is a metadata service',
  multicast: 'it is multicast, broadcast or reserved',
  port: 'this port is not usual for the protocol',
  scheme: 'this scheme is not spoken here',
  credentials: 'give user and password in their own fields, not in the address',
}

/** @returns the error of a blocked address; its first detail has the class as `code` */
export function blockedError(addressClass: AddressClass, pointer = '/url'): ProblemError {
  const isListable = addressClass !== 'scheme' && addressClass !== 'credentials'
  const hint = isListable ? ' The host administrator may list it in IOT_PMS_OUTBOUND_ALLOW.' : ''
  return new ProblemError('OUTBOUND_URL_BLOCKED', {
    params: { class: addressClass },
    errors: [{ pointer, detail: `${explanations[addressClass]}.${hint}`, code: addressClass }],
  })
}

/** The class for which an address was blocked; undefined for any other error. */
export function blockedClass(error: unknown): AddressClass | undefined {
  if (!(error instanceof ProblemError) || error.code !== 'OUTBOUND_URL_BLOCKED') return undefined
  return error.errors?.[0]?.code as AddressClass | undefined
}

/**
 * The target of an address people have configured, by the URL rules of WHATWG.
 *
 * @throws {ProblemError} `OUTBOUND_URL_BLOCKED`: another scheme, user or password inside, or no URL at all
 */
export function parseTarget(text: string, kind: OutboundKind): Target & { url: URL } {
  // Only for the special schemes does the URL parser know hosts, so that it reads 0x7f.1 as the address it is.
  const isMqtt = /^mqtts?:\/\//i.test(text)
  const url = URL.parse(isMqtt ? text.replace(/^mqtt/i, 'http') : text)
  const scheme = isMqtt ? text.slice(0, text.indexOf(':') + 1).toLowerCase() : (url?.protocol ?? '')
  const usual = schemes[kind][scheme]
  if (!url || usual === undefined || url.hostname === '') throw blockedError('scheme')
  if (url.username || url.password) throw blockedError('credentials')
  const given = isMqtt ? portOf(text) : url.port
  return { kind, host: url.hostname.replace(/^\[|\]$/g, ''), port: given === '' ? usual : Number(given), url }
}

/** The port as it stands in the text: the parser drops those that are usual for its own scheme. */
function portOf(text: string): string {
  return /^[^/]*\/\/[^/?#]*?(?::(\d+))?(?:[/?#]|$)/.exec(text.replace(/\[[^\]]*\]/, 'v6'))?.[1] ?? ''
}

/**
 * The one way out: whoever connects to an address that people have configured asks here, and connects to what
 * was checked [SC-90].
 */
export class Outbound {
  readonly #policy: OutboundPolicy
  readonly #allow: readonly AllowEntry[]
  readonly #ownPorts: () => readonly number[]

  /** @param ownPorts ports this server listens on, where it must not call itself */
  constructor(config: { policy: OutboundPolicy; allow: readonly string[] }, ownPorts: () => readonly number[] = () => []) {
    this.#policy = config.policy
    this.#allow = config.allow.map(parseAllowEntry).filter((entry) => entry !== undefined)
    this.#ownPorts = ownPorts
  }

  /**
   * Resolves the name once and checks every address.
   *
   * @throws {ProblemError} `OUTBOUND_URL_BLOCKED` with the class
   * @throws {ConnectError} `DNS_FAILED`
   */
  async check(target: Target): Promise<CheckedTarget> {
    const addresses = isIP(target.host) ? [target.host] : await resolveName(target.host)
    for (const address of addresses) {
      const found = this.#judge(target, address)
      if (found) throw blockedError(found)
    }
    return { ...target, addresses }
  }

  /** As {@link check}, for an address that is only saved: a name that does not resolve at the moment is no reason to refuse it. */
  async checkSaved(target: Target): Promise<void> {
    await this.check(target).catch((error: unknown) => {
      if (!(error instanceof ConnectError)) throw error
    })
  }

  /**
   * A connection to one of the checked addresses, in plain TCP or through TLS whose certificate is that of the name.
   *
   * @throws {ProblemError} `OUTBOUND_URL_BLOCKED`
   * @throws {ConnectError}
   */
  async connect(target: Target, tls?: OutboundTls): Promise<Socket> {
    return connectTo(await this.check(target), tls)
  }

  /** To an address that the host administrator has set: nothing is checked. @throws {ConnectError} */
  async connectUnguarded(target: Target, tls?: OutboundTls): Promise<Socket> {
    return connectTo({ ...target, addresses: isIP(target.host) ? [target.host] : await resolveName(target.host) }, tls)
  }

  #judge({ kind, host, port }: Target, address: string): AddressClass | undefined {
    if (this.#allow.some((entry) => isNamed(entry, host.toLowerCase(), address, port))) return undefined
    const found = classifyAddress(address)
    if (found && !(found === 'private' && this.#policy === 'lan')) return found
    if (this.#isOwn(address, port)) return 'loopback'
    return ports[kind].includes(port) ? undefined : 'port'
  }

  #isOwn(address: string, port: number): boolean {
    if (!this.#ownPorts().includes(port)) return false
    return Object.values(networkInterfaces()).some((one) => one?.some((own) => own.address === address))
  }
}

/** The first of the addresses that answers. */
async function connectTo({ addresses, host, port }: CheckedTarget, tls: OutboundTls | undefined): Promise<Socket> {
  const until = Date.now() + connectMs
  let last: unknown
  for (const [index, host4or6] of addresses.entries()) {
    const share = Math.max(500, (until - Date.now()) / (addresses.length - index))
    try {
      return await open(host4or6, { host, port }, tls, share)
    } catch (error) {
      last = error
    }
  }
  throw last
}

async function resolveName(host: string): Promise<string[]> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new ConnectError('DNS_FAILED', 'the name was not resolved in time')), dnsMs)
  })
  try {
    const found = await Promise.race([lookup(host, { all: true, order: 'verbatim' }), late])
    return found.map(({ address }) => address)
  } catch (error) {
    if (error instanceof ConnectError) throw error
    throw new ConnectError('DNS_FAILED', 'the name does not resolve', error)
  } finally {
    clearTimeout(timer)
  }
}

function open(address: string, { host, port }: { host: string; port: number }, tls: OutboundTls | undefined, ms: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket =
      tls === undefined
        ? connectTcp({ host: address, port })
        : connectTls({ host: address, port, servername: isIP(host) ? '' : host, minVersion: 'TLSv1.2', ...(tls.ca ? { ca: tls.ca } : {}) })
    const give = (error: unknown) => {
      clearTimeout(timer)
      socket.destroy()
      reject(toConnectError(error, tls !== undefined))
    }
    const timer = setTimeout(() => give({ code: 'ETIMEDOUT' }), ms)
    socket.once('error', give)
    socket.once(tls === undefined ? 'connect' : 'secureConnect', () => {
      clearTimeout(timer)
      socket.off('error', give)
      socket.setNoDelay(true)
      resolve(socket)
    })
  })
}

function toConnectError(error: unknown, isTls: boolean): ConnectError {
  const { code = '', syscall } = error as { code?: string; syscall?: string }
  if (code === 'ECONNREFUSED') return new ConnectError('CONNECTION_REFUSED', 'nobody listens there', error)
  if (code === 'ETIMEDOUT') return new ConnectError('CONNECTION_TIMEOUT', 'no answer in time', error)
  // What is no fault of a system call comes from TLS itself: its alerts and the check of the certificate.
  if (isTls && syscall !== 'connect') {
    return new ConnectError('TLS_FAILED', `no secure connection: ${code || 'the other side broke off'}`, error)
  }
  return new ConnectError('UNREACHABLE', `no way there: ${code}`, error)
}
