// SPDX-License-Identifier: AGPL-3.0-only
import type { Duplex } from 'node:stream'
import { WebSocketServer, createWebSocketStream } from 'ws'
import type { WebSocket } from 'ws'
import { createAddressOf } from '../../http/client-address.ts'
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
