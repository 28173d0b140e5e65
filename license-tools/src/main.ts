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

let isInterrupted = false
// What has begun is finished: a bulk run stops after its row, everything else is over in a moment.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (isInterrupted = true))

process.exitCode = await main(process.argv.slice(2))

async function main(args: string[]): Promise<number> {
  let command: Command | undefined
  let terminal = createTerminal(undefined, process.env)
  let tool: Tool | undefined
  try {
    assertOffline()
    const found = findCommand(args)
    command = found.command
    const rest = new Arguments(found.args, command.options ?? {}, command.positionals ?? { least: 0, most: 0 })
    terminal = createTerminal(rest, process.env)
    tool = createTool(rest, terminal, process.env, () => isInterrupted)
    return printResult(await command.run(tool), terminal, tool)
  } catch (error) {
    // Options could not be read: what was asked for is still answered in the form it was asked for.
    const isJson = terminal.isJson || (tool === undefined && args.includes('--json'))
    return printError(error, { ...terminal, isJson, lang: readLang(args, terminal) }, tool, command)
  }
}

/** [T-1] The launcher starts us without network, processes and writes elsewhere; nothing runs without that. */
function assertOffline(): void {
  const { permission } = process as NodeJS.Process & { permission?: { has(scope: string, path?: string): boolean } }
  if (permission && !permission.has('net') && !permission.has('child') && !permission.has('fs.write')) return
  throw new ToolError('NO_PERMISSION_MODEL', {
    zh: '请通过 bin/license-tools.mjs 启动：本工具只在无网络的进程中运行。',
    en: 'Start bin/license-tools.mjs: this tool runs only in a process without network.',
  })
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

function printResult(result: Result, terminal: Terminal, tool: Tool): number {
  const exit = result.exit ?? exits.ok
  if (terminal.isJson) {
    const { code, message, ...members } = result.json
    const head = exit === exits.ok ? { ok: true } : { ok: false, code: code ?? 'REFUSED', message: message ?? `exit ${exit}`, exit }
    print(
      JSON.stringify({
        ...head,
        ...(tool.isTest && { test: true }),
        ...members,
        ...(terminal.notes.length > 0 && { notes: terminal.notes }),
      }),
    )
  } else if (result.raw !== undefined) {
    process.stdout.write(result.raw)
  } else {
    if (tool.isTest) print('TEST 测试')
    for (const line of result.lines) print(typeof line === 'string' ? line : terminal.say(line))
  }
  return exit
}

function printError(error: unknown, terminal: Terminal, tool: Tool | undefined, command: Command | undefined): number {
  const known = error instanceof ToolError ? error : toToolError(error)
  const message = known.text[terminal.lang]
  if (terminal.isJson) {
    print(
      JSON.stringify({
        ok: false,
        code: known.code,
        message,
        exit: known.exit,
        ...(tool?.isTest && { test: true }),
        ...known.details,
        ...(terminal.notes.length > 0 && { notes: terminal.notes }),
      }),
    )
  }
  process.stderr.write(`${tool?.isTest ? 'TEST ' : ''}${known.code}: ${message}\n`)
  if (known.code === 'USAGE' && command) process.stderr.write(`license-tools ${command.usage}\n`)
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

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
