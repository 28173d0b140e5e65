// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, randomBytes } from 'node:crypto'
import { request } from 'node:http'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { DiskGuard } from '../system/disk-guard.ts'
import { Contents } from './contents.ts'
import type { OtaPackage } from './schemas.ts'
import { callsOf, eventually, unique } from './testing.ts'

let platform: TestPlatform
let calls: ReturnType<typeof callsOf>
beforeAll(async () => {
  platform = await startTestPlatform()
  calls = callsOf(platform)
})
afterAll(() => platform.close())

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
const refusal = async (answer: Promise<{ status: number; json: <T>() => T }>) => {
  const { status, json } = await answer
  return { status, code: json<{ code: string }>().code }
}

async function countParts(packageId: string): Promise<number> {
  const { db, rootTenant } = platform.context
  const [row] = await db.withTenant(rootTenant, (tx) =>
    tx.execute<{ count: number }>(sql`select count(*)::int as count from ota_parts where package_id = ${packageId}`),
  )
  return row!.count
}

describe('packages', () => {
  it('are created, shown, and listed newest first, page by page [O-1]', async () => {
    const productId = await calls.createProduct()
    const created = await calls.createPackage(productId, { title: '锅炉', version: '1.0', tag: 'stable' })
    expect(created).toMatchObject({
      title: '锅炉',
      version: '1.0',
      tag: 'stable',
      kind: 'firmware',
      productId,
      url: null,
      checksumAlgorithm: 'SHA256',
      checksum: null,
      size: null,
      isProductTarget: false,
      deviceCount: 0,
    })
    expect(await calls.ok(platform.call('GET', `/api/v1/ota-packages/${created.id}`))).toEqual(created)
    const software = await calls.createPackage(productId, { title: '锅炉', version: '1.0', kind: 'software' })
    const third = await calls.createPackage(productId, { title: '锅炉', version: '1.1' })
    const ids: string[] = []
    for (let cursor = ''; ;) {
      const page = await calls.ok<{ items: OtaPackage[]; nextCursor: string | null }>(
        platform.call('GET', `/api/v1/ota-packages?productId=${productId}&limit=2${cursor && `&cursor=${cursor}`}`),
      )
      ids.push(...page.items.map(({ id }) => id))
      if (!page.nextCursor) break
      cursor = page.nextCursor
    }
    expect(ids).toEqual([third.id, software.id, created.id])
    const only = await calls.ok<{ items: OtaPackage[] }>(platform.call('GET', `/api/v1/ota-packages?productId=${productId}&kind=software`))
    expect(only.items.map(({ id }) => id)).toEqual([software.id])
    expect(await refusal(platform.call('GET', '/api/v1/ota-packages?cursor=xx'))).toEqual({ status: 400, code: 'CURSOR_INVALID' })
  })

  it('have a title and version of their own per product and kind [O-1]', async () => {
    const productId = await calls.createProduct()
    const body = { productId, title: 'a', version: '1', kind: 'firmware' }
    await calls.createPackage(productId, body)
    expect(await refusal(platform.call('POST', '/api/v1/ota-packages', { body }))).toEqual({ status: 409, code: 'OTA_PACKAGE_EXISTS' })
    await calls.createPackage(await calls.createProduct(), { title: 'a', version: '1' })
  })

  it('are refused with what is wrong about them', async () => {
    const productId = await calls.createProduct()
    const body = { productId, title: 'a', version: unique('v'), kind: 'firmware' }
    for (const wrong of [
      { title: '' },
      { version: 'a\nb' },
      { kind: 'rom' },
      { checksumAlgorithm: 'SHA1' },
      { url: 'ftp://x/y' },
      { size: 1 },
    ]) {
      expect(await refusal(platform.call('POST', '/api/v1/ota-packages', { body: { ...body, ...wrong } })), JSON.stringify(wrong)).toEqual({
        status: 400,
        code: 'VALIDATION_FAILED',
      })
    }
    const unknown = { ...body, productId: '01920000-0000-7000-8000-000000000000' }
    expect(await refusal(platform.call('POST', '/api/v1/ota-packages', { body: unknown }))).toEqual({ status: 422, code: 'UNPROCESSABLE' })
  })

  it('go with a product nobody uses', async () => {
    const productId = await calls.createProduct()
    const { id } = await calls.createReadyPackage(productId, randomBytes(1000))
    await calls.ok(platform.call('DELETE', `/api/v1/products/${productId}`))
    expect((await platform.call('GET', `/api/v1/ota-packages/${id}`)).status).toBe(404)
    expect(await countParts(id)).toBe(0)
  })
})

describe('content', () => {
  it('is stored in parts and given back as it was, with its checksum', async () => {
    const { id } = await calls.createPackage(await calls.createProduct())
    const content = randomBytes(1_000_003)
    const answer = await calls.upload(id, content, `?fileName=boiler.bin&size=${content.length}&checksum=${sha256(content).toUpperCase()}`)
    expect(answer.json()).toMatchObject({ size: content.length, checksum: sha256(content), fileName: 'boiler.bin' })
    expect(await countParts(id)).toBe(4)
    const response = await fetch(`${platform.url}/api/v1/ota-packages/${id}/content`, {
      headers: { authorization: `Bearer ${platform.token}` },
    })
    expect(response.headers.get('content-disposition')).toBe('attachment;filename=boiler.bin')
    expect(response.headers.get('content-length')).toBe(String(content.length))
    expect(sha256(Buffer.from(await response.arrayBuffer()))).toBe(sha256(content))
  })

  it('has the checksum of the algorithm that was chosen', async () => {
    const productId = await calls.createProduct()
    const content = Buffer.from('The quick brown fox jumps over the lazy dog')
    for (const [checksumAlgorithm, checksum] of [
      ['CRC32', '39a34f41'],
      ['MURMUR3_32', '23f74f2e'],
      ['MURMUR3_128', '6c1b07bc7bbc4be347939ac4a93c437a'],
      ['MD5', '9e107d9d372bb6826bd81d3542a419d6'],
    ]) {
      expect(await calls.createReadyPackage(productId, content, { checksumAlgorithm })).toMatchObject({ checksumAlgorithm, checksum })
    }
  })

  it('is refused with a wrong size or checksum, and leaves nothing behind [O-1]', async () => {
    const { id } = await calls.createPackage(await calls.createProduct())
    const content = randomBytes(300_000)
    const wrong = { status: 422, code: 'OTA_CONTENT_WRONG' }
    expect(await refusal(calls.upload(id, content, '?size=299999'))).toEqual(wrong)
    expect(await refusal(calls.upload(id, content, `?checksum=${'0'.repeat(64)}`))).toEqual(wrong)
    expect(await refusal(calls.upload(id, Buffer.alloc(0)))).toEqual(wrong)
    expect(await countParts(id)).toBe(0)
    expect(await calls.ok(platform.call('GET', `/api/v1/ota-packages/${id}`))).toMatchObject({ size: null, checksum: null })
    expect(await refusal(platform.call('GET', `/api/v1/ota-packages/${id}/content`))).toEqual({ status: 404, code: 'OTA_NOT_FOUND' })
  })

  it('is replaced by the next upload, of which the newest counts', async () => {
    const { id } = await calls.createPackage(await calls.createProduct())
    await calls.ok(calls.upload(id, randomBytes(600_000)))
    const content = randomBytes(300_000)
    expect(await calls.ok(calls.upload(id, content))).toMatchObject({ size: 300_000, checksum: sha256(content) })
    expect(await countParts(id)).toBe(2)
  })

  it('is not announced larger than 256 MiB, whatever comes then', async () => {
    const { id } = await calls.createPackage(await calls.createProduct())
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const headers = { authorization: `Bearer ${platform.token}`, 'content-length': String(268_435_457) }
      const call = request(`${platform.url}/api/v1/ota-packages/${id}/content`, { method: 'PUT', headers }, (answer) => {
        resolve(answer.statusCode)
        call.destroy()
      })
      call.on('error', reject)
      call.flushHeaders()
    })
    expect(status).toBe(413)
  })

  it('leaves nothing behind when its upload breaks off', async () => {
    const { id } = await calls.createPackage(await calls.createProduct())
    const headers = { authorization: `Bearer ${platform.token}`, 'content-length': '2000000' }
    const call = request(`${platform.url}/api/v1/ota-packages/${id}/content`, { method: 'PUT', headers })
    call.on('error', () => {})
    call.write(randomBytes(800_000))
    await eventually(async () => expect(await countParts(id)).toBeGreaterThan(0))
    call.destroy()
    await eventually(async () => expect(await countParts(id)).toBe(0))
    // What a killed server left is found by the upkeep.
    const { db, rootTenant } = platform.context
    await db.withTenant(rootTenant, (tx) =>
      tx.execute(
        sql`insert into ota_parts (tenant_id, package_id, content_id, no, bytes) values (${rootTenant.tenantId}, ${id}, gen_random_uuid(), 0, 'x')`,
      ),
    )
    await calls.ok(calls.upload((await calls.createPackage(await calls.createProduct())).id, randomBytes(10)))
    await platform.ingest.ota.contents.removeOrphans(rootTenant)
    expect(await countParts(id)).toBe(0)
  })

  it('waits when the disk is low, also in the middle', async () => {
    const { id } = await calls.createPackage(await calls.createProduct())
    const { context } = platform
    let freeBytes = 100 * 2 ** 30
    const guard = new DiskGuard(context, async () => ({ freeBytes, totalBytes: 200 * 2 ** 30 }))
    await guard.check()
    async function* body() {
      yield randomBytes(600_000)
      freeBytes = 10 * 2 ** 30
      await guard.check()
      yield randomBytes(600_000)
    }
    const facts = { fileName: 'a', contentType: 'application/octet-stream' }
    const upload = new Contents(context, guard).upload(context.rootTenant, id, Readable.from(body()), facts)
    await expect(upload).rejects.toMatchObject({ code: 'DISK_LOW' })
    expect(await countParts(id)).toBe(0)
  })

  it('may take longer than other requests', async () => {
    const { id } = await calls.createPackage(await calls.createProduct())
    const content = randomBytes(500_000)
    const { server } = platform.app
    // What Node tells of a request that is still not complete after its time.
    const tell = (socket: unknown) =>
      server.emit('clientError', Object.assign(new Error('late'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }), socket)
    let upload: Socket | undefined
    server.once('connection', (socket: Socket) => (upload = socket))
    const headers = { authorization: `Bearer ${platform.token}`, 'content-length': String(content.length) }
    const answer = new Promise<number | undefined>((resolve, reject) => {
      const options = { method: 'PUT', headers, agent: false as const }
      const call = request(`${platform.url}/api/v1/ota-packages/${id}/content`, options, (response) => resolve(response.statusCode))
      call.on('error', reject)
      call.write(content.subarray(0, 300_000))
      void eventually(async () => expect(await countParts(id)).toBe(1)).then(() => {
        tell(upload)
        call.end(content.subarray(300_000))
      }, reject)
    })
    expect(await answer).toBe(200)
  })

  it('is no page: only bytes are taken', async () => {
    const { id } = await calls.createPackage(await calls.createProduct())
    const html = { 'content-type': 'text/html' }
    expect(await refusal(calls.upload(id, Buffer.from('<script>'), '', html))).toEqual({ status: 415, code: 'CONTENT_TYPE' })
    expect(await calls.ok(calls.upload(id, Buffer.from('PK'), '', { 'content-type': 'application/zip' }))).toMatchObject({
      contentType: 'application/zip',
    })
  })

  it('is none of a package that names an address', async () => {
    const { id } = await calls.createPackage(await calls.createProduct(), { url: 'https://files.example.com/boiler.bin' })
    expect(await refusal(calls.upload(id, randomBytes(10)))).toEqual({ status: 422, code: 'UNPROCESSABLE' })
    expect(await refusal(platform.call('GET', `/api/v1/ota-packages/${id}/content`))).toEqual({ status: 404, code: 'OTA_NOT_FOUND' })
  })

  it('is given in ranges, so that a download goes on where it broke off', async () => {
    const content = randomBytes(700_000)
    const { id, checksum } = await calls.createReadyPackage(await calls.createProduct(), content)
    const get = async (headers: Record<string, string>) => {
      const answer = await fetch(`${platform.url}/api/v1/ota-packages/${id}/content`, {
        headers: { authorization: `Bearer ${platform.token}`, ...headers },
      })
      return { status: answer.status, range: answer.headers.get('content-range'), body: Buffer.from(await answer.arrayBuffer()) }
    }
    const rest = await get({ range: 'bytes=262140-', 'if-range': `"${checksum}"` })
    expect(rest).toMatchObject({ status: 206, range: 'bytes 262140-699999/700000' })
    expect(rest.body.equals(content.subarray(262_140))).toBe(true)
    expect((await get({ range: 'bytes=-5' })).body.equals(content.subarray(-5))).toBe(true)
    expect((await get({ range: 'bytes=0-0' })).body.equals(content.subarray(0, 1))).toBe(true)
    expect(await get({ range: 'bytes=700000-' })).toMatchObject({ status: 416, range: 'bytes */700000' })
    for (const headers of [
      { range: 'bytes=1-2,4-5' },
      { range: 'lines=1-2' },
      { range: 'bytes=5-1' },
      { range: 'bytes=5-', 'if-range': '"other"' },
    ]) {
      expect(await get(headers as Record<string, string>), JSON.stringify(headers)).toMatchObject({ status: 200 })
    }
  })
})

describe('assigned packages', () => {
  it('keep their content and cannot be deleted until they are taken away', async () => {
    const productId = await calls.createProduct()
    const device = await platform.createDevice({ productId })
    const { id } = await calls.createReadyPackage(productId, randomBytes(1000))
    const assigned = { status: 409, code: 'OTA_PACKAGE_ASSIGNED' }
    await calls.assign(device.id, id)
    expect(await refusal(platform.call('DELETE', `/api/v1/ota-packages/${id}`))).toEqual(assigned)
    expect(await refusal(calls.upload(id, randomBytes(10)))).toEqual(assigned)
    await calls.ok(platform.call('DELETE', `/api/v1/devices/${device.id}/firmware`))
    await calls.ok(platform.call('PATCH', `/api/v1/products/${productId}`, { body: { ota: { firmwareId: id } } }))
    expect(await refusal(platform.call('DELETE', `/api/v1/ota-packages/${id}`))).toEqual(assigned)
    await calls.ok(platform.call('PATCH', `/api/v1/products/${productId}`, { body: { ota: { firmwareId: null } } }))
    await eventually(() => calls.ok(platform.call('DELETE', `/api/v1/ota-packages/${id}`)))
    expect(await countParts(id)).toBe(0)
  })

  it('fit their product and kind, and have content', async () => {
    const productId = await calls.createProduct()
    const device = await platform.createDevice({ productId })
    const empty = await calls.createPackage(productId)
    const foreign = await calls.createReadyPackage(await calls.createProduct(), randomBytes(10))
    const software = await calls.createReadyPackage(productId, randomBytes(10), { kind: 'software' })
    for (const packageId of [empty.id, foreign.id, software.id, '01920000-0000-7000-8000-000000000000']) {
      const refused = { status: 422, code: 'UNPROCESSABLE' }
      expect(await refusal(platform.call('PUT', `/api/v1/devices/${device.id}/firmware`, { body: { packageId } }))).toEqual(refused)
      expect(await refusal(platform.call('PATCH', `/api/v1/products/${productId}`, { body: { ota: { firmwareId: packageId } } }))).toEqual(
        refused,
      )
    }
  })
})
