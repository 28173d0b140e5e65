// SPDX-License-Identifier: AGPL-3.0-only
import { Counter } from 'prom-client'
import type { Registry } from 'prom-client'
import { watchGauge } from '../system/ingest-counters.ts'
import type { RuleEngine } from './engine.ts'

/** What operators see of rules [14]; neither a device nor a rule is a label. */
export function watchRules(registry: Registry, { live, journal }: RuleEngine): void {
  watchCounter(registry, 'iot_pms_rule_evaluations_total', 'Rules judged at a device', () => live.evaluationCount)
  watchCounter(registry, 'iot_pms_rule_late_points_total', 'Points older than the newest of their key', () => live.lateCount)
  watchCounter(
    registry,
    'iot_pms_rule_overflows_total',
    'Times rules went on with what is stored, since too much waited',
    () => live.overflowCount,
  )
  watchCounter(registry, 'iot_pms_alarm_transitions_total', 'Alarms raised, changed and cleared by rules', () => journal.transitionCount)
  watchGauge(registry, 'iot_pms_rule_timers', 'Devices at which a rule waits for an instant', () => live.timerCount)
  watchGauge(registry, 'iot_pms_rule_devices', 'Devices under a rule', () => live.scenes.size)
  watchGauge(registry, 'iot_pms_rule_waiting_messages', 'Committed messages that are not judged yet', () => live.depth)
}

function watchCounter(registry: Registry, name: string, help: string, read: () => number): void {
  const counter = new Counter({
    name,
    help,
    registers: [registry],
    collect() {
      counter.reset()
      counter.inc(read())
    },
  })
}
