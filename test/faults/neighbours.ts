// SPDX-License-Identifier: AGPL-3.0-only
import { setTimeout as sleep } from 'node:timers/promises'
import mqtt from 'mqtt'
import type { MqttClient } from 'mqtt'
import type { Installation, LoadedDevice } from './installation.ts'

export type Neighbours = {
  /** One of them was refused, disconnected or not answered. */
  readonly isFailed: boolean
  /** Ends them. @returns what they have to complain about */
  stop(): Promise<string[]>
  /** How many messages were answered, and how long that took at most. */
  report(): string
}

type Send = (payload: object) => Promise<unknown>
type Neighbour = { name: string; id: string; send: Send; answered: number; first: number; last: number; slowestMs: number; problem: string }

/** Patience with a server that is busy; its promise is another test's. */
const answerMs = 30_000
const pauseMs = 100

/** Well-behaved devices of each kind, sending all the time: they must not notice what others do to the server. */
export async function startNeighbours(installation: Installation): Promise<Neighbours> {
  const [four, five, web] = await installation.createDevices(3, 'neighbour')
  const [gateway] = await installation.createDevices(1, 'neighbour gateway', { gateway: true })
  const clients: MqttClient[] = []
  const open = async (device: LoadedDevice, protocolVersion: 4 | 5) => {
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${installation.ports.mqtt}`, {
      username: device.token,
      protocolVersion,
      reconnectPeriod: 0,
    })
    clients.push(client)
    return client
  }
  const overMqtt = async (name: string, device: LoadedDevice, protocol: 4 | 5): Promise<Neighbour> => {
    const client = await open(device, protocol)
    const neighbour = makeNeighbour(name, device.id, (payload) =>
      client.publishAsync('v1/devices/me/telemetry', JSON.stringify(payload), { qos: 1 }),
    )
    client.once('close', () => (neighbour.problem ||= client.disconnecting ? '' : 'was disconnected'))
    return neighbour
  }
  const link = await open(gateway!, 4)
  await link.publishAsync('v1/gateway/connect', JSON.stringify({ device: 'neighbour child' }), { qos: 1 })
  const found = (await installation.call('GET', '/api/v1/devices?q=neighbour+child')) as { items: { id: string }[] }
  const neighbours = [
    await overMqtt('MQTT 3.1.1', four!, 4),
    await overMqtt('MQTT 5', five!, 5),
    makeNeighbour('child', found.items[0]!.id, (payload) =>
      link.publishAsync('v1/gateway/telemetry', JSON.stringify({ 'neighbour child': [payload] }), { qos: 1 }),
    ),
    makeNeighbour('HTTP', web!.id, async (payload) => {
      const url = `http://127.0.0.1:${installation.ports.http}/api/v1/${web!.token}/telemetry`
      const answer = await fetch(url, { method: 'POST', body: JSON.stringify(payload), signal: AbortSignal.timeout(answerMs) })
      if (!answer.ok) throw new Error(`answer ${answer.status} ${await answer.text()}`)
    }),
  ]
  let isStopped = false
  const running = neighbours.map((neighbour) => keepSending(neighbour, () => isStopped))
  return {
    get isFailed() {
      return neighbours.some(({ problem }) => problem !== '')
    },
    async stop() {
      isStopped = true
      await Promise.all(running)
      await Promise.all(clients.map((client) => client.endAsync()))
      const problems = neighbours.filter(({ problem }) => problem !== '').map(({ name, problem }) => `neighbour ${name} ${problem}`)
      for (const neighbour of neighbours) problems.push(...(await checkStored(installation, neighbour)))
      return problems
    },
    report: () => neighbours.map(({ name, answered, slowestMs }) => `${name} ${answered} (slowest ${Math.round(slowestMs)} ms)`).join(', '),
  }
}

function makeNeighbour(name: string, id: string, send: Send): Neighbour {
  return { name, id, send, answered: 0, first: 0, last: 0, slowestMs: 0, problem: '' }
}

async function keepSending(neighbour: Neighbour, isStopped: () => boolean): Promise<void> {
  while (!isStopped() && neighbour.problem === '') {
    // Each its own time, so that what is stored can be counted.
    const ts = Math.max(Date.now(), neighbour.last + 1)
    const sentAt = performance.now()
    try {
      const answered = neighbour.send({ ts, values: { n: neighbour.answered } }).then(() => true)
      if (!(await Promise.race([answered, sleep(answerMs, false, { ref: false })]))) throw new Error('was not answered')
      neighbour.first ||= ts
      neighbour.last = ts
      neighbour.answered++
      neighbour.slowestMs = Math.max(neighbour.slowestMs, performance.now() - sentAt)
    } catch (error) {
      neighbour.problem ||= String(error)
    }
    await sleep(pauseMs)
  }
}

/** What was acknowledged is there, all of it. */
async function checkStored(installation: Installation, { name, id, answered, first, last }: Neighbour): Promise<string[]> {
  const path = `/api/v1/devices/${id}/telemetry/history?keys=n&from=${first}&to=${last + 1}&limit=100000`
  const { series } = (await installation.call('GET', path)) as { series: { points: [number, number][] }[] }
  const values = (series[0]?.points ?? []).map(([, value]) => value)
  const isWhole = values.length === answered && values.every((value, index) => value === index)
  return isWhole ? [] : [`neighbour ${name}: ${answered} acknowledged, ${values.length} stored`]
}
