// SPDX-License-Identifier: AGPL-3.0-only
import { statSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Context } from '../context.ts'
import { ProblemError } from '../errors.ts'
import type { DiskGuard } from '../system/disk-guard.ts'
import { keepNewest, listBackupFiles, writeBackupFile } from './backup-file.ts'
import { Databases, stampOf } from './databases.ts'

/** [RE-96] */
const hour = 2
const kept = 14
const prefix = 'iot-pms-config-'
const checkMs = 600_000
const dayMs = 86_400_000

export type StoredBackup = { name: string; kind: 'full' | 'config'; createdAt: string; sizeBytes: number }

/**
 * Writes a backup of the configuration every night, and removes databases that a restore has replaced long ago. Without
 * `adminUrl`, of a server whose login may not read all tables, it makes none.
 */
export class DailyBackup {
  readonly #context: Pick<Context, 'config' | 'clock' | 'log' | 'audit' | 'rootTenant'>
  readonly #adminUrl: string | undefined
  readonly #disk: Pick<DiskGuard, 'assertDiskHasRoom'>
  readonly #startedAt: number
  #cancelTimer: (() => void) | undefined
  #running: Promise<void> | undefined
  #triedAt = 0
  #isStopped = false

  constructor(
    context: Pick<Context, 'config' | 'clock' | 'log' | 'audit' | 'rootTenant'>,
    { adminUrl, disk }: { adminUrl: string | undefined; disk: Pick<DiskGuard, 'assertDiskHasRoom'> },
  ) {
    this.#context = context
    this.#adminUrl = adminUrl
    this.#disk = disk
    this.#startedAt = context.clock.now()
  }

  start(): void {
    if (this.#adminUrl === undefined) return
    this.#cancelTimer ??= this.#context.clock.after(checkMs, () => {
      this.#cancelTimer = undefined
      void this.run().then(() => {
        if (!this.#isStopped) this.start()
      })
    })
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#cancelTimer?.()
    await this.#running
  }

  get folder(): string {
    return join(this.#context.config.dataDir, 'backups')
  }

  /** Makes the backup of this night, if it is not there. Never fails; one that failed is tried again the next hour. */
  run(): Promise<void> {
    this.#running ??= this.#run().finally(() => (this.#running = undefined))
    return this.#running
  }

  async #run(): Promise<void> {
    const { clock, log } = this.#context
    const now = clock.now()
    if (!this.#isDue(now) || now - this.#triedAt < 6 * checkMs) return
    this.#triedAt = now
    try {
      this.#disk.assertDiskHasRoom()
      await this.#write(now, { actor: 'job:backup' })
      await this.#discardOld(now)
    } catch (error) {
      log.error({ err: error }, 'the backup of this night failed')
    }
  }

  /** What lies in the folder, whoever made it, the newest first. */
  async list(): Promise<{ folder: string; items: StoredBackup[]; nextAt: string | null }> {
    const now = this.#context.clock.now()
    const items = listBackupFiles(this.folder, 'iot-pms-').map((name) => describe(this.folder, name))
    const night = new Date(now).setHours(hour, 0, 0, 0)
    const nextAt = this.#adminUrl === undefined || this.#isDue(now) ? null : new Date(night > now ? night : night + dayMs).toISOString()
    return { folder: this.folder, items: items.toSorted((a, b) => b.createdAt.localeCompare(a.createdAt)), nextAt }
  }

  /** Makes one of the configuration now. @throws {ProblemError} `DISK_LOW`, `BACKUP_ELSEWHERE` */
  async make(): Promise<StoredBackup> {
    this.#disk.assertDiskHasRoom()
    const file = await this.#write(this.#context.clock.now(), {})
    return describe(this.folder, basename(file))
  }

  /** A server that was off at that hour makes it when it is back; one that is new waits for its first night. */
  #isDue(now: number): boolean {
    const night = new Date(now).setHours(hour, 0, 0, 0)
    const last = night <= now ? night : night - dayMs
    const newest = listBackupFiles(this.folder, prefix).at(-1)
    return newest === undefined ? this.#startedAt < last : newest.slice(prefix.length, -4) < stampOf(new Date(last))
  }

  get #login(): string {
    if (this.#adminUrl === undefined) throw new ProblemError('BACKUP_ELSEWHERE')
    return this.#adminUrl
  }

  async #write(now: number, by: { actor?: string }): Promise<string> {
    const { audit, log, rootTenant } = this.#context
    const file = join(this.folder, `${prefix}${stampOf(new Date(now))}.tar`)
    const draft = { type: 'backup.create', subject: '-', targetName: file, ...by }
    await audit.around(rootTenant, draft, async () => {
      const { bytes } = await writeBackupFile(file, this.#login, { kind: 'config' })
      log.info({ file, bytes }, 'backed up the configuration')
    })
    keepNewest(this.folder, prefix, kept)
    return file
  }

  async #discardOld(now: number): Promise<void> {
    const databases = await Databases.open(this.#login)
    try {
      const gone = await databases.discardOld(now)
      if (gone.length > 0) this.#context.log.info({ databases: gone }, 'removed databases that a restore replaced more than 7 days ago')
    } finally {
      await databases.close()
    }
  }
}

function describe(folder: string, name: string): StoredBackup {
  const { size, mtime } = statSync(join(folder, name))
  return { name, kind: name.startsWith(prefix) ? 'config' : 'full', createdAt: mtime.toISOString(), sizeBytes: size }
}
