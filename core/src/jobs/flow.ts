// SPDX-License-Identifier: AGPL-3.0-only
import { ProblemError } from '../errors.ts'
import type { JobDef } from './define.ts'

export type FlowNode = { ref: string; def: JobDef; data: { tenantId: string } & Record<string, unknown>; dependsOn?: string[] }

const maxFlowNodes = 1000

/** @throws {ProblemError} `FLOW_CYCLE` for jobs that wait for each other, or for one that is not there */
export function assertAcyclic(nodes: readonly FlowNode[]): void {
  if (nodes.length > maxFlowNodes) throw new Error(`${nodes.length} jobs are more than ${maxFlowNodes} in one flow`)
  const waits = new Map(nodes.map((node) => [node.ref, new Set(node.dependsOn)]))
  while (waits.size > 0) {
    const free = [...waits].filter(([, on]) => [...on].every((ref) => !waits.has(ref))).map(([ref]) => ref)
    if (free.length === 0) throw new ProblemError('FLOW_CYCLE')
    for (const ref of free) waits.delete(ref)
  }
  const refs = new Set(nodes.map((node) => node.ref))
  const isKnown = nodes.every((node) => (node.dependsOn ?? []).every((ref) => refs.has(ref)))
  if (!isKnown || refs.size !== nodes.length) throw new ProblemError('FLOW_CYCLE')
}
