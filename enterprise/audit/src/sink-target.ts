// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { problem } from '@iot-pms/core'
import type { ProblemError } from '@iot-pms/core'

/** The parts of an http address that the guard of outbound connections looks at. @throws {ProblemError} `AUDIT_SINK_ADDRESS` */
export function targetOf(text: string): { kind: 'http'; host: string; port: number; url: URL } {
  const url = URL.parse(text)
  if (!url || !['http:', 'https:'].includes(url.protocol) || url.username || url.password) {
    throw addressProblem('/target/url', 'an address with https or http, without user and password in it')
  }
  const port = url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port)
  return { kind: 'http', host: url.hostname.replace(/^\[|\]$/g, ''), port, url }
}

export function addressProblem(pointer: string, detail: string): ProblemError {
  return problem('AUDIT_SINK_ADDRESS', { errors: [{ pointer, detail }] })
}

/** RFC 1918, unique local and loopback: where the next hop is ours. */
export function isPrivateAddress(address: string): boolean {
  return /^(10\.|127\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|f[cd]|::1$)/i.test(address)
}
