// SPDX-License-Identifier: AGPL-3.0-only
import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocketServer, createWebSocketStream } from 'ws'
import type { WebSocket } from 'ws'
import { refuseUpgrade } from '../../http/upgrades.ts'
import type { UpgradeHandler } from '../../http/upgrades.ts'

/** The largest MQTT packet with room to spare: a client may put several into one message. */
const maxMessageBytes = 131_072
const subprotocol = 'mqtt'
const unsupportedData = 1003

/**
 * MQTT inside WebSockets on the HTTP port (MQTT 5 §6). Whoever connects names itself in its CONNECT and by no cookie,
 * so pages of any origin may. `accept` takes the stream of bytes inside the WebSocket.
 */
export function mqttOverWebSocket(trustedProxies: readonly string[], accept: (stream: Duplex, address: string) => void): UpgradeHandler {
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: maxMessageBytes,
    perMessageDeflate: false,
    handleProtocols: () => subprotocol,
  })
  const addressOf = createAddressOf(trustedProxies)
  return (request, socket, head) => {
    const asked = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((one) => one.trim())
    if (!asked.includes(subprotocol)) return refuseUpgrade(socket, '400 Bad Request')
    const address = addressOf(request)
    if (address === undefined) return void socket.destroy()
    sockets.handleUpgrade(request, socket, head, (webSocket) => accept(openStream(webSocket), address))
  }
}

function openStream(webSocket: WebSocket): Duplex {
  const stream = createWebSocketStream(webSocket, { allowHalfOpen: false })
  // [MQTT-6.0.0-1] Packets come in binary messages only; a text must not get as far as the codec.
  webSocket.prependListener('message', (_: unknown, isBinary: boolean) => {
    if (isBinary) return
    stream.removeAllListeners('data')
    webSocket.close(unsupportedData, 'binary messages only')
  })
  return stream
}

/** Address of the client: of the connection, or what the proxies before us say where they are trusted. */
function createAddressOf(trustedProxies: readonly string[]): (request: IncomingMessage) => string | undefined {
  const trusted = new BlockList()
  const family = (address: string) => (isIP(address) === 6 ? 'ipv6' : 'ipv4')
  for (const proxy of trustedProxies) {
    const [address = '', bits] = proxy.split('/')
    if (isIP(address) === 0) continue
    if (bits === undefined) trusted.addAddress(address, family(address))
    else trusted.addSubnet(address, Number(bits), family(address))
  }
  const isTrusted = (address: string) => isIP(address) !== 0 && trusted.check(address, family(address))
  return ({ headers, socket }) => {
    const { remoteAddress } = socket
    if (remoteAddress === undefined) return undefined
    const hops = [headers['x-forwarded-for'] ?? []].flat().flatMap((list) => list.split(','))
    const way = [...hops.map((hop) => plain(hop.trim())).filter(Boolean), plain(remoteAddress)]
    // From our end backwards: the first that is no proxy of ours.
    return way.findLast((address) => !isTrusted(address)) ?? way[0]
  }
}

function plain(address: string): string {
  return address.startsWith('::ffff:') ? address.slice(7) : address
}
