// SPDX-License-Identifier: AGPL-3.0-only

/** What one character must be. */
type Accepts = (code: number) => boolean
/** A state accepts a character and goes on to `to`, or forks without one; the last state has neither. */
type State = { accepts?: Accepts; to: number[] }

const maxStates = 5000
const maxRepeat = 200

/**
 * A regular expression that takes time in proportion to the text, whatever it is: all ways are followed at once
 * (Thompson), none is tried again. Anchored at both ends. Literals, `.`, classes, groups, `|`, `* + ? {n,m}`,
 * `\d \w \s` and their opposites; no look-around and no back reference.
 *
 * @throws {SyntaxError} with what is wrong
 */
export class LinearRegex {
  readonly #states: State[] = []
  readonly #start: number
  readonly #end: number
  readonly #source: number[]
  #at = 0

  constructor(source: string) {
    this.#source = [...source].map((one) => one.codePointAt(0)!)
    const { start, end } = this.#alternatives()
    if (this.#at < this.#source.length) throw new SyntaxError('unmatched )')
    this.#start = start
    this.#end = end
  }

  test(text: string): boolean {
    let current = this.#closure([this.#start])
    for (const character of text) {
      const code = character.codePointAt(0)!
      const next: number[] = []
      for (const index of current) {
        const state = this.#states[index]!
        if (state.accepts?.(code)) next.push(...state.to)
      }
      current = this.#closure(next)
      if (current.size === 0) return false
    }
    return current.has(this.#end)
  }

  #closure(from: readonly number[]): Set<number> {
    const seen = new Set<number>()
    const open = [...from]
    for (let index = open.pop(); index !== undefined; index = open.pop()) {
      if (seen.has(index)) continue
      seen.add(index)
      const state = this.#states[index]!
      if (!state.accepts) open.push(...state.to)
    }
    return seen
  }

  #add(state: State): number {
    if (this.#states.length >= maxStates) throw new SyntaxError('the expression is too large')
    return this.#states.push(state) - 1
  }

  #alternatives(): { start: number; end: number } {
    const parts = [this.#sequence()]
    while (this.#peek() === '|') {
      this.#at++
      parts.push(this.#sequence())
    }
    if (parts.length === 1) return parts[0]!
    const end = this.#add({ to: [] })
    const start = this.#add({ to: parts.map((part) => part.start) })
    for (const part of parts) this.#states[part.end]!.to.push(end)
    return { start, end }
  }

  #sequence(): { start: number; end: number } {
    const start = this.#add({ to: [] })
    let end = start
    while (this.#at < this.#source.length && this.#peek() !== '|' && this.#peek() !== ')') {
      const from = this.#at
      const atom = this.#atom()
      const after = this.#at
      const [least, most] = this.#quantifier()
      const rest = this.#at
      const again = () => {
        this.#at = from
        const copy = this.#atom()
        this.#at = rest
        return copy
      }
      if (this.#at !== after || least !== 1 || most !== 1) end = this.#repeat(end, atom, again, least, most)
      else {
        this.#states[end]!.to.push(atom.start)
        end = atom.end
      }
    }
    return { start, end }
  }

  #repeat(
    from: number,
    first: { start: number; end: number },
    again: () => { start: number; end: number },
    least: number,
    most: number,
  ): number {
    let end = from
    let isFirst = true
    const next = () => {
      if (!isFirst) return again()
      isFirst = false
      return first
    }
    for (let i = 0; i < least; i++) {
      const copy = next()
      this.#states[end]!.to.push(copy.start)
      end = copy.end
    }
    const done = this.#add({ to: [] })
    this.#states[end]!.to.push(done)
    if (most === Infinity) {
      const copy = next()
      this.#states[end]!.to.push(copy.start)
      this.#states[copy.end]!.to.push(copy.start, done)
      return done
    }
    for (let i = least; i < most; i++) {
      const copy = next()
      this.#states[end]!.to.push(copy.start)
      end = copy.end
      this.#states[end]!.to.push(done)
    }
    return done
  }

  #quantifier(): [number, number] {
    let range: [number, number] = [1, 1]
    const sign = this.#peek()
    if (sign === '*') range = [0, Infinity]
    else if (sign === '+') range = [1, Infinity]
    else if (sign === '?') range = [0, 1]
    else if (sign === '{') {
      const [whole, least, comma, most] = /^\{(\d{1,4})(,?)(\d{0,4})\}/.exec(this.#rest()) ?? []
      if (whole === undefined) return range
      range = [Number(least), comma === '' ? Number(least) : most === '' ? Infinity : Number(most)]
      if (Number(least) > maxRepeat || (range[1] !== Infinity && range[1] > maxRepeat)) {
        throw new SyntaxError(`at most ${maxRepeat} repetitions`)
      }
      if (range[1] < range[0]) throw new SyntaxError('numbers out of order in {}')
      this.#at += whole.length - 1
    } else return range
    this.#at++
    // Greedy or not makes no difference to whether it matches.
    if (this.#peek() === '?') this.#at++
    if (['*', '+'].includes(this.#peek())) throw new SyntaxError('nothing to repeat')
    return range
  }

  #atom(): { start: number; end: number } {
    const sign = this.#peek()
    if (sign === '(') return this.#group()
    if (['*', '+', '?'].includes(sign)) throw new SyntaxError('nothing to repeat')
    const accepts = this.#accepts()
    const end = this.#add({ to: [] })
    return { start: this.#add(accepts ? { accepts, to: [end] } : { to: [end] }), end }
  }

  #group(): { start: number; end: number } {
    this.#at++
    if (this.#peek() === '?') {
      if (!this.#rest().startsWith('?:')) throw new SyntaxError('look-around and names are not supported')
      this.#at += 2
    }
    const inner = this.#alternatives()
    if (this.#peek() !== ')') throw new SyntaxError('missing )')
    this.#at++
    const end = this.#add({ to: [] })
    this.#states[inner.end]!.to.push(end)
    return { start: inner.start, end }
  }

  /** Undefined for an anchor: both ends are anchored anyway. */
  #accepts(): Accepts | undefined {
    const code = this.#source[this.#at++]!
    const sign = String.fromCodePoint(code)
    if (sign === '.') return (one) => one !== 10
    if (sign === '^' || sign === '$') return undefined
    if (sign === '[') return this.#class()
    if (sign === '\\') return this.#escape()
    return (one) => one === code
  }

  #escape(): Accepts {
    const code = this.#source[this.#at++]
    if (code === undefined) throw new SyntaxError('\\ at the end')
    const sign = String.fromCodePoint(code)
    const known = shorthands[sign]
    if (known) return known
    if (/[0-9A-Za-z]/.test(sign)) {
      const control = controls[sign]
      if (control === undefined) throw new SyntaxError(`\\${sign} is not supported`)
      return (one) => one === control
    }
    return (one) => one === code
  }

  #class(): Accepts {
    const isNegated = this.#peek() === '^'
    if (isNegated) this.#at++
    const members: Accepts[] = []
    for (let isFirst = true; ; isFirst = false) {
      if (this.#at >= this.#source.length) throw new SyntaxError('missing ]')
      if (this.#peek() === ']' && !isFirst) break
      const from = this.#source[this.#at++]!
      if (String.fromCodePoint(from) === '\\') {
        members.push(this.#escape())
        continue
      }
      const to = this.#peek() === '-' && this.#source[this.#at + 1] !== 93 ? this.#source[this.#at + 1] : undefined
      if (to === undefined) members.push((one) => one === from)
      else {
        if (to < from) throw new SyntaxError('range out of order in []')
        members.push((one) => one >= from && one <= to)
        this.#at += 2
      }
    }
    this.#at++
    return (one) => members.some((member) => member(one)) !== isNegated
  }

  #peek(): string {
    const code = this.#source[this.#at]
    return code === undefined ? '' : String.fromCodePoint(code)
  }

  #rest(): string {
    return String.fromCodePoint(...this.#source.slice(this.#at, this.#at + 12))
  }
}

const between = (one: number, from: string, to: string) => one >= from.charCodeAt(0) && one <= to.charCodeAt(0)
const isDigit: Accepts = (one) => between(one, '0', '9')
const isWord: Accepts = (one) => isDigit(one) || between(one, 'A', 'Z') || between(one, 'a', 'z') || one === 95
const isSpace: Accepts = (one) => /\s/.test(String.fromCodePoint(one))
const shorthands: Record<string, Accepts> = {
  d: isDigit,
  D: (one) => !isDigit(one),
  w: isWord,
  W: (one) => !isWord(one),
  s: isSpace,
  S: (one) => !isSpace(one),
}
const controls: Record<string, number> = { n: 10, r: 13, t: 9, f: 12, v: 11 }
