// SPDX-License-Identifier: AGPL-3.0-only

/** The one-time token of a link: in the fragment it reaches no log and no referrer. */
export function readFragmentToken(text: string): string | undefined {
  return /(?:^|[#&])t=([A-Za-z0-9_-]{20,100})/.exec(text)?.[1]
}
