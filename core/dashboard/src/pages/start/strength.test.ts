// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { readFragmentToken } from './fragment.ts'
import { judgePassword } from './strength.ts'

it.each([
  ['short', 'short'],
  ['😀😀😀😀😀😀😀😀😀', 'short'],
  ['aaaaaaaaaaaa', 'weak'],
  ['battery-12', 'fair'],
  ['correct-horse-9-battery', 'good'],
])('judges %s as %s', (password, word) => {
  expect(judgePassword(password)).toBe(word)
})

it('reads the token of a link, whole or only its fragment, and nothing else', () => {
  const token = 'wkIyaNKIcbtdDJbaMPx0bWCoG7wrEb4ez8B0omaw4rY'
  expect(readFragmentToken(`#t=${token}`)).toBe(token)
  expect(readFragmentToken(`http://localhost:8080/setup#t=${token}`)).toBe(token)
  expect(readFragmentToken('#t=short')).toBeUndefined()
  expect(readFragmentToken('#s=wkIyaNKIcbtdDJbaMPx0bWCoG7wrEb4ez8B0omaw4rY')).toBeUndefined()
})
