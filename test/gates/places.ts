// SPDX-License-Identifier: AGPL-3.0-only
import { findPattern } from './files.ts'
import type { Finding, TrackedFile } from './files.ts'

/** Folders that exist on one person's or one build's machine only. */
const machinePath = /(?<![\w.:/@*-])(?:\/(?:home|Users|root|work|workspace|builds)\/[\w.-]+|[A-Z]:\\{1,2}Users\\)/

/** Package and image registries are the configuration of a machine, not of the project. */
const registryHost =
  /\bhttps?:\/\/(?:[\w-]+\.)*(?:registry|npmmirror|nexus|artifactory|verdaccio|jfrog)[\w-]*(?:\.[\w-]+)+|\bregistry\.[a-z][\w-]*\.(?:org|com|cn|io|net)\b/

/** Nothing in the repository depends on the machine it was written on, or on files beside the checkout. */
export function checkPlaces(files: readonly TrackedFile[]): Finding[] {
  return files
    .filter((file) => file.path !== 'LICENSE-AGPL')
    .flatMap((file) => [
      ...findPattern(file, machinePath, (match) => `names a path of one machine: ${match}`),
      ...findPattern(file, registryHost, (match) => `names a registry: ${match}`),
      ...findOutside(file),
    ])
}

/** `../` that climbs out of the repository. Tests may, to prove that it is refused; the lock file is relative to each package. */
function findOutside(file: TrackedFile): Finding[] {
  if (/\.test\.[a-z]+$|^pnpm-lock\.yaml$/.test(file.path)) return []
  const depth = file.path.split('/').length - 1
  return findPattern(file, /(?<![\w./])(?:\.\.\/)+[\w@.-]+/, (match) => match).filter((finding) => {
    const climbs = finding.message.split('../').length - 1
    finding.message = `leads out of the repository: ${finding.message}`
    return climbs > depth
  })
}
