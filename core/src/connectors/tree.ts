// SPDX-License-Identifier: AGPL-3.0-only
import type { JsonReader } from '../ingest/json.ts'
import { readPoint } from '../ingest/values.ts'

/**
 * A JSON text as something to walk through. Members stand in maps, so that no name means more than itself [SC-95],
 * and every node knows its bytes: values are read from those, digit by digit as they were sent.
 */
export type TreeNode = { start: number; end: number } & (
  | { kind: 'object'; members: ReadonlyMap<string, TreeNode> }
  | { kind: 'list'; items: readonly TreeNode[] }
  /** `text`: the string itself, or the literal as it was sent. */
  | { kind: 'scalar'; text: string }
  | { kind: 'null' }
)

/** Reads the value the reader stands at; whether the text is well-formed is known once the reader has finished it. */
export function readTree(reader: JsonReader): TreeNode {
  const isObject = reader.isAtObject()
  const start = reader.at
  if (isObject) {
    const members = new Map<string, TreeNode>()
    reader.enter()
    for (let name = reader.nextName(true); name !== undefined; name = reader.nextName(false)) {
      if (members.has(name)) reader.noteDuplicate(name)
      members.set(name, readTree(reader))
    }
    return { kind: 'object', members, start, end: reader.at }
  }
  if (reader.isAtArray()) {
    const items: TreeNode[] = []
    reader.enter()
    for (let more = reader.nextItem(true); more; more = reader.nextItem(false)) items.push(readTree(reader))
    return { kind: 'list', items, start, end: reader.at }
  }
  const isString = reader.isAtString()
  const point = readPoint(reader, '', false)
  const end = reader.at
  if (isString && !reader.hasFailed) return { kind: 'scalar', text: reader.text(), start, end }
  if (point === null) return { kind: 'null', start, end }
  return { kind: 'scalar', text: reader.bytes.toString('latin1', start, end), start, end }
}

/** The steps of a path: names and indices between dots, `\.` for a dot inside a name. The empty path is the whole. */
export function parsePath(path: string): readonly string[] {
  if (path === '') return []
  const steps: string[] = ['']
  for (let at = 0; at < path.length; at++) {
    if (path[at] === '\\' && at + 1 < path.length) steps.push(steps.pop()! + path[++at]!)
    else if (path[at] === '.') steps.push('')
    else steps.push(steps.pop()! + path[at]!)
  }
  return steps
}

export function findNode(root: TreeNode, steps: readonly string[]): TreeNode | undefined {
  let node: TreeNode | undefined = root
  for (const step of steps) {
    if (node?.kind === 'object') node = node.members.get(step)
    else if (node?.kind === 'list' && /^\d{1,6}$/.test(step)) node = node.items[Number(step)]
    else return undefined
  }
  return node
}
