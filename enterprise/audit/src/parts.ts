// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import type { ModuleContext } from '@iot-pms/core'
import { Keeper } from './keeper.ts'
import { Recorder } from './recorder.ts'
import { Settings } from './settings.ts'
import { SinkStore } from './sink-store.ts'

/** What a running audit consists of. */
export type AuditParts = { context: ModuleContext; settings: Settings; recorder: Recorder; sinks: SinkStore; keeper: Keeper }

const made = new WeakMap<ModuleContext, AuditParts>()

/** Each start of the module has a context of its own; its steps share these. */
export function partsOf(context: ModuleContext): AuditParts {
  const known = made.get(context) ?? createParts(context)
  made.set(context, known)
  return known
}

function createParts(context: ModuleContext): AuditParts {
  const settings = new Settings(context)
  const sinks = new SinkStore(context)
  return { context, settings, recorder: new Recorder(settings), sinks, keeper: new Keeper(context, sinks) }
}
