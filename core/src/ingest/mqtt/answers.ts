// SPDX-License-Identifier: AGPL-3.0-only
import { generate } from 'mqtt-packet'
import type { PayloadRules } from '../registry.ts'
import type { Reject, RejectCode } from '../rejects.ts'
import type { DisconnectReason } from '../sessions.ts'
import type { Outcome } from '../uplink.ts'
import type { Connect } from './connect.ts'
import type { MqttLimits } from './limits.ts'

/** MQTT 5 reason codes we send (MQTT 5 §2.4). */
export const reason = {
  success: 0x00,
  noSubscriptionExisted: 0x11,
  malformedPacket: 0x81,
  protocolError: 0x82,
  unsupportedVersion: 0x84,
  badClientId: 0x85,
  badCredentials: 0x86,
  notAuthorized: 0x87,
  serverUnavailable: 0x88,
  serverBusy: 0x89,
  serverShuttingDown: 0x8b,
  badAuthMethod: 0x8c,
  keepAliveTimeout: 0x8d,
  sessionTakenOver: 0x8e,
  filterInvalid: 0x8f,
  topicInvalid: 0x90,
  packetIdNotFound: 0x92,
  receiveMaximumExceeded: 0x93,
  topicAliasInvalid: 0x94,
  packetTooLarge: 0x95,
  messageRateTooHigh: 0x96,
  quotaExceeded: 0x97,
  administrativeAction: 0x98,
  payloadInvalid: 0x99,
  connectionRateExceeded: 0x9f,
  subscriptionIdsNotSupported: 0xa1,
} as const

/** Why a CONNECT is refused: code of MQTT 5, return code of 3.1 and 3.1.1, and the sentence (device API §2.3). */
export const connectRefusals = {
  bad_credentials: { v5: reason.badCredentials, v3: 5, text: 'unknown access token, or wrong user name or password' },
  unknown_client_id: { v5: reason.badClientId, v3: 2, text: 'unknown client id and no user name given' },
  nothing_given: { v5: reason.notAuthorized, v3: 5, text: 'no credentials given; send the access token as user name' },
  certificate: { v5: reason.notAuthorized, v3: 5, text: 'the client certificate is unknown, expired or revoked' },
  disabled: { v5: reason.notAuthorized, v3: 5, text: 'the device is disabled' },
  client_id_invalid: { v5: reason.badClientId, v3: 2, text: 'client id and user name: well-formed text of at most 256 characters' },
  client_id_missing: { v5: reason.badClientId, v3: 2, text: 'an empty client id needs clean session 1' },
  protocol_level: { v5: reason.unsupportedVersion, v3: 1, text: 'MQTT 3.1, 3.1.1 and 5 are served' },
  protocol_error: { v5: reason.protocolError, v3: 2, text: 'a property of CONNECT is not allowed' },
  auth_method: { v5: reason.badAuthMethod, v3: 5, text: 'enhanced authentication is not supported' },
  connect_rate: { v5: reason.connectionRateExceeded, v3: 3, text: 'the device connects too often' },
  starting: { v5: reason.serverUnavailable, v3: 3, text: 'the server is starting' },
  draining: { v5: reason.serverUnavailable, v3: 3, text: 'the server is stopping' },
  overloaded: { v5: reason.serverBusy, v3: 3, text: 'the server is overloaded, try again later' },
  full: { v5: reason.quotaExceeded, v3: 3, text: 'no more sessions can be opened' },
} as const

export type ConnectRefusal = keyof typeof connectRefusals

/** What happens to an uplink of QoS 1 or 2 in the end. */
export type Answer =
  | { do: 'acknowledge'; code: number; text?: string; rejected?: number }
  /** MQTT 3.1.1 has no way to say no but closing. */
  | { do: 'close' }
  | { do: 'nothing' }

/** Reason code of MQTT 5 for a message refused as a whole (device API §2.11). */
function refusalReason(code: RejectCode): number {
  switch (code) {
    case 'RPC_STALE':
      return reason.success
    case 'TOO_MANY_POINTS':
    case 'RATE_LIMITED':
    case 'DEVICE_LIMIT':
      return reason.quotaExceeded
    case 'TOPIC_UNKNOWN':
      return reason.topicInvalid
    case 'TOPIC_FORBIDDEN':
    case 'CHILD_FORBIDDEN':
      return reason.notAuthorized
    default:
      return reason.payloadInvalid
  }
}

/** By far the most frequent answer, so that it is no new object each time. */
const success: Answer = { do: 'acknowledge', code: reason.success }

const malformed: ReadonlySet<RejectCode> = new Set<RejectCode>(['PAYLOAD_MALFORMED', 'SHAPE_INVALID', 'DUPLICATE_KEY', 'JSON_TOO_DEEP'])

/** The answer to a message that was refused as a whole, by the table of device API §2.11. */
export function answerRefusal(reject: Reject, protocol: number, rules: PayloadRules): Answer {
  // A rate limit names itself.
  const text = reject.code === 'RATE_LIMITED' ? reject.detail : `${reject.code}: ${reject.detail}`
  if (protocol === 5) return { do: 'acknowledge', code: refusalReason(reject.code), text }
  const closes = reject.code === 'TOPIC_FORBIDDEN' || (malformed.has(reject.code) && !rules.ackInvalidPayload)
  return closes ? { do: 'close' } : success
}

/** The answer to a message the sink has settled. */
export function answerOutcome(outcome: Outcome, protocol: number, rules: PayloadRules): Answer {
  switch (outcome.status) {
    case 'unavailable':
      return { do: 'nothing' }
    case 'refused':
      return answerRefusal(outcome.reject, protocol, rules)
    case 'stored':
    case 'rejected': {
      const first = outcome.rejects[0]
      if (first === undefined || protocol !== 5) return success
      const code = outcome.status === 'stored' ? reason.success : refusalReason(first.code)
      const where = first.key === undefined ? '' : ` (key "${first.key.slice(0, 64).toWellFormed()}")`
      return { do: 'acknowledge', code, text: `${first.code}: ${first.detail}${where}`, rejected: outcome.rejects.length }
    }
  }
}

const v5 = { protocolVersion: 5 }

/** PUBACK or PUBREC of MQTT 5 with all it can say; without words when the client can't take that much. */
export function encodeExplainedAck(
  cmd: 'puback' | 'pubrec',
  messageId: number,
  answer: { code: number; text?: string; rejected?: number },
  client: { maxPacketSize: number; wantsProblems: boolean },
): Buffer {
  const properties = {
    ...(answer.text === undefined ? {} : { reasonString: answer.text.slice(0, 512) }),
    ...(answer.rejected === undefined ? {} : { userProperties: { rejected: String(answer.rejected) } }),
  }
  const full = client.wantsProblems ? generate({ cmd, messageId, reasonCode: answer.code, properties }, v5) : undefined
  return full !== undefined && full.length <= client.maxPacketSize ? full : generate({ cmd, messageId, reasonCode: answer.code }, v5)
}

export function encodeDisconnect(code: number, text: string, maxPacketSize: number): Buffer {
  const full = generate({ cmd: 'disconnect', reasonCode: code, properties: { reasonString: text } }, v5)
  return full.length <= maxPacketSize ? full : generate({ cmd: 'disconnect', reasonCode: code }, v5)
}

/** CONNACK that refuses; MQTT 5 also gets the sentence. */
export function encodeRefusal(refusal: ConnectRefusal, protocol: number): Buffer {
  const { v5: reasonCode, v3: returnCode, text } = connectRefusals[refusal]
  if (protocol < 5) return generate({ cmd: 'connack', returnCode, sessionPresent: false }, { protocolVersion: 4 })
  return generate({ cmd: 'connack', reasonCode, sessionPresent: false, properties: { reasonString: text } }, v5)
}

/** CONNACK that accepts [M-14]: `keepAliveS` is what we agree to. */
export function encodeAcceptance(connect: Connect, keepAliveS: number, limits: MqttLimits): Buffer {
  if (connect.protocol < 5) return generate({ cmd: 'connack', returnCode: 0, sessionPresent: false }, { protocolVersion: 4 })
  const properties = {
    receiveMaximum: limits.inFlight,
    maximumPacketSize: limits.payloadBytes + 4,
    retainAvailable: false,
    sharedSubscriptionAvailable: false,
    subscriptionIdentifiersAvailable: false,
    ...(connect.assignedClientId === undefined ? {} : { assignedClientIdentifier: connect.assignedClientId }),
    ...(keepAliveS === connect.keepAliveS ? {} : { serverKeepAlive: keepAliveS }),
    ...(connect.asksForExpiry ? { sessionExpiryInterval: 0 } : {}),
  }
  return generate({ cmd: 'connack', reasonCode: reason.success, sessionPresent: false, properties }, v5)
}

export function encodeSuback(messageId: number, granted: number[], protocol: number): Buffer {
  return generate({ cmd: 'suback', messageId, granted }, { protocolVersion: protocol })
}

export function encodeUnsuback(messageId: number, granted: number[], protocol: number): Buffer {
  return generate({ cmd: 'unsuback', messageId, granted: protocol === 5 ? granted : [] }, { protocolVersion: protocol })
}

/** How a session ends from our side: the code for MQTT 5, 3.1.1 sees the close only. */
export const closings: Record<DisconnectReason, { code: number; text: string }> = {
  client: { code: reason.success, text: '' },
  network: { code: reason.quotaExceeded, text: 'too much unsent data' },
  protocol: { code: reason.protocolError, text: 'protocol error' },
  keepalive: { code: reason.keepAliveTimeout, text: 'no packet within 1.5 times the keep-alive' },
  takeover: { code: reason.sessionTakenOver, text: 'another client connected with the credentials of this device' },
  admin: { code: reason.administrativeAction, text: 'closed by the server: device or credentials changed, or closed by a user' },
  shutdown: { code: reason.serverShuttingDown, text: 'the server is stopping' },
}
