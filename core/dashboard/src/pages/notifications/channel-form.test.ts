// SPDX-License-Identifier: AGPL-3.0-only
import { expect, it } from 'vitest'
import { readFields, toConfig, toValues } from './channel-form.ts'

const email = {
  secrets: ['password'],
  schema: {
    type: 'object',
    required: ['host', 'port', 'security'],
    properties: {
      replyTo: { type: 'string' },
      host: { type: 'string' },
      port: { type: 'integer' },
      security: { anyOf: [{ const: 'tls' }, { const: 'none' }] },
      password: { type: 'string' },
      headers: { type: 'object' },
      phones: { type: 'array' },
      oldSecret: { type: 'string' },
    },
  },
}
const fields = readFields(email)

it('reads fields from the schema, required ones first, and leaves out what is not typed', () => {
  expect(fields.map(({ name, kind }) => `${name}:${kind}`)).toEqual([
    'host:text',
    'port:number',
    'security:choice',
    'replyTo:text',
    'password:text',
    'headers:pairs',
    'phones:lines',
  ])
  expect(fields.find(({ name }) => name === 'password')).toMatchObject({ isSecret: true, isRequired: false })
})

it('begins with defaults and the first choice, and never with a secret', () => {
  expect(toValues(fields, undefined)).toMatchObject({ security: 'tls', host: '', password: '' })
  expect(toValues(fields, { host: 'a', port: 25, headers: { x: '1' }, phones: ['1', '2'], password: 'no' })).toMatchObject({
    port: '25',
    headers: 'x: 1',
    phones: '1\n2',
    password: '',
    security: '',
  })
})

it('sends what is typed in its type', () => {
  const values = { host: ' mail ', port: '465', security: 'tls', headers: 'a: b:c\n\nd:', phones: '1\n 2 ', password: 'p' }
  expect(toConfig(fields, values, { isStored: false })).toEqual({
    host: 'mail',
    port: 465,
    security: 'tls',
    headers: { a: 'b:c', d: '' },
    phones: ['1', '2'],
    password: 'p',
  })
})

it('keeps a stored secret that is left empty, and takes other emptied fields away', () => {
  expect(toConfig(fields, { host: 'h', port: '1', security: 'none' }, { isStored: true })).toEqual({
    host: 'h',
    port: 1,
    security: 'none',
    replyTo: null,
    headers: null,
    phones: null,
  })
})

it('lets a pasted address replace the secrets it holds', () => {
  const robot = readFields({
    secrets: ['token', 'signSecret'],
    schema: { required: ['token'], properties: { token: { type: 'string' }, signSecret: { type: 'string' } } },
  })
  expect(toConfig(robot, {}, { isStored: true, address: 'https://robot/1' })).toEqual({ url: 'https://robot/1', token: null })
})
