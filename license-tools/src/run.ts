// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { Arguments, usageError } from './arguments.ts'
import { createAboutCommands } from './commands/about.ts'
import { bulkCommands } from './commands/bulk.ts'
import { issueCommands } from './commands/issue.ts'
import { keyCommands } from './commands/keys.ts'
import { ledgerCommands } from './commands/ledger.ts'
import { reportCommands } from './commands/reports.ts'
import { requestCommands } from './commands/requests.ts'
import { revocationCommands } from './commands/revocation.ts'
import { tokenCommands } from './commands/tokens.ts'
import { ToolError, exits, systemCode } from './errors.ts'
import { createTerminal } from './terminal.ts'
import type { Result, Terminal } from './terminal.ts'
import { createTool } from './tool.ts'
import type { Command, Tool } from './tool.ts'

const commands: Record<string, Command> = {
  ...ledgerCommands,
  ...keyCommands,
  ...tokenCommands,
  ...requestCommands,
  ...issueCommands,
  ...bulkCommands,
  ...revocationCommands,
  ...reportCommands,
  ...createAboutCommands(() => commands),
}

/** What a call sees of the world besides files: so that tests can make one without a process. */
export type Host = { env: NodeJS.ProcessEnv; stdout(text: string): void; stderr(text: string): void; isInterrupted(): boolean }

/** One call of the tool. @returns the exit code */
export async function runTool(args: string[], host: Host): Promise<number> {
  let command: Command | undefined
  let terminal = createTerminal(undefined, host)
  let tool: Tool | undefined
  try {
    const found = findCommand(args)
    command = found.command
    const rest = new Arguments(found.args, command.options ?? {}, command.positionals ?? { least: 0, most: 0 })
    terminal = createTerminal(rest, host)
    tool = createTool(rest, terminal, host.env, () => host.isInterrupted())
    return printResult(await command.run(tool), terminal, tool, host)
  } catch (error) {
    // Options could not be read: what was asked for is still answered in the form it was asked for.
    const isJson = terminal.isJson || (tool === undefined && args.includes('--json'))
    return printError(error, { ...terminal, isJson, lang: readLang(args, terminal) }, { tool, command, host })
  }
}

function findCommand(args: readonly string[]): { command: Command; args: string[] } {
  const [first = 'help', second = ''] = args[0] === '--help' || args[0] === '-h' ? ['help'] : args
  for (const [name, count] of [
    [`${first} ${second}`, 2],
    [first, 1],
  ] as const) {
    if (Object.hasOwn(commands, name)) return { command: commands[name]!, args: args.slice(count) }
  }
  throw usageError(`没有命令 ${first}，见 help`, `there is no command ${first}, see help`)
}

function printResult(result: Result, terminal: Terminal, tool: Tool, host: Host): number {
  const print = (line: string) => host.stdout(`${line}\n`)
  const exit = result.exit ?? exits.ok
  if (terminal.isJson) {
    const { code, message, ...members } = result.json
    const head = exit === exits.ok ? { ok: true } : { ok: false, code: code ?? 'REFUSED', message: message ?? `exit ${exit}`, exit }
    const notes = terminal.notes.length > 0 && { notes: terminal.notes }
    print(JSON.stringify({ ...head, ...(tool.isTest && { test: true }), ...members, ...notes }))
  } else if (result.raw !== undefined) {
    host.stdout(result.raw)
  } else {
    if (tool.isTest) print('TEST 测试')
    for (const line of result.lines) print(typeof line === 'string' ? line : terminal.say(line))
  }
  return exit
}

type Call = { tool: Tool | undefined; command: Command | undefined; host: Host }

function printError(error: unknown, terminal: Terminal, { tool, command, host }: Call): number {
  const known = error instanceof ToolError ? error : toToolError(error)
  const message = known.text[terminal.lang]
  if (terminal.isJson) {
    host.stdout(
      `${JSON.stringify({
        ok: false,
        code: known.code,
        message,
        exit: known.exit,
        ...(tool?.isTest && { test: true }),
        ...known.details,
        ...(terminal.notes.length > 0 && { notes: terminal.notes }),
      })}\n`,
    )
  }
  host.stderr(`${tool?.isTest ? 'TEST ' : ''}${known.code}: ${message}\n`)
  if (known.code === 'USAGE' && command) host.stderr(`license-tools ${command.usage}\n`)
  return known.exit
}

/** What nobody foresaw: its message, which may hold a path but never what was read, and no stack. */
function toToolError(error: unknown): ToolError {
  const code = systemCode(error)
  if (code === 'ERR_ACCESS_DENIED') {
    return new ToolError('ACCESS_DENIED', {
      zh: '本进程只能写台账目录与 -o 所在目录。',
      en: 'This process may write only to the ledger and to the folder of -o.',
    })
  }
  const name = error instanceof Error ? error.name : 'Error'
  return new ToolError('UNEXPECTED', { zh: `意外错误 ${name} ${code}。`, en: `Unexpected ${name} ${code}.` })
}

function readLang(args: readonly string[], terminal: Terminal): 'zh' | 'en' {
  const given =
    args.find((arg) => /^--lang=(?:zh|en)$/.test(arg))?.slice(7) ?? (args.includes('--lang') ? args[args.indexOf('--lang') + 1] : undefined)
  return given === 'zh' || given === 'en' ? given : terminal.lang
}
