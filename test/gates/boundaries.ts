// SPDX-License-Identifier: AGPL-3.0-only
import { findPattern } from './files.ts'
import type { Finding, TrackedFile } from './files.ts'
import { blankComments } from './source.ts'

type Ban = {
  /** Where the ban holds. */
  inside: RegExp
  /** Files that may: the one place where the thing belongs. */
  but: RegExp
  pattern: RegExp
  message: string
  /** Look into strings too, as for the paths of imports. */
  strings?: boolean
}

/** Files that exist for tests and are not part of the running server. */
const testing = /\.test\.ts$|\/testing(?:-[\w-]+)?\.ts$/

/**
 * [RE-60] Files of core/src/ingest that connect it to the real world. All others get clock, randomness,
 * sockets and store as arguments, so that a simulation can run them in virtual time. Add a file only when
 * it is such an adapter.
 */
const ingestAdapters = /^core\/src\/ingest\/(?:mqtt\/(?:endpoint|one-buffer|tls)|http|start-ingest)\.ts$/

const bans: readonly Ban[] = [
  {
    inside: /^core\/src\//,
    but: /^core\/src\/config\.ts$/,
    pattern: /\bprocess\s*\.\s*env\b|\bprocess\s*\[/,
    message: 'reads the environment: settings come from core/src/config.ts',
  },
  {
    inside: /^core\/src\//,
    but: /^core\/src\/db\//,
    pattern: /\.\s*unsafe\s*\(|\bsql\s*\.\s*raw\b/,
    message: 'runs SQL that is not a fixed text: bind values, or move it to core/src/db',
  },
  {
    inside: /^core\/src\//,
    but: /^core\/src\/db\//,
    pattern: /\.query(?:<[^>]*>)?\s*\(\s*(?:\{\s*text:\s*)?`[^`]*\$\{/,
    message: 'builds SQL from values: bind them as parameters',
  },
  {
    inside: /^core\/src\/ingest\//,
    but: ingestAdapters,
    pattern:
      /\bDate\s*\.\s*now\b|\bnew\s+Date\s*\(\s*\)|\bperformance\s*\.\s*now\b|\bMath\s*\.\s*random\b|(?<![.\w])(?:setTimeout|setInterval|setImmediate)\b/,
    message: 'takes time or chance from the machine [RE-60]: use the clock and the generator it is given',
  },
  {
    inside: /^core\/src\/ingest\//,
    but: ingestAdapters,
    pattern: /^import\s+(?!type\b)[^'"]*['"](?:node:net|node:tls|node:timers(?:\/promises)?|postgres|pg)['"]/m,
    message: 'opens connections itself [RE-60]: take the store or the sockets as an argument',
    strings: true,
  },
  {
    inside: /^core\/src\//,
    // The simulator calls the server it is told at the command line; a device it plays is no configured address.
    // Neither is the API of the cluster that a pod runs in, which tells the factors of a license.
    // Notifications speak HTTP over a socket that outbound.ts has opened.
    but: /^core\/src\/(?:outbound\.ts$|db\/|simulate\/|license\/factors\.ts$|notifications\/transport\.ts$)/,
    pattern:
      /(?<![.\w])fetch\s*\(|^import\s+(?!type\b)[^'"]*\b(?:connect|connectAsync|createConnection|request|get)\b[^'"]*['"](?:node:net|node:tls|node:https?|mqtt)['"]|^import\s+(?!type\b)[^'"]*['"]undici['"]/m,
    message: 'connects to somewhere [SC-90]: configured addresses are connected to by core/src/outbound.ts',
    strings: true,
  },
  {
    inside: /^core\//,
    but: /^$/,
    pattern: /(?:from|import)\s*\(?\s*['"][^'"]*(?:\/|^)(?:verticals|enterprise|saas|license-tools)\//,
    message: 'names a commercial module: core finds modules by their manifests',
    strings: true,
  },
  {
    inside: /^(?:core\/src\/license|license-tools)\//,
    but: /^$/,
    pattern:
      /\b(?:EmbeddedJWK|createRemoteJWKSet|createLocalJWKSet|decodeJwt|importJWK|importSPKI)\b|['"](?:@fastify\/jwt|fast-jwt|jsonwebtoken)['"]/,
    message: 'takes the key or the claims of a license from somewhere else than our own keys and checks [L-14]',
    strings: true,
  },
  {
    inside: /^(?:core|verticals|enterprise|saas)\//,
    but: /^$/,
    pattern: /\beval\s*\(|\bnew\s+Function\s*\(/,
    message: 'runs text as code',
  },
]

/** Things that belong in one place only are found nowhere else. */
export function checkBoundaries(files: readonly TrackedFile[]): Finding[] {
  return files.flatMap((file) => {
    if (!file.path.endsWith('.ts') || file.text === undefined || testing.test(file.path)) return []
    const { path, text } = file
    const code = { bare: blankComments(text), withStrings: blankComments(text, { strings: false }) }
    return bans
      .filter((ban) => ban.inside.test(path) && !ban.but.test(path))
      .flatMap((ban) =>
        findPattern(file, ban.pattern, () => ban.message, ban.strings || ban.pattern.source.includes('`') ? code.withStrings : code.bare),
      )
  })
}
