// SPDX-License-Identifier: AGPL-3.0-only
import { decodeAttributes } from '../ingest/codecs.ts'
import { defaultPayloadRules } from '../ingest/registry.ts'
import type { Reject } from '../ingest/rejects.ts'

/** What a device sends to get credentials [P-1]; absent members are undefined. */
export type ProvisionRequest = {
  deviceName: string | undefined
  provisionDeviceKey: string | undefined
  provisionDeviceSecret: string | undefined
  credentialsType: 'ACCESS_TOKEN' | 'MQTT_BASIC' | 'X509_CERTIFICATE'
  token: string | undefined
  clientId: string | undefined
  username: string | undefined
  password: string | undefined
  hash: string | undefined
  gateway: boolean
}

const credentialsTypes = ['ACCESS_TOKEN', 'MQTT_BASIC', 'X509_CERTIFICATE'] as const
/** The device has no product yet whose rules could say anything else; text stays text. */
const rules = { ...defaultPayloadRules, castNumericStrings: false }

/** Reads a request for provisioning; the reason when it is none. Its detail tells nothing of what was sent [P-6]. */
export function parseProvisionRequest(payload: Buffer): ProvisionRequest | Reject {
  const decoded = decodeAttributes(payload, rules)
  if ('refused' in decoded) return { code: decoded.refused.code, detail: 'expected one JSON object' }
  const members = new Map(decoded.attributes.map((one) => [one.key, one]))
  let isWrong = false
  const text = (name: string): string | undefined => {
    const member = members.get(name)
    if (decoded.rejects.some(({ key }) => key === name) || (member !== undefined && member.kind !== 'string')) isWrong = true
    return member?.kind === 'string' ? member.value : undefined
  }
  const request = {
    deviceName: text('deviceName'),
    provisionDeviceKey: text('provisionDeviceKey'),
    provisionDeviceSecret: text('provisionDeviceSecret'),
    token: text('token'),
    clientId: text('clientId'),
    username: text('username'),
    password: text('password'),
    hash: text('hash'),
  }
  const asked = text('credentialsType') ?? 'ACCESS_TOKEN'
  const credentialsType = credentialsTypes.find((one) => one === asked)
  if (credentialsType === undefined) return { code: 'SHAPE_INVALID', detail: `credentialsType is one of ${credentialsTypes.join(', ')}` }
  const gateway = members.get('gateway')
  if (gateway !== undefined && gateway.kind !== 'boolean') return { code: 'SHAPE_INVALID', detail: 'gateway is true or false' }
  if (isWrong) return { code: 'SHAPE_INVALID', detail: 'each member but gateway is a text' }
  return { ...request, credentialsType, gateway: gateway?.value === true }
}
