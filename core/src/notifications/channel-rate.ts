// SPDX-License-Identifier: AGPL-3.0-only
import type { Window } from '../jobs/limiter.ts'
import type { ChannelRow, OpenChannel } from './channels.ts'

export const rateKey = (row: Pick<ChannelRow, 'id'>) => `notify/channel/${row.id}`
export const windowsOf = (channel: Pick<OpenChannel, 'row' | 'type'>): Window[] => [...channel.type.rates, ...(channel.row.rate ?? [])]
export const isDigesting = (channel: Pick<OpenChannel, 'row' | 'type'>): boolean => channel.row.digest ?? channel.type.digests ?? false
