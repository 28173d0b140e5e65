// SPDX-License-Identifier: AGPL-3.0-only
import type { IncomingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'

/** Takes over a socket that asked for another protocol, or {@link refuseUpgrade refuses} it. */
export type UpgradeHandler = (request: IncomingMessage, socket: Duplex, head: Buffer, url: URL) => void

/** Brings each WebSocket to the handler of its path; on any other path there is none. */
export function routeUpgrades(server: Server, handlers: ReadonlyMap<string, UpgradeHandler>): void {
  server.on('upgrade', (request, socket: Duplex, head) => {
    socket.on('error', () => socket.destroy())
    const url = URL.parse(request.url ?? '', 'http://host')
    const handler = url && handlers.get(url.pathname)
    if (handler) handler(request, socket, head, url)
    else refuseUpgrade(socket, '404 Not Found')
  })
}

export function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
}
