// SPDX-License-Identifier: AGPL-3.0-only
import { generate } from 'mqtt-packet'
import type { Packet } from 'mqtt-packet'
import { mutatePacket, mutateText } from '../../core/src/ingest/mqtt/testing-mutations.ts'
import type { Pick } from '../../core/src/ingest/mqtt/testing-mutations.ts'

/** What every part of the device API takes, well-formed: topic and payload. */
const deviceUplinks: readonly (readonly [topic: string, payload: string])[] = [
  ['v1/devices/me/telemetry', '{"a":1,"b":"x","c":[1,{"d":null}],"e":9007199254740993}'],
  ['v1/devices/me/telemetry', '[{"ts":1763690000000,"values":{"a":1.5,"b":true}},{"f":1e3}]'],
  ['v2/t', '{temperature:25}'],
  ['v2/t/j', "{'ts':'1763690000001','values':{'g':'007'}}"],
  ['v1/devices/me/attributes', '{"model":"m","n":1}'],
  ['v2/a/j', '{"firmware":{"version":"1.2.3"}}'],
  ['v1/devices/me/attributes/request/1', '{"clientKeys":"model,n","sharedKeys":"interval"}'],
  ['v2/a/req/j/2', '{"clientKeys":["model"],"sharedKeys":[]}'],
  ['v1/devices/me/rpc/request/1', '{"method":"getSessionLimits","params":{}}'],
  ['v2/r/req/3', '{"method":"getServerTime","params":null}'],
  ['v1/devices/me/rpc/response/1', '{"done":true}'],
  ['v2/r/res/j/1', '[1,2]'],
  ['v1/devices/me/claim', '{"secretKey":"x","durationMs":60000}'],
  ['v2/fw/request/1/chunk/0', '512'],
  ['v2/fw/request/2/chunk/1', ''],
  ['v2/sw/request/1/chunk/0', '512'],
  ['homeassistant/sensor/fuzz/config', '{"name":"t","state_topic":"fuzz/state","value_template":"{{ value_json.t }}"}'],
  ['fuzz/state', '{"t":1}'],
  ['no/such/topic', '{}'],
]
const gatewayUplinks: typeof deviceUplinks = [
  ['v1/gateway/connect', '{"device":"fuzz child 1","type":"fuzz type"}'],
  ['v1/gateway/disconnect', '{"device":"fuzz child 1"}'],
  ['v1/gateway/telemetry', '{"fuzz child 1":[{"ts":1763690000000,"values":{"a":1}},{"b":2}],"fuzz child 2":{"c":[3]}}'],
  [
    'v1/gateway/telemetry',
    '{"fuzz child 3":[{"a":1,"metadata":{"connector":"modbus","receivedTs":1763690000000,"publishedTs":1763690000001}}]}',
  ],
  ['v1/gateway/attributes', '{"fuzz child 1":{"model":"m"},"fuzz child 2":{}}'],
  ['v1/gateway/attributes/request', '{"id":1,"device":"fuzz child 1","client":true,"keys":["model","n"]}'],
  ['v1/gateway/rpc', '{"device":"fuzz child 1","id":1,"data":{"ok":true}}'],
  ['v1/gateway/claim', '{"fuzz child 1":{"secretKey":"x","durationMs":60000}}'],
]
const filters = [
  'v1/devices/me/attributes',
  'v1/devices/me/attributes/response/+',
  'v1/devices/me/rpc/request/+',
  'v2/fw/response/+/chunk/+',
  'v1/gateway/rpc',
  '#',
  '$share/a/b',
]

export type FuzzSender = {
  protocol: 4 | 5
  kind: 'device' | 'gateway' | 'provision' | 'stranger'
  /** User name of the CONNECT. */
  user: string
}
export type ProvisionKeys = { provisionDeviceKey: string; provisionDeviceSecret: string }

export type Conversation = { packets: Buffer[]; damaged: number }

/** What one connection sends: a CONNECT and what follows, some of it damaged. */
export function makeConversation(sender: FuzzSender, keys: ProvisionKeys, pick: Pick): Conversation {
  const connect = encode(sender, {
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: sender.protocol,
    clean: true,
    clientId: `fuzz-${pick(1000)}`,
    keepalive: 60,
    username: sender.user,
  })
  const conversation = { packets: [] as Buffer[], damaged: 0 }
  add(conversation, connect, pick(8) === 0 ? mutatePacket(connect, pick) : connect)
  for (let left = 4 + pick(16); left > 0; left--) addPacket(conversation, sender, keys, pick)
  return conversation
}

function add(conversation: Conversation, whole: Buffer, packet: Buffer): void {
  conversation.packets.push(packet)
  if (!packet.equals(whole)) conversation.damaged++
}

function addPacket(conversation: Conversation, sender: FuzzSender, keys: ProvisionKeys, pick: Pick): void {
  const messageId = 1 + pick(200)
  const kind = pick(14)
  if (kind > 3) return addPublish(conversation, sender, keys, messageId, pick)
  const packets: Packet[] = [
    { cmd: 'subscribe', messageId, subscriptions: [{ topic: any(filters, pick), qos: 1 }] },
    { cmd: 'unsubscribe', messageId, unsubscriptions: [any(filters, pick)] },
    { cmd: pick(2) === 0 ? 'pubrel' : 'puback', messageId, reasonCode: 0 },
    pick(6) === 0 ? { cmd: 'disconnect', reasonCode: 0 } : { cmd: 'pingreq' },
  ]
  const packet = encode(sender, packets[kind]!)
  add(conversation, packet, pick(3) === 0 ? mutatePacket(packet, pick) : packet)
}

/** Damaged as a packet, in its payload, or in its topic. */
function addPublish(conversation: Conversation, sender: FuzzSender, keys: ProvisionKeys, messageId: number, pick: Pick): void {
  const [topic, payload] = uplinkOf(sender, keys, pick)
  const qos = pick(3) as 0 | 1 | 2
  const retain = pick(20) === 0
  const make = (to: string, text: string | Buffer) =>
    encode(sender, { cmd: 'publish', topic: to, payload: text, qos, messageId, dup: false, retain })
  const whole = make(topic, payload)
  const form = pick(12)
  if (form === 0) return add(conversation, whole, mutatePacket(whole, pick))
  if (form === 1) return add(conversation, whole, make(plainTopic(mutateText(topic, pick)), payload))
  add(conversation, whole, form < 7 ? make(topic, mutateText(payload, pick)) : whole)
}

/** A topic that the encoder lets pass: the damaged bytes go in as packets. */
function plainTopic(bytes: Buffer): string {
  return bytes.toString('latin1').replaceAll(/[^ -~]|[+#]/g, '_') || '_'
}

function uplinkOf({ kind }: FuzzSender, keys: ProvisionKeys, pick: Pick): readonly [topic: string, payload: string] {
  if (kind === 'provision') return ['/provision/request', JSON.stringify({ deviceName: `fuzz provisioned ${pick(40)}`, ...keys })]
  // A plain device on the topics of gateways is refused: that is a path too.
  const isGateway = kind === 'gateway' ? pick(3) > 0 : pick(20) === 0
  return any(isGateway ? gatewayUplinks : deviceUplinks, pick)
}

function encode({ protocol }: FuzzSender, packet: Packet): Buffer {
  return generate(packet, { protocolVersion: protocol })
}

function any<T>(list: readonly T[], pick: Pick): T {
  return list[pick(list.length)]!
}
