// SPDX-License-Identifier: AGPL-3.0-only
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { decodeChunk, encodeChunk } from './chunk-codec.ts'
import { valueKinds } from './points.ts'
import type { StoredPoint } from './store.ts'

const documentUrl = new URL('../../../docs/reference/chunk-format.md', import.meta.url)
const script = fileURLToPath(new URL('../../../docs/examples/read-chunk.py', import.meta.url))
const hasPython = spawnSync('python3', ['--version']).status === 0
/** The script needs one of them for compressed bodies. */
const hasZstd =
  spawnSync('zstd', ['--version']).status === 0 ||
  spawnSync('python3', ['-c', 'import zstandard']).status === 0 ||
  spawnSync('python3', ['-c', 'import compression.zstd']).status === 0

function pointOf(text: string): StoredPoint {
  const [, time, name, value] = /^(-?\d+) (\w+) (.*)$/.exec(text)!
  const ts = Number(time)
  const kind = valueKinds.find((item) => item === name)!
  switch (kind) {
    case 'double':
      return { ts, kind, value: Number(value) }
    case 'integer':
      return { ts, kind, value: Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value!) }
    case 'boolean':
      return { ts, kind, value: value === 'true' }
    case 'string':
      return { ts, kind, value: JSON.parse(value!) as string }
    case 'json':
      return { ts, kind, value: value! }
  }
}

/** `| what | points | chunk |`, the last two as code. */
const examples = readFileSync(documentUrl, 'utf8')
  .split('\n')
  .flatMap((line) => {
    const [, what, points, hex] = /^\| ([^|]+) \| `([^|`]+)` \| `([0-9a-f ]+)` \|$/.exec(line) ?? []
    return what ? [{ what, points: points!.split('; ').map(pointOf), bytes: Buffer.from(hex!.replaceAll(' ', ''), 'hex') }] : []
  })

/** Long enough to be compressed, all kinds, all forms of columns. */
const compressed: [string, StoredPoint[]][] = [
  [
    'sensor values',
    series(500, (i) => ({
      ts: 1_760_000_000_000 + i * 10_000 + ((i * 37) % 101),
      kind: 'double',
      value: Math.round(200 + 50 * Math.sin(i / 20)) / 10,
    })),
  ],
  ['full doubles', series(500, (i) => ({ ts: i * 1000, kind: 'double', value: 20 + Math.sin(i) / 3 }))],
  ['wide integers', series(300, (i) => ({ ts: i ** 3, kind: 'integer', value: 2n ** 62n + BigInt(i) * 12_345_678_901n }))],
  ['states', series(300, (i) => ({ ts: i, kind: 'string', value: ['运行', 'stopped', 'fault'][(i * i) % 3]! }))],
  ['mixed kinds', series(400, (i) => mixedPoint(i))],
]

function series(n: number, pointAt: (i: number) => StoredPoint): StoredPoint[] {
  return Array.from({ length: n }, (_, i) => pointAt(i))
}

function mixedPoint(i: number): StoredPoint {
  const ts = 1000 + i * 250 + (i % 7)
  const choices: StoredPoint[] = [
    { ts, kind: 'double', value: i % 35 === 0 ? -0 : i / 8 },
    { ts, kind: 'integer', value: i * 1000 },
    { ts, kind: 'boolean', value: i % 3 === 0 },
    { ts, kind: 'string', value: `state ${i % 9}` },
    { ts, kind: 'json', value: `{"n":${i}}` },
  ]
  return choices[i % choices.length]!
}

/** The points in the lines that the script prints. */
function readByScript(input: string | Buffer): StoredPoint[] {
  const { status, stdout, stderr } = spawnSync('python3', [script], { input, encoding: 'utf8' })
  expect(stderr).toBe('')
  expect(status).toBe(0)
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [, ts, kind, value] = /^\{"ts": (-?\d+), "kind": "(\w+)", "value": (.*)\}$/.exec(line)!
      return pointOf(`${ts} ${kind} ${kind === 'json' ? (JSON.parse(value!) as string) : value}`)
    })
}

describe('the document of the chunk format', () => {
  it('has an example of every kind', () => {
    expect(new Set(examples.flatMap(({ points }) => points.map((point) => point.kind)))).toEqual(new Set(valueKinds))
    expect(examples.length).toBeGreaterThanOrEqual(10)
  })

  it.each(examples)('shows the bytes that the server writes and reads: $what', ({ points, bytes }) => {
    expect(encodeChunk(points).toString('hex')).toBe(bytes.toString('hex'))
    expect(decodeChunk(bytes)).toEqual(points)
  })
})

describe.skipIf(!hasPython)('the reader in Python', () => {
  it.each(examples)('reads the example of the document: $what', ({ points, bytes }) => {
    expect(readByScript(bytes.toString('hex'))).toEqual(points)
  })

  it.skipIf(!hasZstd).each(compressed)('reads compressed chunks from bytes: %s', (_, points) => {
    const chunk = encodeChunk(points)
    expect(chunk[1]).toBe(1)
    expect(readByScript(chunk)).toEqual(points)
  })

  it('takes hex as PostgreSQL prints it', () => {
    expect(readByScript(`\\x${examples[0]!.bytes.toString('hex')}\n`)).toEqual(examples[0]!.points)
  })

  it('refuses a damaged chunk', () => {
    const bytes = Buffer.from(examples[0]!.bytes)
    bytes[8]! ^= 1
    const { status, stderr } = spawnSync('python3', [script], { input: bytes, encoding: 'utf8' })
    expect(status).not.toBe(0)
    expect(stderr).toContain('chunk is damaged: wrong checksum')
  })
})
