// SPDX-License-Identifier: AGPL-3.0-only
import { findPattern } from './files.ts'
import type { Finding, TrackedFile } from './files.ts'

// Our own tokens are random: one without capitals is somebody's example.
const patterns: readonly { what: string; pattern: RegExp }[] = [
  { what: 'a private key', pattern: /-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----/ },
  { what: 'a device token', pattern: /\bpmsd_(?=\w*[A-Z])(?=\w*[a-z])[A-Za-z0-9]{20,}/ },
  { what: 'an API key', pattern: /\bpmsk_(?=\w*[A-Z])(?=\w*[a-z])[A-Za-z0-9]{20,}/ },
  { what: 'a JSON web token', pattern: /\beyJ[\w-]{16,}\.eyJ[\w-]{16,}\.[\w-]{16,}/ },
  { what: 'an AWS access key', pattern: /\b(?:AKIA|ASIA)[A-Z0-9]{16}\b/ },
  { what: 'a GitHub token', pattern: /\b(?:gh[pousr]_\w{36,}|github_pat_\w{50,})/ },
  { what: 'an npm token', pattern: /\bnpm_[A-Za-z0-9]{36}\b/ },
  { what: 'a Slack token', pattern: /\bxox[abprs]-[\w-]{20,}/ },
  {
    what: 'a password in a URL',
    pattern: /\b(?:postgres(?:ql)?|mqtts?|https?|amqps?|redis|nats):\/\/[^\s:/@'"`${}<>]+:(?!\/)[^\s/@'"`${}<>…]{8,}@[\w.-]+/,
  },
]

/** Values that documentation may show because they are no secrets. */
const placeholders = /:(?:password|changeme|\*+|<[^>]*>)@/i

/** [SC-113] No tracked file holds a key, token or password. The finding shows four characters only. */
export function checkSecrets(files: readonly TrackedFile[]): Finding[] {
  return files.flatMap((file) =>
    patterns.flatMap(({ what, pattern }) =>
      findPattern(file, pattern, (match) => (placeholders.test(match) ? '' : `looks like ${what}: ${match.slice(0, 4)}…`)).filter(
        (finding) => finding.message !== '',
      ),
    ),
  )
}
