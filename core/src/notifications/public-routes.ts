// SPDX-License-Identifier: AGPL-3.0-only
import { Type } from 'typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import { languageOf } from '../http/actor.ts'
import { contentPolicy } from '../http/pages.ts'
import { problems } from '../http/schemas.ts'
import type { App } from '../http/server.ts'
import { findAck, useAck } from './acks.ts'
import { takeCallback } from './callbacks.ts'
import type { NotificationHub } from './hub.ts'
import { sendSimply } from './simple-send.ts'
import type { FindKey } from './simple-send.ts'

const maxCallbackBytes = 262_144
const maxFormBytes = 131_072

/** What is reached without signing in: each address holds a secret of its own. */
export async function registerPublicRoutes(app: App, context: Context, hub: NotificationHub, findKey: FindKey): Promise<void> {
  await app.register(async (scope) => {
    // Forms, JSON and what providers send arrive as their text.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'string', bodyLimit: maxCallbackBytes }, (_, body, done) => done(null, body))
    registerAckPages(scope, context, hub)
    registerSimpleSend(scope, context, hub, findKey)
    registerCallbacks(scope, context, hub)
  })
}

function registerCallbacks(scope: App, context: Context, hub: NotificationHub): void {
  scope.post(
    '/api/v1/notifications/inbound/:channelId/:pathToken',
    {
      config: { public: true },
      bodyLimit: maxCallbackBytes,
      schema: {
        tags: ['notifications'],
        summary: 'Reports of providers; the address is the callbackUrl of the channel',
        params: Type.Object({ channelId: Type.String(), pathToken: Type.String({ maxLength: 100 }) }),
        response: { 200: Type.Unknown(), ...problems(400, 403, 404, 413) },
      },
    },
    async (request, reply) => {
      const { channelId, pathToken: token } = request.params
      const signature = request.headers['x-twilio-signature']
      const given = { body: bodyOf(request), signature: typeof signature === 'string' ? signature : undefined }
      const answer = await takeCallback(context, hub, { channelId, token }, given)
      return reply.type(answer === '' ? 'text/plain; charset=utf-8' : 'application/json; charset=utf-8').send(answer)
    },
  )
}

/** Looking at a link changes nothing, because programs that check links look at them too; its button does. */
function registerAckPages(scope: App, context: Context, hub: NotificationHub): void {
  const options = {
    config: { public: true as const },
    schema: { hide: true, params: Type.Object({ token: Type.String({ maxLength: 100 }) }) },
  }
  scope.get('/n/:token', options, async (request, reply) => {
    const target = await findAck(context, request.params.token)
    return sendPage(request, reply, target ? { title: target.title, asks: true } : undefined)
  })
  scope.post('/n/:token', { ...options, bodyLimit: maxFormBytes }, async (request, reply) => {
    const target = await findAck(context, request.params.token)
    if (target) await useAck(context, hub, target)
    return sendPage(request, reply, target ? { title: target.title, asks: false } : undefined)
  })
}

function sendPage(request: FastifyRequest, reply: FastifyReply, shown: { title: string; asks: boolean } | undefined): FastifyReply {
  const isZh = languageOf(request) === 'zh'
  const words = (zh: string, en: string) => (isZh ? zh : en)
  const done = words('已确认。不会再升级通知。', 'Acknowledged. Nobody else will be told.')
  const ask = `<form method="post"><button type="submit">${words('确认告警', 'Acknowledge')}</button></form>`
  const content = shown
    ? `<h1>${escapeHtml(shown.title)}</h1>${shown.asks ? ask : `<p role="status">${done}</p>`}`
    : `<h1>${words('链接无效或已过期', 'This link is wrong or too old')}</h1>`
  return reply
    .code(shown ? 200 : 404)
    .headers({ 'content-security-policy': contentPolicy, 'cache-control': 'no-store' })
    .type('text/html; charset=utf-8')
    .send(
      `<!doctype html><html lang="${isZh ? 'zh-CN' : 'en'}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
        `<meta name="robots" content="noindex"><title>IoT PMS</title></head><body><main>${content}</main></body></html>`,
    )
}

const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`)

function registerSimpleSend(scope: App, context: Context, hub: NotificationHub, findKey: FindKey): void {
  const send = async (request: FastifyRequest, reply: FastifyReply) => {
    const [, key] = /^(.+)\.send$/.exec((request.params as { file: string }).file) ?? []
    if (key === undefined) throw new ProblemError('NOT_FOUND')
    const fields = { ...(request.query as Record<string, unknown>), ...fieldsOf(request) }
    const { status, body } = await sendSimply(context, hub, findKey, { key, address: request.ip, fields })
    return reply.code(status).header('cache-control', 'no-store').send(body)
  }
  const options = {
    config: { public: true as const },
    schema: { hide: true, params: Type.Object({ file: Type.String({ maxLength: 200 }) }) },
  }
  scope.get('/send/:file', options, send)
  scope.post('/send/:file', { ...options, bodyLimit: maxFormBytes }, send)
}

const bodyOf = (request: FastifyRequest): string => (typeof request.body === 'string' ? request.body : '')

function fieldsOf(request: FastifyRequest): Record<string, unknown> {
  const body = bodyOf(request)
  if (!(request.headers['content-type'] ?? '').includes('json')) return Object.fromEntries(new URLSearchParams(body))
  try {
    const value: unknown = JSON.parse(body)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
