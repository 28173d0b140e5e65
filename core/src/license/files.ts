// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { watch } from 'node:fs'
import type { FSWatcher } from 'node:fs'
import { open, readdir, stat } from 'node:fs/promises'
import { dirname, join, parse } from 'node:path'
import { ProblemError } from '../errors.ts'
import { installCrl, installLicense } from './install.ts'
import type { LicenseService } from './license.ts'
import { maxCrlBytes, maxLicenseBytes } from './schemas.ts'

const everyMs = 60_000
/** Mounts change in several steps; one reading after the last of them is enough. */
const settleMs = 200
const fileActor = { id: 'file', name: 'file' }

type Found = { name: string; kind: 'license' | 'crl'; source: 'file' | 'env'; text: string }
export type FileRefusal = { file: string; code: string; at: number }

/**
 * [L-74] Licenses and lists that lie in a file or folder, or in the environment. Read at the start, when the folder
 * changes and every minute; each content is tried once.
 */
export class FileSource {
  readonly #service: LicenseService
  readonly #builtInCrl: string | undefined
  /** What became of each content: undefined for taken. */
  readonly #tried = new Map<string, FileRefusal | undefined>()
  #refusals: readonly FileRefusal[] = []
  #reading: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #settling: NodeJS.Timeout | undefined
  #watcher: FSWatcher | undefined
  #isStopped = false

  /** @param builtInCrl path of the list that comes with the build [L-82] */
  constructor(service: LicenseService, builtInCrl?: string) {
    this.#service = service
    this.#builtInCrl = builtInCrl
  }

  /** [L-75] What was refused of the files that are there now. */
  get refusals(): readonly FileRefusal[] {
    return this.#refusals
  }

  async start(): Promise<void> {
    await this.read()
    const { file } = this.#service.context.config.license
    if (!file) return
    this.#timer = setInterval(() => void this.read(), everyMs).unref()
    try {
      const isFolder = (await stat(file).catch(() => undefined))?.isDirectory()
      // The folder and not the file: a mounted secret is swapped by its links.
      this.#watcher = watch(isFolder ? file : dirname(file), { persistent: false }, () => {
        clearTimeout(this.#settling)
        this.#settling = setTimeout(() => void this.read(), settleMs).unref()
      })
      this.#watcher.on('error', () => this.#watcher?.close())
    } catch {
      // A folder that is not there yet is looked at every minute.
    }
  }

  stop(): void {
    this.#isStopped = true
    clearInterval(this.#timer)
    clearTimeout(this.#settling)
    this.#watcher?.close()
  }

  /** Never fails, and never runs twice at a time. */
  read(): Promise<void> {
    this.#reading ??= this.#read()
      .catch((error: unknown) => {
        if (!this.#isStopped) this.#service.context.log.warn({ err: error }, 'the license files could not be read')
      })
      .finally(() => (this.#reading = undefined))
    return this.#reading
  }

  async #read(): Promise<void> {
    const found = await this.#find()
    const refusals: FileRefusal[] = []
    const filed = new Set<string>()
    // Lists first: a license may ask for one.
    for (const one of [...found.filter(({ kind }) => kind === 'crl'), ...found.filter(({ kind }) => kind === 'license')]) {
      const hash = createHash('sha256').update(one.kind).update(one.text).digest('hex')
      if (!this.#tried.has(hash)) this.#tried.set(hash, await this.#take(one, hash))
      const refusal = this.#tried.get(hash)
      if (refusal) refusals.push({ ...refusal, file: one.name })
      else if (one.kind === 'license') filed.add(await this.#readJti(one.text))
    }
    this.#refusals = refusals
    if (this.#service.setFiled(filed)) await this.#service.load()
  }

  async #take({ name, kind, source, text }: Found, hash: string): Promise<FileRefusal | undefined> {
    const once = `${kind} file ${hash.slice(0, 16)}`
    try {
      if (kind === 'crl') await installCrl(this.#service, fileActor, text, { once })
      else await installLicense(this.#service, { text, actor: fileActor, source, acknowledge: true, once })
      return undefined
    } catch (error) {
      if (!(error instanceof ProblemError) || error.status >= 500) throw error
      // The list that came with the build grows old where a newer one was installed.
      if (error.code === 'CRL_STALE' && name === 'crl.jwt') return undefined
      this.#service.context.log.warn({ file: name, code: error.code }, 'a license file was refused')
      return { file: name, code: error.code, at: this.#service.clock.now() }
    }
  }

  async #readJti(text: string): Promise<string> {
    const result = await this.#service.cache.verify(text)
    return result.ok ? result.claims.jti : ''
  }

  async #find(): Promise<Found[]> {
    const { file, text } = this.#service.context.config.license
    const found: Found[] = text ? [{ name: 'IOT_PMS_LICENSE_TEXT', kind: 'license', source: 'env', text }] : []
    const paths = [...(this.#builtInCrl ? [this.#builtInCrl] : []), ...(file ? await listPaths(file) : [])]
    for (const path of paths) {
      const kind = /\.(crl|jwt)$/.test(path) ? 'crl' : 'license'
      const content = await readUpTo(path, kind === 'crl' ? maxCrlBytes : maxLicenseBytes)
      if (content !== undefined) found.push({ name: parse(path).base, kind, source: 'file', text: content })
    }
    return found
  }
}

/** A folder's licenses and lists in the order of their names, or the one file. */
async function listPaths(file: string): Promise<string[]> {
  const isFolder = (await stat(file).catch(() => undefined))?.isDirectory()
  if (!isFolder) return [file]
  return (await readdir(file))
    .filter((name) => /\.(lic|crl)$/.test(name))
    .sort()
    .map((name) => join(file, name))
}

/** One byte more than allowed is enough to be refused for its size. */
async function readUpTo(path: string, maxBytes: number): Promise<string | undefined> {
  const handle = await open(path).catch(() => undefined)
  if (!handle) return undefined
  try {
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(maxBytes + 1), 0, maxBytes + 1, 0)
    return buffer.toString('utf8', 0, bytesRead)
  } catch {
    return undefined
  } finally {
    await handle.close()
  }
}
