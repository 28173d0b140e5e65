// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Socket } from 'node:net'
import type { ModuleContext, ModuleGateway } from '@iot-pms/core'

/** One line per message, `<device token> <key> <number>`; the answer is the outcome, after the commit. */
export function createDripGateway(context: ModuleContext): ModuleGateway {
  const sockets = new Set<Socket>()
  let waiting = 0
  context.metrics.watch('waiting_lines', 'Lines that wait for their answer', () => waiting)
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.setEncoding('utf8').on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    socket.on('data', (line) => {
      waiting++
      void answer(context, String(line), socket.remoteAddress ?? '')
        .then((text) => socket.write(`${text}\n`))
        .finally(() => waiting--)
    })
  })
  return {
    async listen(port) {
      server.listen(port, '127.0.0.1')
      await once(server, 'listening')
      const address = server.address()
      return { port: typeof address === 'object' && address ? address.port : port }
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      if (!server.listening) return
      server.close()
      await once(server, 'close')
    },
  }
}

async function answer({ ingest }: ModuleContext, line: string, address: string): Promise<string> {
  const [token = '', ...rest] = line.trim().split(' ')
  const device = ingest.findByToken(token)
  if (!device) return 'unknown'
  const outcome = await ingest.accept({ device, codec: 'drip', payload: Buffer.from(rest.join(' ')), address })
  return outcome.status
}
