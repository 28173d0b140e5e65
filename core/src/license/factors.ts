// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync } from 'node:fs'
import { readFile, readdir, readlink, stat } from 'node:fs/promises'
import { request } from 'node:https'
import nodeMachineId from 'node-machine-id'
import type { MachineMode } from './machine.ts'

/** Values of this machine and instance by kind; they never leave the process [L-31]. */
export type FactorReader = () => Promise<ReadonlyMap<string, string>>

/** [L-34] */
const readTimeoutMs = 2000
const keptMs = 24 * 3_600_000

export type FactorPlace = {
  installId: string
  dataDir: string
  publicUrl: URL | undefined
  isInKubernetes: boolean
  /** Where `/etc`, `/sys`, `/dev` and `/run` lie; a test has its own. */
  root?: string
  /** Raw id of the operating system. */
  readMachineId?: () => Promise<string>
  now: () => number
}

/**
 * Reads what tells this machine from others. Whatever fails, takes too long or is worthless is left out; what was
 * read before and fails now keeps its value for a day.
 */
export function createFactorReader(place: FactorPlace): FactorReader {
  const kept = new Map<string, { value: string; at: number }>()
  return async () => {
    const readers = Object.entries(readersOf(place))
    const values = await Promise.all(readers.map(([, read]) => withLimit(read)))
    const now = place.now()
    const found = new Map<string, string>()
    for (const [index, [k]] of readers.entries()) {
      const value = cleanFactor(k, values[index])
      if (value !== undefined) kept.set(k, { value, at: now })
      const known = kept.get(k)
      if (known && now - known.at < keptMs) found.set(k, known.value)
    }
    // One answer about the cluster is enough; the namespace stands in for it.
    if (found.has('k8s-cluster')) found.delete('k8s-ns')
    return found
  }
}

/** License rules §4.4: what kind of place this process runs in. */
export function detectMode(isInKubernetes: boolean, root = ''): MachineMode {
  if (isInKubernetes) return 'cluster'
  return existsSync(`${root}/.dockerenv`) || existsSync(`${root}/run/.containerenv`) ? 'instance' : 'host'
}

type Read = () => Promise<string | undefined> | string | undefined

function readersOf(place: FactorPlace): Record<string, Read> {
  const { root = '', isInKubernetes } = place
  const isContainer = detectMode(isInKubernetes, root) !== 'host'
  return {
    install: () => place.installId,
    'machine-id': () => (isContainer ? readFile(`${root}/run/host/machine-id`, 'utf8') : readMachineId(place)),
    disk: () => readDisk(`${root}/dev/disk/by-uuid`, place.dataDir),
    dmi: () => readFile(`${root}/sys/class/dmi/id/product_uuid`, 'utf8'),
    ...(isContainer ? {} : { mac: () => readMac(`${root}/sys/class/net`) }),
    url: () => originOfUrl(place.publicUrl),
    ...(isInKubernetes ? { 'k8s-cluster': () => readNamespaceUid('kube-system'), 'k8s-ns': readOwnNamespace } : {}),
  }
}

async function withLimit(read: Read): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => (timer = setTimeout(() => resolve(undefined), readTimeoutMs).unref()))
  try {
    return await Promise.race([Promise.resolve().then(read), late])
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
  }
}

/** What makers of boards and images leave where an identity should be [L-33]. */
const worthless = new Set([
  '',
  'uninitialized',
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '03000200-0400-0500-0006-000700080009',
])

/**
 * [L-32], [L-33] The value as it is hashed; undefined when it identifies nothing. An id of a Linux machine is 32 hex
 * digits, so the host name that a fallback would give is none.
 */
export function cleanFactor(k: string, raw: string | undefined, platform: NodeJS.Platform = process.platform): string | undefined {
  const value = raw?.trim().toLowerCase().replaceAll(/[{}]/g, '') ?? ''
  const digits = value.replaceAll(/[-:]/g, '')
  if (worthless.has(value) || /^(0+|f+)$/.test(digits)) return undefined
  if (k === 'machine-id') {
    const pattern = platform === 'linux' ? /^[0-9a-f]{32}$/ : /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
    return pattern.test(value) ? value : undefined
  }
  return value
}

function readMachineId({ root = '', readMachineId: read }: FactorPlace): Promise<string> {
  if (read) return read()
  // A test's root has its own file, as a container's mount has.
  return root ? readFile(`${root}/etc/machine-id`, 'utf8') : nodeMachineId.machineId(true)
}

/** The name of the file system that holds the data folder. */
async function readDisk(folder: string, dataDir: string): Promise<string | undefined> {
  const { dev } = await stat(dataDir)
  for (const name of (await readdir(folder)).sort()) {
    const device = await stat(`${folder}/${name}`).catch(() => undefined)
    if (device?.rdev === dev) return name
  }
  return undefined
}

/** The smallest burnt-in address of a real card. */
async function readMac(folder: string): Promise<string | undefined> {
  const addresses: string[] = []
  for (const name of await readdir(folder)) {
    const path = `${folder}/${name}`
    const isReal = await readlink(`${path}/device`).then(
      () => true,
      () => false,
    )
    if (!isReal || (await readFile(`${path}/addr_assign_type`, 'utf8')).trim() !== '0') continue
    addresses.push((await readFile(`${path}/address`, 'utf8')).trim().toLowerCase())
  }
  return addresses.filter((address) => cleanFactor('mac', address)).sort()[0]
}

/** An address that only this machine can mean identifies nothing. */
function originOfUrl(url: URL | undefined): string | undefined {
  if (!url) return undefined
  const host = url.hostname.replaceAll(/[[\]]/g, '')
  const isLocal = host === 'localhost' || host.endsWith('.localhost') || /^127\.|^0\.0\.0\.0$|^::1?$/.test(host)
  return isLocal ? undefined : url.origin.toLowerCase()
}

const account = '/var/run/secrets/kubernetes.io/serviceaccount'

async function readOwnNamespace(): Promise<string | undefined> {
  return readNamespaceUid((await readFile(`${account}/namespace`, 'utf8')).trim())
}

/** The one request that licensing ever makes: to the API of the cluster it runs in [L-1]. */
async function readNamespaceUid(namespace: string): Promise<string | undefined> {
  const [token, ca] = await Promise.all([readFile(`${account}/token`, 'utf8'), readFile(`${account}/ca.crt`)])
  const url = `https://kubernetes.default.svc/api/v1/namespaces/${encodeURIComponent(namespace)}`
  return new Promise((resolve, reject) => {
    const call = request(url, { ca, headers: { authorization: `Bearer ${token.trim()}` }, timeout: readTimeoutMs }, (response) => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => (body += chunk))
      response.on('error', reject)
      response.on('end', () => resolve(response.statusCode === 200 ? uidIn(body) : undefined))
    })
    call.on('timeout', () => call.destroy())
    call.on('error', reject)
    call.end()
  })
}

function uidIn(body: string): string | undefined {
  try {
    const { metadata } = JSON.parse(body) as { metadata?: { uid?: unknown } }
    return typeof metadata?.uid === 'string' ? metadata.uid : undefined
  } catch {
    return undefined
  }
}
