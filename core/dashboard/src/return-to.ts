// SPDX-License-Identifier: AGPL-3.0-only

/**
 * A target from `return_to`, if it is a path of ours [SC-48]. It comes from the address, so anybody can write it.
 *
 * @returns the path inside the base, beginning with a slash; `/` for anything doubtful
 */
export function readReturnTo(text: unknown, base: URL): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  if (typeof text !== 'string' || !text.startsWith('/') || text.startsWith('//') || /[\\\u0000-\u001f\u007f]/.test(text)) return '/'
  let url: URL
  try {
    url = new URL(text.slice(1), base)
  } catch {
    return '/'
  }
  if (url.origin !== base.origin || !url.pathname.startsWith(base.pathname) || url.pathname.includes('//')) return '/'
  return `/${url.pathname.slice(base.pathname.length)}${url.search}${url.hash}`
}
