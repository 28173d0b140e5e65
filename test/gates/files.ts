// SPDX-License-Identifier: AGPL-3.0-only
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'

/** A file of the repository; `path` is relative to the root, with slashes. `text` is absent in binary files. */
export type TrackedFile = { path: string; text: string | undefined }

/** What a gate found wrong. */
export type Finding = { path: string; line?: number; message: string }

export const root = resolve(import.meta.dirname, '../..')

/**
 * The files that git tracks, as they are in the working tree. Deleted ones are left out, so that a
 * checkout without the commercial folders can be judged too.
 */
export function readTrackedFiles(folder: string = root): TrackedFile[] {
  const names = execFileSync('git', ['ls-files', '-z'], { cwd: folder, encoding: 'utf8', maxBuffer: 1 << 26 })
  return names
    .split('\0')
    .filter((name) => name !== '' && existsSync(join(folder, name)) && statSync(join(folder, name)).isFile())
    .map((path) => ({ path, text: decode(readFileSync(join(folder, path))) }))
}

/** Findings of one pattern, with their lines. `message` gets the match. */
export function findPattern(file: TrackedFile, pattern: RegExp, message: (match: string) => string, text = file.text): Finding[] {
  const findings: Finding[] = []
  for (const match of (text ?? '').matchAll(new RegExp(pattern, pattern.flags.includes('g') ? pattern.flags : `${pattern.flags}g`))) {
    findings.push({ path: file.path, line: lineAt(text ?? '', match.index), message: message(match[0].trim()) })
  }
  return findings
}

/** Number of the line, from 1, that holds the character at `index`. */
export function lineAt(text: string, index: number): number {
  let line = 1
  for (let at = text.indexOf('\n'); at !== -1 && at < index; at = text.indexOf('\n', at + 1)) line++
  return line
}

export function formatFinding(finding: Finding): string {
  return `${finding.path}${finding.line ? `:${finding.line}` : ''}  ${finding.message}`
}

function decode(bytes: Buffer): string | undefined {
  return bytes.subarray(0, 8000).includes(0) ? undefined : bytes.toString('utf8')
}
