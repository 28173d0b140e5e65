// SPDX-License-Identifier: AGPL-3.0-only

/** A parsed expression [8.2]. */
export type Expression =
  | { kind: 'constant'; value: number | string | boolean | null }
  | { kind: 'name'; name: string }
  | { kind: 'previous'; name: string }
  | { kind: 'attribute'; name: string; fallback: Expression | undefined }
  | { kind: 'unary'; operator: '-' | '!' | '+'; operand: Expression }
  | { kind: 'binary'; operator: BinaryOperator; left: Expression; right: Expression }
  | { kind: 'choice'; condition: Expression; yes: Expression; no: Expression }
  | { kind: 'call'; name: FunctionName; arguments: readonly Expression[] }

export type ExpressionProblem = { code: 'EXPR_SYNTAX' | 'identifier_unknown' | 'expr_too_long'; offset: number; detail: string }

/** From the loosest to the tightest; `**` binds to the right and tighter than a sign before it. */
const levels = [['||'], ['&&'], ['==', '!='], ['<=', '>=', '<', '>'], ['+', '-'], ['*', '/', '%']] as const
export type BinaryOperator = (typeof levels)[number][number] | '**'

/** Names of functions with the fewest and most arguments they take. */
export const functions = {
  abs: [1, 1],
  min: [1, 20],
  max: [1, 20],
  round: [1, 2],
  floor: [1, 1],
  ceil: [1, 1],
  sqrt: [1, 1],
  pow: [2, 2],
  exp: [1, 1],
  ln: [1, 1],
  log10: [1, 1],
  sin: [1, 1],
  cos: [1, 1],
  tan: [1, 1],
  clamp: [3, 3],
  if: [3, 3],
  coalesce: [1, 20],
  lower: [1, 1],
  upper: [1, 1],
  len: [1, 1],
  contains: [2, 2],
  substr: [2, 3],
  num: [1, 1],
  str: [1, 1],
  bool: [1, 1],
  bit: [2, 2],
  now: [0, 0],
  hour: [1, 1],
  weekday: [1, 1],
  dewPoint: [2, 2],
  haversine: [4, 4],
} as const satisfies Record<string, readonly [number, number]>
export type FunctionName = keyof typeof functions

const constants: ReadonlyMap<string, boolean | null> = new Map([
  ['true', true],
  ['false', false],
  ['null', null],
])

const maxLength = 1000
const maxNodes = 200
const maxDepth = 32

type Token = { kind: 'number' | 'string' | 'name' | 'sign' | 'end'; text: string; offset: number }
const token =
  /\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|([\p{L}_$][\p{L}\p{N}_$.]*)|(\*\*|==|!=|<=|>=|&&|\|\||[-+*/%()<>!?:,]))/uy

class Refusal extends Error {
  readonly problem: ExpressionProblem
  constructor(code: ExpressionProblem['code'], offset: number, detail: string) {
    super(detail)
    this.problem = { code, offset, detail }
  }
}

/**
 * @param inputs names that may be used; undefined when every name is a telemetry key
 * @returns the tree, or what is wrong and where (offset in UTF-16 units)
 */
export function parseExpression(text: string, inputs?: ReadonlySet<string>): Expression | ExpressionProblem {
  if (text.length > maxLength) {
    return { code: 'expr_too_long', offset: maxLength, detail: `an expression has at most ${maxLength} characters` }
  }
  try {
    return new Parser(tokenize(text), inputs).parse()
  } catch (error) {
    if (error instanceof Refusal) return error.problem
    throw error
  }
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = []
  const end = text.trimEnd().length
  let at = 0
  while (at < end) {
    token.lastIndex = at
    const match = token.exec(text)
    if (!match) throw new Refusal('EXPR_SYNTAX', at + text.slice(at).search(/\S/), 'this is no part of an expression')
    const [all, number, string, name, sign] = match
    const found = number ?? string ?? name ?? sign ?? ''
    const kind = number !== undefined ? 'number' : string !== undefined ? 'string' : name !== undefined ? 'name' : 'sign'
    tokens.push({ kind, text: found, offset: at + all.length - found.length })
    at = token.lastIndex
  }
  tokens.push({ kind: 'end', text: '', offset: text.length })
  return tokens
}

class Parser {
  readonly #tokens: readonly Token[]
  readonly #inputs: ReadonlySet<string> | undefined
  #at = 0
  #nodes = 0
  #depth = 0

  constructor(tokens: readonly Token[], inputs: ReadonlySet<string> | undefined) {
    this.#tokens = tokens
    this.#inputs = inputs
  }

  parse(): Expression {
    const expression = this.#choice()
    if (this.#next.kind !== 'end') this.#refuse('the expression should end here')
    return expression
  }

  get #next(): Token {
    return this.#tokens[this.#at]!
  }

  #take(sign: string): boolean {
    if (this.#next.kind !== 'sign' || this.#next.text !== sign) return false
    this.#at++
    return true
  }

  #expect(sign: string): void {
    if (!this.#take(sign)) this.#refuse(`"${sign}" is missing`)
  }

  #refuse(detail: string, offset = this.#next.offset): never {
    throw new Refusal('EXPR_SYNTAX', offset, detail)
  }

  #node<T extends Expression>(node: T): T {
    if (++this.#nodes > maxNodes) this.#refuse(`an expression has at most ${maxNodes} parts`)
    return node
  }

  #deeper<T>(parse: () => T): T {
    if (++this.#depth > maxDepth) this.#refuse(`an expression is nested at most ${maxDepth} deep`)
    const parsed = parse()
    this.#depth--
    return parsed
  }

  #choice(): Expression {
    return this.#deeper(() => {
      const condition = this.#binary(0)
      if (!this.#take('?')) return condition
      const yes = this.#choice()
      this.#expect(':')
      return this.#node({ kind: 'choice', condition, yes, no: this.#choice() })
    })
  }

  #binary(level: number): Expression {
    const operators = levels[level]
    if (!operators) return this.#unary()
    let left = this.#binary(level + 1)
    for (;;) {
      const operator = operators.find((one) => this.#take(one))
      if (operator === undefined) return left
      left = this.#node({ kind: 'binary', operator, left, right: this.#binary(level + 1) })
    }
  }

  #unary(): Expression {
    const operator = (['-', '!', '+'] as const).find((one) => this.#take(one))
    if (operator !== undefined) return this.#deeper(() => this.#node({ kind: 'unary', operator, operand: this.#unary() }))
    const base = this.#primary()
    if (!this.#take('**')) return base
    return this.#deeper(() => this.#node({ kind: 'binary', operator: '**', left: base, right: this.#unary() }))
  }

  #primary(): Expression {
    const start = this.#next
    if (this.#take('(')) {
      const inner = this.#choice()
      this.#expect(')')
      return inner
    }
    if (start.kind === 'sign' || start.kind === 'end') this.#refuse('a value is missing')
    this.#at++
    if (start.kind === 'number') return this.#node({ kind: 'constant', value: this.#number(start) })
    if (start.kind === 'string') return this.#node({ kind: 'constant', value: unquote(start.text) })
    if (this.#next.kind === 'sign' && this.#next.text === '(') return this.#call(start)
    const constant = constants.get(start.text)
    return this.#node(constant === undefined ? { kind: 'name', name: this.#input(start) } : { kind: 'constant', value: constant })
  }

  #number({ text, offset }: Token): number {
    const value = Number(text)
    return Number.isFinite(value) ? value : this.#refuse('the number is too large', offset)
  }

  #input({ text, offset }: Token, name = text): string {
    if (this.#inputs && !this.#inputs.has(name)) throw new Refusal('identifier_unknown', offset, `there is no input "${name}"`)
    return name
  }

  #call(start: Token): Expression {
    this.#expect('(')
    if (start.text === 'key') return this.#node({ kind: 'name', name: this.#quotedInput() })
    if (start.text === 'prev') return this.#node({ kind: 'previous', name: this.#quotedInput() })
    const parts: Expression[] = []
    if (!this.#take(')')) {
      do parts.push(this.#choice())
      while (this.#take(','))
      this.#expect(')')
    }
    if (start.text === 'attr') return this.#attribute(start, parts)
    if (!Object.hasOwn(functions, start.text)) {
      throw new Refusal('identifier_unknown', start.offset, `there is no function "${start.text}"`)
    }
    const name = start.text as FunctionName
    const [fewest, most] = functions[name]
    if (parts.length < fewest || parts.length > most) this.#refuse(`${name} takes ${fewest} to ${most} arguments`, start.offset)
    return this.#node({ kind: 'call', name, arguments: parts })
  }

  /** The one argument of `key(…)` and `prev(…)`: a name, in quotes where it is an odd one. */
  #quotedInput(): string {
    const start = this.#next
    if (start.kind !== 'name' && start.kind !== 'string') this.#refuse('the name of a key is missing')
    this.#at++
    this.#expect(')')
    return this.#input(start, start.kind === 'string' ? unquote(start.text) : start.text)
  }

  #attribute(start: Token, [name, fallback, ...more]: readonly Expression[]): Expression {
    if (name?.kind !== 'constant' || typeof name.value !== 'string' || more.length > 0) {
      this.#refuse('attr takes the name of an attribute in quotes, and what it is without it', start.offset)
    }
    return this.#node({ kind: 'attribute', name: name.value, fallback })
  }
}

function unquote(text: string): string {
  const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r' }
  return text.slice(1, -1).replaceAll(/\\(.)/gsu, (_, character: string) => escapes[character] ?? character)
}

/** Calls `visit` for the expression and every part of it. */
export function walkExpression(expression: Expression, visit: (part: Expression) => void): void {
  visit(expression)
  switch (expression.kind) {
    case 'unary':
      return walkExpression(expression.operand, visit)
    case 'binary':
      walkExpression(expression.left, visit)
      return walkExpression(expression.right, visit)
    case 'choice':
      for (const part of [expression.condition, expression.yes, expression.no]) walkExpression(part, visit)
      return
    case 'call':
      for (const part of expression.arguments) walkExpression(part, visit)
      return
    case 'attribute':
      if (expression.fallback) walkExpression(expression.fallback, visit)
      return
    case 'constant':
    case 'name':
    case 'previous':
      return
    default:
      expression satisfies never
  }
}
