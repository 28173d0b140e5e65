// SPDX-License-Identifier: AGPL-3.0-only

/** A name, qualified by its schema or not, quoted or not. */
const name = String.raw`((?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+))?)`
const flags = String.raw`(?:IF\s+(?:NOT\s+)?EXISTS\s+|ONLY\s+|CONCURRENTLY\s+)*`
const kinds = String.raw`(?:TABLE|INDEX|SEQUENCE|VIEW|MATERIALIZED\s+VIEW|FUNCTION|PROCEDURE|TYPE|DOMAIN)`

/** Statements a module's migration may hold, each with its target. */
const allowed: readonly RegExp[] = [
  new RegExp(String.raw`^CREATE\s+(?:OR\s+REPLACE\s+)?(?:UNLOGGED\s+)?(?!(?:UNIQUE\s+)?INDEX)${kinds}\s+${flags}${name}`, 'i'),
  new RegExp(String.raw`^CREATE\s+(?:UNIQUE\s+)?INDEX\s+${flags}(?:(?!ON\s)(?:"[^"]+"|\w+)\s+)?ON\s+${flags}${name}`, 'i'),
  new RegExp(String.raw`^CREATE\s+(?:OR\s+REPLACE\s+)?(?:POLICY|TRIGGER|RULE)\s+[\s\S]*?\sON\s+${name}`, 'i'),
  new RegExp(String.raw`^(?:ALTER|DROP)\s+${kinds}\s+${flags}${name}`, 'i'),
  new RegExp(String.raw`^DROP\s+(?:POLICY|TRIGGER|RULE)\s+[\s\S]*?\sON\s+${name}`, 'i'),
  new RegExp(String.raw`^COMMENT\s+ON\s+(?:${kinds}|COLUMN)\s+${name}`, 'i'),
  new RegExp(String.raw`^(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE(?:\s+TABLE)?)\s+(?:ONLY\s+)?${name}`, 'i'),
  new RegExp(String.raw`^(?:GRANT|REVOKE)\s+[\s\S]*?\sON\s+(?:TABLE\s+|FUNCTION\s+|SEQUENCE\s+)?${name}`, 'i'),
  /^SELECT\s+(?:public\.)?protect_(?:tenant|customer)_table\s*\(\s*'((?:\w+)(?:\.\w+)?)'/i,
]
/** Rows of a parent that go with it, or lose their link: core can delete what a locked module refers to. */
const references = new RegExp(String.raw`REFERENCES\s+${name}\s*(?:\([^)]*\))?([^,;]*)`, 'gi')
const coreParents = new Set(['tenants', 'devices', 'users'])

/**
 * [MO-50] Looks for what in a migration reaches outside the module's schema. A name without a schema lies in the module's own,
 * since that is first in the search path; text in a form that is not known is refused.
 *
 * @returns a sentence about the first such statement, or undefined
 */
export function findForeignTarget(text: string, schema: string): string | undefined {
  for (const statement of splitStatements(text)) {
    const match = allowed.map((pattern) => pattern.exec(statement)).find((one) => one !== null)
    const start = statement.replaceAll(/\s+/g, ' ').slice(0, 60)
    if (!match) return `"${start}" is no statement that a module may use`
    const [owner, own] = (match[1] ?? '').replaceAll('"', '').toLowerCase().split('.')
    const isField = /^COMMENT\s+ON\s+COLUMN/i.test(statement)
    if (own !== undefined && owner !== schema && !isField) return `"${start}" has a target outside the schema ${schema}`
    for (const reference of statement.matchAll(references)) {
      const parent = reference[1]!.replaceAll('"', '').toLowerCase()
      const [parentSchema, table] = parent.includes('.') ? parent.split('.') : [schema, parent]
      if (parentSchema === schema) continue
      if (parentSchema !== 'public' || !coreParents.has(table!)) return `"${start}" refers to ${parent}`
      if (!/ON\s+DELETE\s+(?:CASCADE|SET\s+NULL)/i.test(reference[2] ?? '')) return `"${start}" would keep core from deleting ${parent}`
    }
  }
  return undefined
}

/** Statements without their comments; bodies between dollar signs do not end one. */
function splitStatements(text: string): string[] {
  const parts = /--[^\n]*|\/\*[\s\S]*?\*\/|(\$\w*\$)[\s\S]*?\1|'(?:[^']|'')*'|;|[^;'$/-]+|[\s\S]/g
  const statements = ['']
  for (const [part] of text.matchAll(parts)) {
    if (part.startsWith('--') || part.startsWith('/*')) continue
    if (part === ';') statements.push('')
    else statements[statements.length - 1] += part.startsWith('$') && part.length > 1 ? "''" : part
  }
  return statements.map((one) => one.trim()).filter(Boolean)
}
