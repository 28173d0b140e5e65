// SPDX-License-Identifier: AGPL-3.0-only
import { parseArgs } from 'node:util'
import { createFuzzedInstallation, fuzz } from './fuzz.ts'
import { killDatabaseRounds, terminateBackends } from './database-faults.ts'
import { createDatabase, findPostgres, startPostgres } from './external-database.ts'
import type { ExternalDatabase } from './external-database.ts'
import { killRounds, mustLose } from './kill.ts'
import type { KillForm } from './kill.ts'
import { poisonCases } from './poison.ts'
import { printResults, printTitle } from './report.ts'
import type { Result } from './report.ts'
import { openSession } from './session.ts'
import type { OpenSession, SessionOptions } from './session.ts'
import { stopRounds } from './stop.ts'
import { storeControl } from './store-control.ts'
import { stages } from './store-stages.ts'
import type { Stage } from './store-stages.ts'
import { cutKeepers } from './store-cuts.ts'
import { printStage, storeRounds } from './store.ts'
import type { StageResult } from './store.ts'

/** What every run of ours can afford; the long form is 10⁶ [M-44]. */
const usualPackets = 20_000

const usage = `pnpm test:faults [--only F1,F4] [--rounds N] [--seed N] [--stages merge,drop] [--packets N] [--external-db URL] [--keep]

--only         ids, with commas: F1 F3 F4 F5 F24 FUZZ STORE STORE-cut ack-early no-bisect store-damage
--rounds       how often F1 kills, its three forms together (default 200); the others follow. When STORE is
               asked for by name: kills at each stage
--stages       of STORE, with commas: ${stages.map((stage) => stage.id).join(' ')} (default: all)
--packets      damaged packets of FUZZ (default ${usualPackets})
--seed         of all random choices (default: a new one, printed)
--external-db  superuser login of the PostgreSQL for F1c; default: Debian's binaries in a temporary folder
--keep         leave every data folder behind
`

type Options = {
  rounds: number
  packets: number
  storeRounds: number
  stages: readonly Stage[]
  seed: number
  externalDb: string | undefined
  keep: boolean
}

/** A fault, or a control that must end red; `run` prints its rounds and returns one result per form. */
type Fault = { id: string; run: (options: Options) => Promise<Result[]> }

/** Connections cut in F5. */
const cutConnections = 20

/** Small segments that are merged at once, and a log that says each step. */
const eager: SessionOptions = { hooks: 'eager-compaction', logLevel: 'debug' }

const faults: readonly Fault[] = [
  { id: 'F1', run: runKills },
  { id: 'ack-early', run: runAckEarly },
  {
    id: 'F3',
    run: (options) =>
      runOne('F3', 'SIGTERM under load', options, ({ session }) => stopRounds(session, Math.ceil(options.rounds / 40), options.seed)),
  },
  {
    id: 'F4',
    run: (options) =>
      runOne('F4', 'database killed under a living server', options, ({ session }) =>
        killDatabaseRounds(session, Math.max(3, Math.ceil(options.rounds / 10)), options.seed),
      ),
  },
  {
    id: 'F5',
    run: (options) =>
      runOne('F5', 'database connections cut', options, ({ session }) => terminateBackends(session, cutConnections, options.seed)),
  },
  {
    id: 'F24',
    run: (options) => runOne('F24', 'poison points among good ones', options, ({ session }) => poisonCases(session.installation)),
  },
  { id: 'no-bisect', run: runNoBisect },
  { id: 'FUZZ', run: runFuzz },
  { id: 'STORE', run: runStore },
  {
    id: 'STORE-cut',
    run: (options) =>
      runOne(
        'STORE-cut',
        'database connections of merging cut',
        options,
        ({ session }) => cutKeepers(session, cutConnections, options.seed),
        eager,
      ),
  },
  {
    id: 'store-damage',
    run: (options) =>
      runOne(
        'store-damage',
        'control: points that are taken away or doubled are noticed',
        options,
        ({ session }) => storeControl(session, options.seed),
        eager,
      ),
  },
]

process.exitCode = await main()

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      rounds: { type: 'string', default: '200' },
      seed: { type: 'string' },
      stages: { type: 'string' },
      packets: { type: 'string', default: String(usualPackets) },
      'external-db': { type: 'string' },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const wanted = values.only?.split(',') ?? faults.map((fault) => fault.id)
  const isKnown = wanted.every((id) => faults.some((fault) => fault.id === id))
  const rounds = Number(values.rounds)
  const packets = Number(values.packets)
  const seed = Number(values.seed ?? Date.now() % 1_000_000)
  const chosen = stages.filter((stage) => values.stages?.split(',').includes(stage.id) ?? true)
  if (
    values.help ||
    !isKnown ||
    chosen.length === 0 ||
    !Number.isInteger(rounds) ||
    rounds < 1 ||
    !(packets > 0) ||
    !Number.isInteger(seed)
  ) {
    console.error(usage)
    return values.help ? 0 : 64
  }
  console.log(`seed ${seed}`)
  const storeShare = values.only ? rounds : Math.ceil(rounds / 10)
  const options: Options = {
    rounds,
    packets,
    storeRounds: storeShare,
    stages: chosen,
    seed,
    externalDb: values['external-db'],
    keep: values.keep,
  }
  const results: Result[] = []
  for (const fault of faults) if (wanted.includes(fault.id)) results.push(...(await fault.run(options)))
  printResults(results)
  return results.some((result) => result.status === 'FAIL') ? 1 : 0
}

async function runKills(options: Options): Promise<Result[]> {
  const share = Math.ceil(options.rounds / 3)
  const external = options.rounds - 2 * share
  return [
    await runKillForm('F1a', 'kill -9 of the server, its database left an orphan', 'server', share, options),
    await runKillForm('F1b', 'kill -9 of the whole tree', 'tree', share, options),
    ...(external > 0 ? [await runExternalKills(external, options)] : []),
  ]
}

async function runKillForm(
  id: string,
  title: string,
  form: KillForm,
  rounds: number,
  options: Options,
  external?: ExternalDatabase,
): Promise<Result> {
  printTitle(id, title)
  return withSession(id, title, options, external ? { external } : {}, ({ session }) => killRounds(session, form, id, rounds, options.seed))
}

async function runExternalKills(rounds: number, options: Options): Promise<Result> {
  const id = 'F1c'
  const title = 'kill -9 of the server beside an external database'
  const binaries = findPostgres()
  if (!options.externalDb && !binaries) {
    return { id, title, status: 'NOT RUN', reason: 'no PostgreSQL 15 or later in /usr/lib/postgresql and no --external-db' }
  }
  const external = options.externalDb ? await createDatabase(options.externalDb) : await startPostgres(binaries!)
  try {
    return await runKillForm(id, `${title} (PostgreSQL ${external.version})`, 'server', rounds, options, external)
  } finally {
    await external.stop()
  }
}

async function runAckEarly(options: Options): Promise<Result[]> {
  const id = 'ack-early'
  const title = 'control: a server that answers before the commit is caught'
  printTitle(id, title)
  return [
    await withSession(id, title, options, { hooks: id }, async ({ session }) => {
      const result = await mustLose(session, id, 10, options.seed)
      if (result.messagesPerS < 500) return [`CONTROL VOID: the load was ${Math.round(result.messagesPerS)} messages/s, less than 500`]
      return result.isLost ? [] : [`CONTROL VOID: nothing was lost in ${result.rounds} kills`]
    }),
  ]
}

/** A server that drops a refused batch whole must fail F24. */
async function runNoBisect(options: Options): Promise<Result[]> {
  const id = 'no-bisect'
  const title = 'control: a server that drops a refused batch whole is caught'
  printTitle(id, title, false)
  return [
    await withSession(id, title, options, { hooks: id }, async ({ session }) => {
      const problems = await poisonCases(session.installation)
      return problems.some((problem) => problem.includes('neighbour')) ? [] : ['CONTROL VOID: F24 stayed green']
    }),
  ]
}

async function runFuzz(options: Options): Promise<Result[]> {
  const id = 'FUZZ'
  const title = `${options.packets} damaged packets for every part of the device API`
  printTitle(id, title, false)
  const installation = createFuzzedInstallation()
  const problems = await fuzz(installation, options).catch((error: unknown) => [String(error instanceof Error ? error.stack : error)])
  const keep = problems.length > 0 || options.keep
  await installation.dispose(keep)
  const status = problems.length > 0 ? 'FAIL' : 'PASS'
  return [{ id, title, status, reason: problems.slice(0, 5).join('; '), kept: keep ? installation.folder : undefined }]
}

/** All stages on one installation: what one leaves behind is what the next one meets. */
async function runStore(options: Options): Promise<Result[]> {
  const title = 'kill -9 at the stages of the store'
  const results: Result[] = []
  const whole = await withSession('STORE', title, options, eager, async ({ session }) => {
    const done: StageResult[] = []
    for (const stage of options.stages) {
      printTitle(`STORE ${stage.id}`, stage.title)
      const isPatient = stage === options.stages.at(-1)
      const result = await storeRounds(session, stage, { rounds: options.storeRounds, seed: options.seed, isPatient })
      const isFailed = result.problems.length > 0
      results.push({
        id: `STORE ${stage.id}`,
        title: stage.title,
        status: isFailed ? 'FAIL' : 'PASS',
        reason: result.problems.slice(0, 5).join('; '),
      })
      done.push(result)
    }
    printTitle('STORE', `${title}: ${options.storeRounds} rounds each`)
    for (const result of done) printStage(result)
    return done.flatMap((result) => result.problems)
  })
  return whole.status === 'FAIL' ? [...results, whole] : results
}

async function runOne(
  id: string,
  title: string,
  options: Options,
  run: (open: OpenSession) => Promise<string[]>,
  sessionOptions: SessionOptions = {},
): Promise<Result[]> {
  printTitle(id, title, id !== 'F24')
  return [await withSession(id, title, options, sessionOptions, run)]
}

/** Runs one form on a session of its own; what failed keeps its folder with data, ledgers and log [RE-31]. */
async function withSession(
  id: string,
  title: string,
  options: Options,
  sessionOptions: Parameters<typeof openSession>[1],
  run: (open: OpenSession) => Promise<string[]>,
): Promise<Result> {
  let open: OpenSession | undefined
  let problems: string[]
  try {
    open = await openSession(id, sessionOptions)
    problems = await run(open)
  } catch (error) {
    problems = [error instanceof Error ? (error.stack ?? error.message) : String(error)]
  }
  const isFailed = problems.length > 0
  const folder = open?.session.installation.folder
  await open?.close(isFailed || options.keep)
  return {
    id,
    title,
    status: isFailed ? 'FAIL' : 'PASS',
    reason: problems.slice(0, 5).join('; '),
    kept: isFailed || options.keep ? folder : undefined,
  }
}
