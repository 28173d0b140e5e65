// SPDX-License-Identifier: AGPL-3.0-only
import { X509Certificate, constants, createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { hostname, networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import type { SecureContext } from 'node:tls'
import type { Clock } from '../clock.ts'
import { checkSecretMode, configError } from '../config.ts'
import type { Config } from '../config.ts'
import { StartError, exitCodes } from '../errors.ts'
import type { Log } from '../log.ts'
import { makeCertificate } from './make-certificate.ts'

/** How soon a changed file is noticed. */
const watchMs = 2000
const dayMs = 86_400_000
/** Ten years: devices that trust the certificate itself are rarely visited. */
const lifeMs = 3652 * dayMs
/** [SC-62] Forward secrecy and authenticated encryption; those of TLS 1.3 by their names, those of 1.2 by their parts. */
const ciphers = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:ECDHE+AESGCM:ECDHE+CHACHA20'
/** The clock of a device may be behind. */
const earlierMs = dayMs

type Loaded = { context: SecureContext; fingerprint: string; validTo: Date }

/**
 * The certificate of the server for devices: the files of the settings, or one of its own that is made at the
 * first start. The files are read again when they change; connections that are open keep what they have.
 */
export class ServerCertificate {
  readonly #certFile: string
  readonly #keyFile: string
  readonly #clock: Clock
  readonly #log: Log
  #loaded: Loaded | undefined
  /** Of the files as they were last looked at. */
  #stamp = ''
  #cancel: (() => void) | undefined

  /** @throws {StartError} `TLS_FILES` when the files are missing or do not belong together */
  constructor(config: Pick<Config, 'dataDir' | 'tls' | 'publicUrl'>, clock: Clock, log: Log) {
    this.#clock = clock
    this.#log = log
    const { certFile, keyFile } = config.tls
    const folder = join(config.dataDir, 'tls')
    this.#certFile = certFile ?? join(folder, 'server.crt')
    this.#keyFile = keyFile ?? join(folder, 'server.key')
    const isOurs = certFile === undefined && keyFile === undefined
    if (isOurs && !existsSync(this.#certFile) && !existsSync(this.#keyFile)) {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      makeFiles(this.#certFile, this.#keyFile, listHosts(config.publicUrl), clock.now())
    }
    try {
      this.#stamp = this.#readStamp()
      this.#loaded = load(this.#certFile, this.#keyFile)
    } catch (error) {
      throw new StartError(
        'TLS_FILES',
        exitCodes.config,
        `The TLS certificate ${this.#certFile} with its key ${this.#keyFile} cannot be used: ${(error as Error).message}`,
        'Name PEM files that belong together in IOT_PMS_TLS_CERT_FILE and IOT_PMS_TLS_KEY_FILE, or set IOT_PMS_MQTTS_PORT=off.',
        error,
      )
    }
    const problems: string[] = []
    checkSecretMode(this.#keyFile, problems)
    if (problems.length > 0) throw configError(problems, 'SECRET_FILE_MODE')
  }

  /** What new connections use. */
  get context(): SecureContext {
    return this.#loaded!.context
  }

  /** SHA-256 of the certificate as people compare it: pairs of hex digits with colons. */
  get fingerprint(): string {
    return this.#loaded!.fingerprint
  }

  start(): void {
    this.#tell('TLS certificate of the MQTT endpoint')
    this.#schedule()
  }

  stop(): void {
    this.#cancel?.()
  }

  #schedule(): void {
    this.#cancel = this.#clock.after(watchMs, () => {
      this.#look()
      this.#schedule()
    })
  }

  /** A file that is half written, or the first of two, is no error: the next look finds both. */
  #look(): void {
    let stamp = ''
    try {
      stamp = this.#readStamp()
      if (stamp === this.#stamp) return
      this.#loaded = load(this.#certFile, this.#keyFile)
      this.#tell('TLS certificate read again')
    } catch (error) {
      if (stamp !== this.#stamp) this.#log.warn({ err: error, file: this.#certFile }, 'changed TLS files cannot be used, the old ones stay')
    }
    this.#stamp = stamp
  }

  #tell(text: string): void {
    const { fingerprint, validTo } = this.#loaded!
    this.#log.info({ file: this.#certFile, fingerprint, validTo }, text)
  }

  #readStamp(): string {
    return [this.#certFile, this.#keyFile]
      .map((file) => {
        const { mtimeMs, size, ino } = statSync(file)
        return `${mtimeMs} ${size} ${ino}`
      })
      .join(' ')
  }
}

function load(certFile: string, keyFile: string): Loaded {
  const cert = readFileSync(certFile, 'utf8')
  const key = readFileSync(keyFile, 'utf8')
  const certificate = new X509Certificate(cert)
  if (!certificate.checkPrivateKey(createPrivateKey(key))) throw new Error('the key is not that of the certificate')
  const context = createSecureContext({
    cert,
    key,
    minVersion: 'TLSv1.2',
    ciphers,
    // A resumed connection would come without the certificate of the client; a renegotiation is only good for attacks.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  })
  return { context, fingerprint: certificate.fingerprint256, validTo: certificate.validToDate }
}

function makeFiles(certFile: string, keyFile: string, hosts: readonly string[], now: number): void {
  const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const notBefore = new Date(now - earlierMs)
  const cert = makeCertificate({ subject: 'IoT PMS', key, use: 'server', notBefore, notAfter: new Date(now + lifeMs), hosts })
  writeFileSync(keyFile, key.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600, flag: 'wx' })
  writeFileSync(certFile, cert, { mode: 0o644, flag: 'wx' })
}

/** Every name and address this machine may be reached by. */
function listHosts(publicUrl: URL | undefined): string[] {
  const addresses = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .map(({ address }) => address.replace(/%.*$/, ''))
  const names = ['localhost', hostname(), publicUrl?.hostname.replace(/^\[|\]$/g, '') ?? '']
  return [...new Set([...names.filter((name) => /^[A-Za-z0-9_.:-]{1,253}$/.test(name)), '127.0.0.1', '::1', ...addresses])]
}
