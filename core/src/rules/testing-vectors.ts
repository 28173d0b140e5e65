// SPDX-License-Identifier: AGPL-3.0-only
/** A point is [key, ts, value, receivedAt?]; an attribute change is [at, name, value]; times in ms. */
export type RuleVector = {
  id: string
  title: string
  rule: unknown
  points: readonly (readonly [key: string, ts: number, value: number | boolean, receivedAt?: number])[]
  attributes?: Readonly<Record<string, number>>
  attributeChanges?: readonly (readonly [at: number, name: string, value: number])[]
  to: number
  episodes: readonly unknown[]
  late: number
}

/** What a rule makes of points, worked out by hand. All begin at 0. */
export const ruleVectors: readonly RuleVector[] = [
  {
    id: 'V01',
    title:
      'dwell of 5 min with hysteresis 2: a dip inside the hysteresis band does not reset the dwell; startTs is the first true point, confirmedTs = startTs + forMs even between points; clear when <= 78',
    rule: { levels: [{ severity: 'critical', when: { left: { key: 'temperature' }, op: 'gt', right: 80, hysteresis: 2 }, forMs: 300000 }] },
    points: [
      ['temperature', 0, 79],
      ['temperature', 60000, 81],
      ['temperature', 120000, 79.5],
      ['temperature', 240000, 83],
      ['temperature', 420000, 82],
      ['temperature', 480000, 78],
      ['temperature', 540000, 85],
    ],
    to: 720000,
    episodes: [
      { startTs: 60000, confirmedTs: 360000, endTs: 480000, clearedTs: 480000, severities: [{ ts: 360000, severity: 'critical' }] },
    ],
    late: 0,
  },
  {
    id: 'V02',
    title: 'time-driven: one true point and then silence still raises when the dwell ends',
    rule: { levels: [{ severity: 'major', when: { left: { key: 'temperature' }, op: 'gt', right: 80 }, forMs: 300000 }] },
    points: [['temperature', 0, 90]],
    to: 600000,
    episodes: [{ startTs: 0, confirmedTs: 300000, endTs: null, clearedTs: null, severities: [{ ts: 300000, severity: 'major' }] }],
    late: 0,
  },
  {
    id: 'V03',
    title: 'a point at exactly startTs + forMs is applied before the timer: false there means no alarm, true means an alarm',
    rule: { levels: [{ severity: 'major', when: { left: { key: 'temperature' }, op: 'gt', right: 80 }, forMs: 60000 }] },
    points: [
      ['temperature', 0, 90],
      ['temperature', 60000, 70],
      ['temperature', 120000, 90],
      ['temperature', 180000, 90],
    ],
    to: 240000,
    episodes: [{ startTs: 120000, confirmedTs: 180000, endTs: null, clearedTs: null, severities: [{ ts: 180000, severity: 'major' }] }],
    late: 0,
  },
  {
    id: 'V04',
    title: 'AND over two keys that arrive apart: nothing while one key was never seen (unknown), then true',
    rule: {
      levels: [
        {
          severity: 'minor',
          when: {
            all: [
              { left: { key: 'temperature' }, op: 'gt', right: 30 },
              { left: { key: 'door' }, op: 'eq', right: true },
            ],
          },
        },
      ],
    },
    points: [
      ['temperature', 0, 35],
      ['temperature', 60000, 36],
      ['door', 90000, true],
      ['door', 150000, false],
    ],
    to: 300000,
    episodes: [{ startTs: 90000, confirmedTs: 90000, endTs: 150000, clearedTs: 150000, severities: [{ ts: 90000, severity: 'minor' }] }],
    late: 0,
  },
  {
    id: 'V05',
    title: 'two levels: severity rises at once, falls after the clear dwell of the upper level, alarm stays one row',
    rule: {
      levels: [
        { severity: 'critical', when: { left: { key: 'temperature' }, op: 'gt', right: 90 } },
        { severity: 'warning', when: { left: { key: 'temperature' }, op: 'gt', right: 80 } },
      ],
      clear: { forMs: 120000 },
    },
    points: [
      ['temperature', 0, 85],
      ['temperature', 60000, 95],
      ['temperature', 120000, 88],
      ['temperature', 180000, 88],
      ['temperature', 360000, 70],
      ['temperature', 420000, 70],
    ],
    to: 900000,
    episodes: [
      {
        startTs: 0,
        confirmedTs: 0,
        endTs: 360000,
        clearedTs: 480000,
        severities: [
          { ts: 0, severity: 'warning' },
          { ts: 60000, severity: 'critical' },
          { ts: 240000, severity: 'warning' },
        ],
      },
    ],
    late: 0,
  },
  {
    id: 'V06',
    title: 'repeat: third true evaluation within 10 min raises, start is the first of the three counted',
    rule: {
      levels: [{ severity: 'minor', when: { left: { key: 'vibration' }, op: 'gt', right: 5 }, repeat: { count: 3, withinMs: 600000 } }],
    },
    points: [
      ['vibration', 0, 6],
      ['vibration', 240000, 6],
      ['vibration', 720000, 6],
      ['vibration', 780000, 6],
      ['vibration', 900000, 1],
    ],
    to: 1200000,
    episodes: [{ startTs: 240000, confirmedTs: 780000, endTs: 900000, clearedTs: 900000, severities: [{ ts: 780000, severity: 'minor' }] }],
    late: 0,
  },
  {
    id: 'V07',
    title: 'no data for 10 min, timer-driven, ends with the next point',
    rule: { levels: [{ severity: 'major', when: { noData: { key: 'temperature', forMs: 600000 } } }] },
    points: [
      ['temperature', 60000, 20],
      ['temperature', 480000, 20],
      ['temperature', 1500000, 20],
    ],
    to: 1800000,
    episodes: [
      { startTs: 1080000, confirmedTs: 1080000, endTs: 1500000, clearedTs: 1500000, severities: [{ ts: 1080000, severity: 'major' }] },
    ],
    late: 0,
  },
  {
    id: 'V08',
    title: 'a point older than the newest of its key is late: counted, never applied',
    rule: { levels: [{ severity: 'major', when: { left: { key: 'temperature' }, op: 'gt', right: 80 } }] },
    points: [
      ['temperature', 0, 70, 0],
      ['temperature', 120000, 75, 120000],
      ['temperature', 60000, 95, 130000],
    ],
    to: 300000,
    episodes: [],
    late: 1,
  },
  {
    id: 'V09',
    title: 'threshold from an attribute; lowering the attribute re-evaluates at once without a new point',
    rule: { levels: [{ severity: 'major', when: { left: { key: 'temperature' }, op: 'gt', right: { attr: 'maxTemp', default: 80 } } }] },
    points: [
      ['temperature', 0, 60],
      ['temperature', 60000, 61],
    ],
    to: 300000,
    episodes: [{ startTs: 90000, confirmedTs: 90000, endTs: 150000, clearedTs: 150000, severities: [{ ts: 90000, severity: 'major' }] }],
    late: 0,
    attributes: {},
    attributeChanges: [
      [90000, 'maxTemp', 55],
      [150000, 'maxTemp', 70],
    ],
  },
  {
    id: 'V10',
    title:
      'explicit clear condition: severity may rise but not fall, alarm ends when clear.when has held for clear.forMs and no level is true',
    rule: {
      levels: [
        { severity: 'critical', when: { left: { key: 'level' }, op: 'le', right: 5 } },
        { severity: 'minor', when: { left: { key: 'level' }, op: 'le', right: 20 } },
      ],
      clear: { when: { left: { key: 'level' }, op: 'ge', right: 60 }, forMs: 60000 },
    },
    points: [
      ['level', 0, 18],
      ['level', 60000, 4],
      ['level', 120000, 30],
      ['level', 180000, 70],
      ['level', 210000, 50],
      ['level', 240000, 80],
      ['level', 360000, 80],
    ],
    to: 600000,
    episodes: [
      {
        startTs: 0,
        confirmedTs: 0,
        endTs: 240000,
        clearedTs: 300000,
        severities: [
          { ts: 0, severity: 'minor' },
          { ts: 60000, severity: 'critical' },
        ],
      },
    ],
    late: 0,
  },
]
