/**
 * Colours for RISC-V assembly: a tokenizer for CodeMirror's StreamLanguage. It knows the shape of a line (label, mnemonic or
 * directive, operands, comment), not the instructions: those are the assembler's, which reports what is wrong. Pure.
 * @typedef {{named: boolean}} State `named`: this line has had its mnemonic or directive
 * @typedef {{sol: () => boolean, eatSpace: () => boolean, match: (pattern: RegExp) => unknown, skipToEnd: () => void, next: () => unknown}} Stream
 */

const REGISTER = /^(?:x(?:[12]?\d|3[01])|zero|ra|[sgtf]p|a[0-7]|s(?:\d|1[01])|t[0-6])\b/;

export const riscv = {
  name: 'riscv',
  languageData: { commentTokens: { line: '#' } },
  /** @returns {State} */
  startState: () => ({ named: false }),
  /** @param {Stream} stream @param {State} state @returns {string | null} the name of a highlighting tag */
  token(stream, state) {
    if (stream.sol()) state.named = false;
    if (stream.eatSpace()) return null;
    if (stream.match(/^(?:#|\/\/)/)) {
      stream.skipToEnd();
      return 'comment';
    }
    if (stream.match(/^"(?:[^"\\]|\\.)*"?/) || stream.match(/^'(?:[^'\\]|\\.)'?/)) return 'string';
    if (!state.named) {
      if (stream.match(/^[\w.$]+:/)) return 'labelName';
      if (stream.match(/^\.[\w.]+/)) {
        state.named = true;
        return 'meta';
      }
      if (stream.match(/^[A-Za-z_][\w.]*/)) {
        state.named = true;
        return 'keyword';
      }
    }
    if (stream.match(/^;/)) {
      state.named = false;
      return null;
    }
    if (stream.match(REGISTER)) return 'variableName';
    if (stream.match(/^%[a-z_]+/)) return 'meta';
    if (stream.match(/^\d+[bf]\b/)) return 'labelName';
    if (stream.match(/^-?(?:0x[\da-f_]+|0b[01_]+|\d[\d_]*)\b/i)) return 'number';
    if (stream.match(/^[A-Za-z_.$][\w.$]*/)) return null;
    stream.next();
    return null;
  },
};
