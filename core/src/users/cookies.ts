// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Config } from '../config.ts'
import { ProblemError } from '../errors.ts'
import { isEqual } from '../secrets.ts'
import type { Secrets } from '../secrets.ts'
import { refreshIdleMs } from './sessions.ts'

const knownDeviceMs = 180 * 86_400_000

/** Whether the browser at the other end speaks https, also through a proxy that does not say so. */
export function isHttps(request: FastifyRequest, config: Config): boolean {
  return request.protocol === 'https' || (config.publicUrl?.protocol === 'https:' && request.host === config.publicUrl.host)
}

/** [SC-13] Plain http to anything but this very machine. */
export function isInsecure(request: FastifyRequest, config: Config): boolean {
  return !isHttps(request, config) && !/^(localhost|127\.\d+\.\d+\.\d+|\[?::1\]?)$/i.test(request.hostname)
}

/** [SC-23] Only the name of the own scheme is read: a cookie planted over plain http never counts on https. */
function refreshName(request: FastifyRequest, config: Config): string {
  return isHttps(request, config) ? '__Host-iot_pms_refresh' : 'iot_pms_refresh'
}

export function readRefreshCookie(request: FastifyRequest, config: Config): string | undefined {
  return request.cookies[refreshName(request, config)]
}

export function setRefreshCookie(request: FastifyRequest, reply: FastifyReply, config: Config, token: string): void {
  reply.setCookie(refreshName(request, config), token, { ...attributes(request, config), maxAge: refreshIdleMs / 1000 })
}

export function clearRefreshCookie(request: FastifyRequest, reply: FastifyReply, config: Config): void {
  reply.clearCookie(refreshName(request, config), attributes(request, config))
}

function attributes(request: FastifyRequest, config: Config) {
  return { path: '/', httpOnly: true, sameSite: 'strict', secure: isHttps(request, config) } as const
}

/**
 * [SC-24] The two calls that read the cookie answer our own pages only. Browsers leave
 * `Sec-Fetch-Site` out on plain http, so `Origin` decides there.
 */
export function requireSameOrigin(request: FastifyRequest, config: Config): void {
  const { origin, 'sec-fetch-site': site, 'content-type': type } = request.headers
  const isJson = /^application\/json\s*(;\s*charset=utf-8\s*)?$/i.test(type ?? '')
  const own = [`${request.protocol}://${request.host}`, config.publicUrl?.origin]
  const isOwn = site === undefined ? origin !== undefined && own.includes(origin) : site === 'same-origin'
  if (!isJson || !isOwn) throw new ProblemError('CSRF')
}

const knownDeviceName = 'iot_pms_known'

/** Marks this browser as one that has signed in as this user [SC-32]. */
export function setKnownDeviceCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  config: Config,
  secrets: Secrets,
  userId: string,
  now: number,
): void {
  const deviceId = readKnownDevice(request.cookies[knownDeviceName], secrets, userId, now) ?? randomBytes(12).toString('base64url')
  const expires = String(now + knownDeviceMs)
  const mac = secrets.hmac('known-device', userId, deviceId, expires).toString('base64url')
  reply.setCookie(knownDeviceName, `${userId}.${deviceId}.${expires}.${mac}`, {
    ...attributes(request, config),
    maxAge: knownDeviceMs / 1000,
  })
}

export function knownDeviceCookie(request: FastifyRequest): string | undefined {
  return request.cookies[knownDeviceName]
}

/** The device's id when the cookie is ours, unexpired and of this very user. */
export function readKnownDevice(value: string | undefined, secrets: Secrets, userId: string, now: number): string | undefined {
  const [owner, deviceId, expires, mac] = (value ?? '').split('.')
  if (owner !== userId || !deviceId || !expires || !mac || !(Number(expires) > now)) return undefined
  return isEqual(Buffer.from(mac, 'base64url'), secrets.hmac('known-device', userId, deviceId, expires)) ? deviceId : undefined
}
