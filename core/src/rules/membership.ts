// SPDX-License-Identifier: AGPL-3.0-only
import type { Context } from '../context.ts'
import type { LiveRules } from './live-rules.ts'
import type { DeviceCard, LiveScene } from './live-scene.ts'
import { loadCards } from './rule-loader.ts'
import type { RuleInForce } from './rule-loader.ts'
import { isTargeted } from './rule-targets.ts'
import type { SceneLoader } from './scene-loader.ts'
import type { Transfers } from './transfers.ts'

/** Which devices a rule is for, as devices come, change and go. */
export class Membership {
  readonly #parts: { context: Context; live: LiveRules; loader: SceneLoader; transfers: Transfers }

  constructor(parts: { context: Context; live: LiveRules; loader: SceneLoader; transfers: Transfers }) {
    this.#parts = parts
  }

  /** Devices are new, or other rules are for them now, or they are gone. */
  async judge(rules: readonly RuleInForce[], deviceIds: readonly string[]): Promise<void> {
    const tenant = rules[0]?.tenant
    if (!tenant) return
    const { context, live, loader, transfers } = this.#parts
    const cards = new Map(
      (await context.db.withTenant(tenant, (tx) => loadCards(tx, tenant, { ids: deviceIds }))).map((card) => [card.id, card]),
    )
    const fresh: { scene: LiveScene; rules: RuleInForce[] }[] = []
    for (const id of deviceIds) {
      const card = cards.get(id)
      const known = live.scenes.get(id)
      if (!card) {
        if (known) for (const rule of rules) transfers.leave(known, rule, 'device_deleted')
        continue
      }
      if (known) this.#rename(known, card)
      for (const rule of known ? rules : []) if (!isTargeted(rule.document.target, card)) transfers.leave(known!, rule, 'out_of_scope')
      const wanted = rules.filter(
        ({ document, compiled }) => isTargeted(document.target, card) && known?.lane.rules.includes(compiled) !== true,
      )
      if (wanted.length > 0) fresh.push({ scene: live.ensure(card), rules: wanted })
    }
    if (fresh.length === 0) return
    const wanted = [...new Set(fresh.flatMap((one) => one.rules))]
    await loader.prepare(
      tenant,
      fresh.map(({ scene }) => scene),
      wanted,
    )
    for (const { scene, rules: some } of fresh) for (const rule of some) live.put(scene, rule.compiled)
  }

  #rename(scene: LiveScene, card: DeviceCard): void {
    const { connection } = scene
    const isOther = scene.card.name !== card.name || scene.card.label !== card.label || scene.card.product !== card.product
    this.#parts.live.change(
      scene.id,
      ({ reads }) => isOther && reads.fields.size > 0,
      () => {
        scene.card = card
        scene.connection = connection
      },
    )
  }
}
