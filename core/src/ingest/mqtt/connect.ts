// SPDX-License-Identifier: AGPL-3.0-only
import { randomInt } from 'node:crypto'
import type { X509Certificate } from 'node:crypto'
import type { IConnectPacket } from 'mqtt-packet'
import type { Device } from '../registry.ts'
import type { ConnectRefusal } from './answers.ts'
import { hasRepeated, parseConnect } from './packets.ts'

export type Credentials = {
  clientId: string
  /** Absent and empty are the same. */
  userName: string | undefined
  password: Buffer | undefined
  /** Of the handshake of TLS; its key is proven to be the client's. */
  certificate?: ClientCertificate | undefined
}

/** What a client showed in the handshake: its certificate, and those it brought along to explain that one. */
export type ClientCertificate = { leaf: X509Certificate; others: readonly X509Certificate[] }

export type LoginRefusal = 'bad_credentials' | 'unknown_client_id' | 'nothing_given' | 'certificate' | 'disabled' | 'starting'

/** Result of looking credentials up (device API §2.2); `device` of a refusal only says whose they nearly were. */
export type Authentication = { status: 'ok'; device: Device } | { status: 'refused'; reason: LoginRefusal; device?: Device }

/** A CONNECT that may be authenticated. */
export type Connect = {
  protocol: 3 | 4 | 5
  credentials: Credentials
  /** Client id of the session: the given one, or the one assigned to an MQTT 5 client [M-4]. */
  clientId: string
  assignedClientId: string | undefined
  /** What the client asked for; the session may get less [M-15]. */
  keepAliveS: number
  maxPacketSize: number
  /** Unacknowledged messages the client takes (MQTT 5 §3.1.2.11.3). */
  receiveMaximum: number
  wantsProblems: boolean
  asksForExpiry: boolean
}

export type JudgedConnect =
  | { status: 'ok'; connect: Connect }
  | { status: 'refused'; protocol: number; refusal: ConnectRefusal; credentials?: Credentials }
  | { status: 'malformed' }

const maxNameLength = 256
const base62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** Judges a CONNECT by all that needs no credentials [M-1], [M-4]…[M-6]. */
export function judgeConnect(frame: Buffer, bodyAt: number): JudgedConnect {
  const level = readLevel(frame, bodyAt)
  if (level === undefined) return { status: 'malformed' }
  if (!level.isServed) return { status: 'refused', protocol: level.level, refusal: 'protocol_level' }
  const protocol = level.level === 3 ? 3 : level.level === 4 ? 4 : 5
  const packet = parseConnect(frame)
  if (packet === 'malformed') return { status: 'malformed' }
  if (packet === 'bad_text') return { status: 'refused', protocol, refusal: 'client_id_invalid' }
  const credentials = {
    clientId: packet.clientId,
    userName: packet.username === '' ? undefined : packet.username,
    password: packet.password,
  }
  const refuse = (refusal: ConnectRefusal): JudgedConnect => ({ status: 'refused', protocol, refusal, credentials })
  const { properties } = packet
  if (properties?.authenticationMethod !== undefined) return refuse('auth_method')
  if (hasBadProperty(properties)) return refuse('protocol_error')
  if (!isNameAllowed(credentials.clientId) || !isNameAllowed(credentials.userName ?? '')) return refuse('client_id_invalid')
  if (protocol < 5 && credentials.clientId === '' && packet.clean === false) return refuse('client_id_missing')
  const assignedClientId = protocol === 5 && credentials.clientId === '' ? makeClientId() : undefined
  return {
    status: 'ok',
    connect: {
      protocol,
      credentials,
      clientId: assignedClientId ?? credentials.clientId,
      assignedClientId,
      keepAliveS: packet.keepalive ?? 0,
      maxPacketSize: properties?.maximumPacketSize ?? Number.POSITIVE_INFINITY,
      receiveMaximum: properties?.receiveMaximum ?? 65_535,
      wantsProblems: properties?.requestProblemInformation !== false,
      asksForExpiry: (properties?.sessionExpiryInterval ?? 0) > 0,
    },
  }
}

/** Protocol level of a CONNECT; `undefined` when this is not MQTT at all. */
function readLevel(frame: Buffer, bodyAt: number): { level: number; isServed: boolean } | undefined {
  if (frame.length < bodyAt + 2) return undefined
  const levelAt = bodyAt + 2 + frame.readUInt16BE(bodyAt)
  const level = frame[levelAt]
  if (level === undefined) return undefined
  const name = frame.toString('latin1', bodyAt + 2, levelAt)
  if (name !== 'MQTT' && name !== 'MQIsdp') return undefined
  return { level, isServed: name === 'MQTT' ? level === 4 || level === 5 : level === 3 }
}

/** Properties a client must not send (MQTT 5 §3.1.2.11). */
function hasBadProperty(properties: IConnectPacket['properties']): boolean {
  if (properties === undefined) return false
  return (
    hasRepeated(properties) ||
    properties.receiveMaximum === 0 ||
    properties.maximumPacketSize === 0 ||
    properties.authenticationData !== undefined
  )
}

function isNameAllowed(name: string): boolean {
  return name.length <= maxNameLength || (name.length <= 2 * maxNameLength && [...name].length <= maxNameLength)
}

function makeClientId(): string {
  return `auto-${Array.from({ length: 22 }, () => base62[randomInt(base62.length)]).join('')}`
}
