// SPDX-License-Identifier: AGPL-3.0-only
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { root } from './machine.ts'

/**
 * The anchor of the HTTP bench, a process of its own: Fastify that takes a body as bytes and answers 200,
 * without looking at it or storing it. Prints its port.
 */
type BareApp = {
  removeAllContentTypeParsers(): void
  addContentTypeParser(
    type: string,
    options: { parseAs: 'buffer' },
    parser: (request: unknown, body: Buffer, done: (error: null, body: Buffer) => void) => void,
  ): void
  post(path: string, handler: (request: unknown, reply: { code(status: number): { send(): unknown } }) => unknown): void
  listen(options: { port: number; host: string }): Promise<string>
}

// Fastify is a dependency of the core, and the very one the server runs on is the one to compare with.
const { fastify } = createRequire(join(root, 'core/package.json'))('fastify') as { fastify: () => BareApp }

const app = fastify()
app.removeAllContentTypeParsers()
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
app.post('/api/v1/:token/telemetry', (_request, reply) => reply.code(200).send())
const address = await app.listen({ port: 0, host: '127.0.0.1' })
console.log(new URL(address).port)
