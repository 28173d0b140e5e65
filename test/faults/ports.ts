// SPDX-License-Identifier: AGPL-3.0-only
import { createServer } from 'node:net'

/**
 * Below the range systems take the ports of outgoing connections from (32768 … on Linux): while a server
 * is down, a client that keeps trying could otherwise be given the server's port, and even reach itself.
 */
const lowest = 20_000
const highest = 31_999

/** A free port that stays free for a server that is stopped and started again. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = lowest + Math.floor(Math.random() * (highest - lowest + 1))
    if (await isFree(port)) return port
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
