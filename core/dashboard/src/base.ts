// SPDX-License-Identifier: AGPL-3.0-only

/** Where the product is served: `/`, or e.g. `/iot/` behind a proxy. Written into `<base>` by the server [D-95]. */
export const baseUrl = new URL('.', document.baseURI)

/** Path of the base, with a slash at its end. */
export const basePath = baseUrl.pathname

/** Absolute address of something below the base; `path` has no slash at its start. */
export function urlOf(path: string): URL {
  return new URL(path, baseUrl)
}

/** The WebSocket address of something below the base. */
export function socketUrlOf(path: string): URL {
  const url = urlOf(path)
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
  return url
}
