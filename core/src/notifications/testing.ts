// SPDX-License-Identifier: AGPL-3.0-only
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import type { AddressInfo } from 'node:net'

export type Seen = { at: number; method: string; url: string; headers: IncomingMessage['headers']; body: string }
type Answer = (seen: Seen, response: ServerResponse, index: number) => void

/** A server that behaves like providers: what it saw, and an answer per first part of the path. */
export async function startProvider() {
  const seen: Seen[] = []
  const answers = new Map<string, Answer>()
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const one = {
        at: Date.now(),
        method: request.method ?? '',
        url: request.url ?? '',
        headers: request.headers,
        body: Buffer.concat(chunks).toString(),
      }
      const name = one.url.split(/[/?]/)[1] ?? ''
      const index = seen.filter((other) => other.url.split(/[/?]/)[1] === name).length
      seen.push(one)
      const answer = answers.get(name)
      if (answer) answer(one, response, index)
      else response.writeHead(404).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    /** What came to paths that begin so. */
    of: (name: string) => seen.filter((one) => one.url.startsWith(`/${name}`)),
    answer: (name: string, answer: Answer) => void answers.set(name, answer),
    close: () => new Promise<void>((resolve) => server.close(() => resolve()).closeAllConnections()),
  }
}

export const json =
  (status: number, body: unknown): Answer =>
  (_, response) =>
    void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))

/** A mail server of a few words. `rcpt` answers to a recipient. */
export async function startMailServer(rcpt: (address: string) => string = () => '250 ok') {
  const mails: { to: string[]; data: string }[] = []
  const server = createTcpServer((socket) => {
    let to: string[] = []
    let data: string | undefined
    let rest = ''
    socket.on('error', () => {})
    socket.write('220 test\r\n')
    socket.on('data', (chunk) => {
      rest += chunk.toString()
      for (let end = rest.indexOf('\r\n'); end !== -1; end = rest.indexOf('\r\n')) {
        const line = rest.slice(0, end)
        rest = rest.slice(end + 2)
        if (data !== undefined) {
          if (line === '.') {
            mails.push({ to, data })
            data = undefined
            socket.write('250 queued as 1\r\n')
          } else data += `${line}\r\n`
        } else if (/^(EHLO|HELO|MAIL|RSET|NOOP)/i.test(line)) {
          if (/^(MAIL|RSET)/i.test(line)) to = []
          socket.write('250 ok\r\n')
        } else if (/^RCPT/i.test(line)) {
          const address = /<(.*)>/.exec(line)?.[1] ?? ''
          to.push(address)
          socket.write(`${rcpt(address)}\r\n`)
        } else if (/^DATA/i.test(line)) {
          data = ''
          socket.write('354 go\r\n')
        } else if (/^QUIT/i.test(line)) socket.end('221 bye\r\n')
        else socket.write('500 what\r\n')
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return { port, mails, close: () => new Promise<void>((resolve) => void server.close(() => resolve())) }
}
