// SPDX-License-Identifier: AGPL-3.0-only

/** What of a JSON Schema the API's description uses. */
type Schema = {
  $ref?: string
  type?: string | string[]
  const?: unknown
  enum?: unknown[]
  anyOf?: Schema[]
  oneOf?: Schema[]
  allOf?: Schema[]
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  additionalProperties?: boolean | Schema
  patternProperties?: Record<string, Schema>
}
type Parameter = { name: string; in: string; required?: boolean; schema: Schema }
type Content = { content?: Record<string, { schema?: Schema }> }
type Operation = {
  summary?: string
  parameters?: Parameter[]
  requestBody?: Content & { required?: boolean }
  responses?: Record<string, Content>
}
type OpenApi = { paths: Record<string, Record<string, Operation>>; components?: { schemas?: Record<string, Schema> } }

const codesPerRow = 4
const methods = ['get', 'post', 'put', 'patch', 'delete']

/** The types of the client package: one member per operation, and the codes of refusals. */
export function formatClientTypes(openapi: unknown, codes: readonly string[]): string {
  const { paths, components } = openapi as OpenApi
  const operations = Object.entries(paths).flatMap(([path, item]) =>
    methods.flatMap((method) => {
      const operation = item[method]
      return operation
        ? [`  ${operation.summary ? `/** ${operation.summary}. */\n  ` : ''}'${method.toUpperCase()} ${path}': ${describe(operation)}`]
        : []
    }),
  )
  const text = operations.join('\n')
  // Refusals are thrown, so that their shape is none of an operation's.
  const shared = Object.entries(components?.schemas ?? {})
    .filter(([name]) => new RegExp(`\\b${name}\\b`).test(text))
    .map(([name, schema]) => `export type ${name} = ${typeOf(schema)}\n`)
  return [
    '// SPDX-License-Identifier: AGPL-3.0-only',
    '// Written by core/tools/generate.ts from core/openapi.json and core/src/errors.ts.',
    '',
    ...shared,
    '/** What each operation of the API takes and gives. */',
    'export type Api = {',
    text,
    '}',
    '',
    '/** Codes of refusals, which stay what they are. */',
    'export type ErrorCode =',
    ...inRows([...codes].sort((a, b) => (a < b ? -1 : 1)).map((code) => `| '${code}'`)),
    '',
  ].join('\n')
}

/** Several to a line: they are many. */
function inRows(words: readonly string[]): string[] {
  return Array.from(
    { length: Math.ceil(words.length / codesPerRow) },
    (_, row) => `  ${words.slice(row * codesPerRow, (row + 1) * codesPerRow).join(' ')}`,
  )
}

function describe({ parameters = [], requestBody, responses = {} }: Operation): string {
  const members: string[] = []
  for (const place of ['path', 'query']) {
    const own = parameters.filter((one) => one.in === place)
    if (own.length === 0) continue
    const isNeeded = own.some((one) => one.required === true)
    const fields = own.map((one) => `${nameOf(one.name)}${one.required === true ? '' : '?'}: ${typeOf(one.schema)}`)
    members.push(`${place}${isNeeded ? '' : '?'}: { ${fields.join('; ')} }`)
  }
  const body = schemaOf(requestBody)
  if (body) members.push(`body${requestBody?.required === true ? '' : '?'}: ${typeOf(body)}`)
  const good = Object.entries(responses).filter(([status]) => status.startsWith('2'))
  const answers = [...new Set(good.map(([, one]) => typeOf(schemaOf(one) ?? {})))]
  return `{ ${[...members, `response: ${answers.join(' | ') || 'unknown'}`].join('; ')} }`
}

const schemaOf = (content: Content | undefined): Schema | undefined => Object.values(content?.content ?? {})[0]?.schema

function typeOf(schema: Schema): string {
  if (schema.$ref) return schema.$ref.split('/').at(-1)!
  if (schema.const !== undefined) return literal(schema.const)
  if (schema.enum) return oneOf(schema.enum.map(literal))
  const choice = schema.anyOf ?? schema.oneOf
  if (choice) return oneOf(choice.map(typeOf))
  if (schema.allOf) return schema.allOf.map((one) => `(${typeOf(one)})`).join(' & ')
  if (Array.isArray(schema.type)) return oneOf(schema.type.map((type) => typeOf({ ...schema, type })))
  switch (schema.type) {
    case 'string':
      return 'string'
    case 'integer':
    case 'number':
      return 'number'
    case 'boolean':
      return 'boolean'
    case 'null':
      return 'null'
    case 'array':
      return `(${typeOf(schema.items ?? {})})[]`
    case 'object':
      return objectOf(schema)
    default:
      return 'unknown'
  }
}

function objectOf({ properties, required = [], additionalProperties, patternProperties }: Schema): string {
  const fields = Object.entries(properties ?? {}).map(
    ([name, one]) => `${nameOf(name)}${required.includes(name) ? '' : '?'}: ${typeOf(one)}`,
  )
  if (fields.length > 0) return `{ ${fields.join('; ')} }`
  const values = typeof additionalProperties === 'object' ? additionalProperties : Object.values(patternProperties ?? {})[0]
  if (values) return `Record<string, ${typeOf(values)}>`
  return additionalProperties === false ? 'Record<string, never>' : 'Record<string, unknown>'
}

const literal = (value: unknown): string => (typeof value === 'string' ? `'${value.replace(/[\\']/g, '\\$&')}'` : JSON.stringify(value))
const nameOf = (name: string): string => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : literal(name))
const oneOf = (types: readonly string[]): string => {
  const distinct = [...new Set(types)]
  return distinct.length === 1 ? distinct[0]! : distinct.join(' | ')
}
