// SPDX-License-Identifier: AGPL-3.0-only
import type { Clock } from '../../clock.ts'
import { mostWaitMs, rateReject } from '../rate-limits.ts'
import type { RateLimiter } from '../rate-limits.ts'
import type { Reject } from '../rejects.ts'
import type { RequestHandlers } from '../requests.ts'
import type { Sessions } from '../sessions.ts'
import { encodeSuback, encodeUnsuback, reason } from './answers.ts'
import type { Frame, Hold, Mistake } from './conversation.ts'
import type { DeviceConversation } from './device-conversation.ts'
import type { MqttLimits } from './limits.ts'
import { findOwnTopic, isFixedTopic } from './own-topics.ts'
import { isTopicAllowed, packetType, parsePacket, parsePublish } from './packets.ts'
import type { Publish } from './packets.ts'
import type { RequestRoom } from './request-room.ts'
import { grantFilters, releaseFilters } from './subscriptions.ts'
import { routeTopic } from './topics.ts'
import type { Route } from './topics.ts'

/** The part of a conversation that its packets need. */
type Live = Pick<DeviceConversation, 'session' | 'uplinks' | 'output'>

/** How long a session that knows no refusal is not read at most. */
const mostHoldMs = 60_000

/** One message of the gateway, whatever children it speaks of [§15.2]. */
const gatewayTelemetry = 'v1/gateway/telemetry'
const incomplete: Mistake = { code: reason.protocolError, detail: 'no packet id or no filter' }
const notGateway: Reject = { code: 'TOPIC_FORBIDDEN', detail: 'the device is not a gateway' }
const unknownTopic: Reject = { code: 'TOPIC_UNKNOWN', detail: 'no device topic has this name' }
const badId: Reject = { code: 'SHAPE_INVALID', detail: 'the topic needs a decimal number of at most 2147483647' }
/** Whatever topic it is: the device says itself which ones it uses. */
const announced: Route = { kind: 'discovery', form: 'v1', id: 0 }
const pingreq = 0xc0
const pingresp = Buffer.from([0xd0, 0])

type ServeContext = { clock: Clock; limits: MqttLimits; sessions: Sessions; requests: RequestHandlers; requestRoom: RequestRoom }

/** Serves one complete packet of an open session; tells when the session ends by it. */
export function servePacket(live: Live, { frame, type, bodyAt }: Frame, context: ServeContext): 'client' | Mistake | Hold | undefined {
  const { session, uplinks, output } = live
  if (type === packetType.publish) {
    const publish = parsePublish(frame, bodyAt, session.protocol)
    if (publish === undefined) return { code: reason.malformedPacket, detail: 'malformed PUBLISH', sample: frame }
    return servePublish(live, publish, context)
  }
  if (frame.length === 2 && frame[0] === pingreq) {
    output.add(pingresp)
    return undefined
  }
  if (type === packetType.auth) return { code: reason.protocolError, detail: 'enhanced authentication is not supported' }
  if (type === packetType.connect) return { code: reason.protocolError, detail: 'a second CONNECT' }
  const packet = parsePacket(frame, session.protocol)
  if (packet === undefined) return { code: reason.malformedPacket, detail: `malformed packet of type ${type}`, sample: frame }
  // Packet id 0 stands for none (MQTT 2.2.1), so a packet with a missing one looks the same.
  const messageId = packet.messageId ?? 0
  switch (packet.cmd) {
    case 'pubrel':
      uplinks.release(messageId)
      return undefined
    case 'subscribe':
      if (messageId === 0 || packet.subscriptions.length === 0) return incomplete
      if (packet.properties?.subscriptionIdentifier !== undefined) {
        return { code: reason.subscriptionIdsNotSupported, detail: 'subscription identifiers are not supported' }
      }
      return serveSubscribe(live, messageId, packet.subscriptions, context)
    case 'unsubscribe':
      if (messageId === 0 || packet.unsubscriptions.length === 0) return incomplete
      output.add(encodeUnsuback(messageId, releaseFilters(session.subscriptions, packet.unsubscriptions), session.protocol))
      return undefined
    case 'puback':
      session.acknowledge(messageId)
      return undefined
    case 'pubrec':
    case 'pubcomp':
      return undefined // Nothing of QoS 2 is sent to devices.
    case 'disconnect':
      return 'client'
    default:
      return { code: reason.protocolError, detail: `unexpected ${packet.cmd.toUpperCase()}` }
  }
}

function serveSubscribe(
  { session, output }: Live,
  messageId: number,
  asked: readonly { topic: string; qos: number }[],
  { sessions }: ServeContext,
): undefined {
  const { codes, granted } = grantFilters(session, asked)
  output.add(encodeSuback(messageId, codes, session.protocol))
  if (granted.length > 0) sessions.subscribed(session, granted)
}

function servePublish(live: Live, publish: Publish, context: ServeContext): Mistake | Hold | undefined {
  const { session, uplinks } = live
  const { clock, limits } = context
  if (publish.topicAlias !== undefined) return { code: reason.topicAliasInvalid, detail: 'topic aliases are not supported' }
  if (publish.known === undefined && !isTopicAllowed(publish.topic)) {
    return { code: reason.topicInvalid, detail: 'topic name: 1–512 bytes, at most 16 levels, no wildcard', sample: publish.payload }
  }
  const { settings, limits: rates } = session.device
  const kind = publish.known?.kind ?? findOwnTopic(settings.transport, publish.topic)
  const { requestRoom } = context
  if (kind === undefined && requestRoom.isFull) return { until: (goOn) => requestRoom.wait(goOn), thenCloses: false }
  const limiter = rates?.own
  if (limiter !== undefined && !uplinks.isRepeated(publish)) {
    const excess = serveExcess(live, publish, { limiter, isTelemetry: kind === 'telemetry' || publish.topic === gatewayTelemetry }, context)
    if (excess !== undefined) return excess === 'refused' ? undefined : excess
  }
  session.messagesIn++
  if (uplinks.isRepeated(publish)) {
    uplinks.repeat(publish)
    return undefined
  }
  const isOverQuota = publish.qos > 0 && session.protocol === 5 && uplinks.quotaUsed >= limits.inFlight
  if (isOverQuota || (publish.qos === 2 && uplinks.openQos2 >= limits.inFlight)) {
    return { code: reason.receiveMaximumExceeded, detail: `more than ${limits.inFlight} unacknowledged messages` }
  }
  if (kind !== undefined) uplinks.accept(publish, kind, clock.now())
  else serveRequest(live, publish, context)
  return undefined
}

/** What happens to a message that comes faster than its device may send, [Q-4]. */
function serveExcess(
  { session, uplinks }: Live,
  publish: Publish,
  { limiter, isTelemetry }: { limiter: RateLimiter; isTelemetry: boolean },
  { clock }: ServeContext,
): Mistake | Hold | 'refused' | undefined {
  const now = clock.monotonic()
  const excess = limiter.admit(isTelemetry, now)
  if (excess === undefined) return undefined
  const { waitMs } = excess
  if (waitMs <= mostWaitMs) return holdFor(waitMs, clock, false)
  const reject = rateReject(excess)
  if (session.protocol === 5 || publish.qos === 0) {
    session.messagesIn++
    uplinks.refuse(publish, reject)
    const isTooMuch = publish.qos > 0 && limiter.isOneTooMany(now)
    return isTooMuch ? { code: reason.messageRateTooHigh, detail: reject.detail, logCode: 'RATE_LIMITED' } : 'refused'
  }
  uplinks.record(reject, publish.payload, publish.topic, publish.packetId)
  return holdFor(Math.min(waitMs, mostHoldMs), clock, waitMs > mostHoldMs)
}

function holdFor(ms: number, clock: Clock, thenCloses: boolean): Hold {
  return { until: (goOn) => void clock.after(Math.ceil(ms), goOn), thenCloses }
}

/** A message that is neither telemetry nor client attributes. */
function serveRequest({ session, uplinks }: Live, publish: Publish, { clock, requests }: ServeContext): void {
  const { topic } = publish
  if (topic.startsWith('v1/gateway/') && !session.device.isGateway) return uplinks.refuse(publish, notGateway)
  const isAnnounced = session.device.settings.discovery !== 'off' && !isFixedTopic(topic)
  const route = isAnnounced ? announced : routeTopic(topic)
  if (route === 'bad_id') return uplinks.refuse(publish, badId)
  const handler = route === undefined ? undefined : requests[route.kind]
  if (route === undefined || handler === undefined) uplinks.refuse(publish, unknownTopic)
  else uplinks.request(publish, route, handler, clock.now())
}
