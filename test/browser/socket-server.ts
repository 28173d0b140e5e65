// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { Duplex } from 'node:stream'

/** A WebSocket server of the smallest kind (RFC 6455: short text frames, close), so that a test can say anything. */
export class SocketServer {
  readonly #server: Server
  readonly #sockets = new Set<Duplex>()
  readonly #onText: (text: string, reply: (answer: string) => void) => void

  constructor(onText: (text: string, reply: (answer: string) => void) => void) {
    this.#onText = onText
    this.#server = createServer()
    this.#server.on('upgrade', (request, socket) => {
      const accept = createHash('sha1')
        .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
        .digest('base64')
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
      )
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
      socket.on('error', () => socket.destroy())
      let rest: Buffer = Buffer.alloc(0)
      socket.on('data', (chunk: Buffer) => {
        rest = this.#read(Buffer.concat([rest, chunk]), socket)
      })
    })
  }

  /** @returns the port */
  async start(port: number): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve))
    const address = this.#server.address()
    return typeof address === 'object' && address ? address.port : 0
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  send(text: string): void {
    for (const socket of this.#sockets) socket.write(frame(0x1, Buffer.from(text)))
  }

  /** Closes all connections with a code. */
  end(code: number): void {
    const payload = Buffer.alloc(2)
    payload.writeUInt16BE(code)
    for (const socket of this.#sockets) socket.end(frame(0x8, payload))
  }

  /** Takes whole frames off the front. Clients mask theirs (RFC 6455 §5.3). */
  #read(data: Buffer, socket: Duplex): Buffer {
    let at = 0
    while (data.length >= at + 6) {
      const short = data[at + 1]! & 0x7f
      const head = short === 126 ? 8 : 6
      if (data.length < at + head) break
      const length = short === 126 ? data.readUInt16BE(at + 2) : short
      if (data.length < at + head + length) break
      const mask = data.subarray(at + head - 4, at + head)
      const payload = data.subarray(at + head, at + head + length).map((byte, index) => byte ^ mask[index % 4]!)
      if ((data[at]! & 0x0f) === 0x1) {
        const text = Buffer.from(payload).toString('utf8')
        this.#onText(text, (answer) => socket.write(frame(0x1, Buffer.from(answer))))
      } else if ((data[at]! & 0x0f) === 0x8) socket.end()
      at += head + length
    }
    return data.subarray(at)
  }
}

function frame(opcode: number, payload: Buffer): Buffer {
  const head =
    payload.length < 126
      ? Buffer.from([0x80 | opcode, payload.length])
      : Buffer.from([0x80 | opcode, 126, payload.length >> 8, payload.length & 0xff])
  return Buffer.concat([head, payload])
}
