// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, randomBytes } from 'node:crypto'
import { request } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import type { Rollout } from './schemas.ts'
import { OtaDevice, callsOf, eventually } from './testing.ts'

let platform: TestPlatform
let calls: ReturnType<typeof callsOf>
beforeAll(async () => {
  platform = await startTestPlatform()
  calls = callsOf(platform)
})
afterAll(() => platform.close())

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

async function prepare(content: Buffer, fileName = 'boiler.bin') {
  const productId = await calls.createProduct()
  const { id, token } = await platform.createDevice({ productId })
  const pack = await calls.createPackage(productId)
  await calls.ok(calls.upload(pack.id, content, `?fileName=${encodeURIComponent(fileName)}`))
  await calls.assign(id, pack.id)
  const query = `title=${pack.title}&version=${pack.version}`
  const get = async (more = '', headers: Record<string, string> = {}) => {
    const answer = await fetch(`${platform.url}/api/v1/${token}/firmware?${query}${more}`, { headers })
    return { status: answer.status, headers: answer.headers, body: Buffer.from(await answer.arrayBuffer()) }
  }
  return { id, token, pack, query, get }
}

describe('downloads over HTTP', () => {
  it('give the whole file with its name, and by size and chunk [H-2]', async () => {
    const content = randomBytes(900_001)
    const { id, get } = await prepare(content)
    const whole = await get()
    expect(whole.status).toBe(200)
    expect(Object.fromEntries(whole.headers)).toMatchObject({
      'content-type': 'application/octet-stream',
      'content-disposition': 'attachment;filename=boiler.bin',
      'x-filename': 'boiler.bin',
      'content-length': '900001',
    })
    expect(sha256(whole.body)).toBe(sha256(content))
    expect(sha256((await get('&size=0')).body)).toBe(sha256(content))
    expect((await get('&size=400000&chunk=1')).body.equals(content.subarray(400_000, 800_000))).toBe(true)
    expect((await get('&size=400000&chunk=2')).body.equals(content.subarray(800_000))).toBe(true)
    expect(await get('&size=400000&chunk=3')).toMatchObject({ status: 200, body: Buffer.alloc(0) })
    await eventually(async () => expect(await calls.show(id)).toMatchObject({ progress: 100 }))
    expect((await calls.show(id)).trace.map(({ event }) => event)).toEqual(expect.arrayContaining(['first_chunk', 'last_chunk']))
  })

  it('go on in the middle after an interruption', async () => {
    const content = randomBytes(3_000_000)
    const { token, query, get } = await prepare(content)
    const begun = await new Promise<Buffer>((resolve, reject) => {
      const chunks: Buffer[] = []
      const call = request(`${platform.url}/api/v1/${token}/firmware?${query}`, (answer: IncomingMessage) => {
        answer.on('data', (chunk: Buffer) => {
          chunks.push(chunk)
          if (Buffer.concat(chunks).length < 1_000_000) return
          call.destroy()
          resolve(Buffer.concat(chunks))
        })
        answer.on('error', () => {})
      })
      call.on('error', reject)
      call.end()
    })
    const rest = await get('', { range: `bytes=${begun.length}-` })
    expect(rest.status).toBe(206)
    expect(sha256(Buffer.concat([begun, rest.body]))).toBe(sha256(content))
  })

  it('name files in any language', async () => {
    const { get } = await prepare(randomBytes(10), '锅炉 1.bin')
    const { headers } = await get()
    expect(headers.get('content-disposition')).toBe("attachment;filename*=UTF-8''%E9%94%85%E7%82%89%201.bin")
    expect(headers.get('x-filename')).toBe('%E9%94%85%E7%82%89%201.bin')
  })

  it('are refused without package, for another title or version, and to strangers [H-4]', async () => {
    const { token, pack, get } = await prepare(randomBytes(10))
    const code = async (path: string) => {
      const answer = await platform.call('GET', path, { token: null })
      return [answer.status, answer.json<{ code: string }>().code]
    }
    const mismatch = [400, 'OTA_MISMATCH']
    expect(await code(`/api/v1/${token}/firmware`)).toEqual(mismatch)
    expect(await code(`/api/v1/${token}/firmware?title=${pack.title}`)).toEqual(mismatch)
    expect(await code(`/api/v1/${token}/firmware?title=${pack.title}&version=other`)).toEqual(mismatch)
    expect(await code(`/api/v1/${token}/software?title=a&version=b`)).toEqual([404, 'OTA_NOT_FOUND'])
    expect(await code('/api/v1/unknown-token/firmware?title=a&version=b')).toEqual([401, 'DEVICE_UNAUTHORIZED'])
    expect((await get('&size=-1')).status).toBe(400)
  })
})

describe('twenty devices at the same time', () => {
  it('download 8 MB each in a bounded memory', async () => {
    const content = randomBytes(8_000_000)
    const productId = await calls.createProduct()
    const pack = await calls.createReadyPackage(productId, content)
    await calls.ok(platform.call('PATCH', `/api/v1/products/${productId}`, { body: { ota: { firmwareId: pack.id } } }))
    const devices = await Promise.all(Array.from({ length: 20 }, () => platform.createDevice({ productId })))
    const rollout = () => calls.ok<Rollout>(platform.call('GET', `/api/v1/ota-packages/${pack.id}/devices`))
    await eventually(async () => expect((await rollout()).counts.INITIATED).toBe(20))
    const clients = await Promise.all(devices.map(({ token }) => OtaDevice.connect(platform.ports.mqtt, token)))
    globalThis.gc?.()
    const before = process.memoryUsage().rss
    let most = 0
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 20)
    const wrong = await Promise.all(
      clients.map(async (client) => {
        // Nothing of the file is kept here either: what grows is the server.
        const hash = createHash('sha256')
        for (let no = 0; ; no++) {
          const chunk = await client.chunk(1, no, 65_536)
          hash.update(chunk)
          if (chunk.length < 65_536) return hash.digest('hex') === pack.checksum ? 0 : 1
        }
      }),
    )
    clearInterval(timer)
    expect(wrong.reduce<number>((sum, one) => sum + one, 0)).toBe(0)
    // 160 MB went through; 16 MiB of parts and the buffers of 20 sockets on both ends may be held.
    expect((most - before) / 1_048_576).toBeLessThan(120)
    await Promise.all(clients.map((client) => client.end()))
  })
})
