/**
 * Text of machine words and back. A word is an unsigned 64-bit value and arrives as a number when that is exact, else as a
 * BigInt (see ../msgpack.js); here it is always a BigInt, so nothing is ever rounded. Pure.
 * @typedef {number | bigint} Word
 */

/** @param {Word} value @returns {bigint} the value as an unsigned 64-bit word */
export function word(value) {
  return BigInt.asUintN(64, BigInt(value));
}

/** @param {Word} value @param {number} [digits] at least so many digits @returns {string} `0x80200000` */
export function hex(value, digits = 1) {
  return `0x${word(value).toString(16).padStart(digits, '0')}`;
}

/** @param {Word} value @returns {string} all 16 digits of a word, in two groups: `0xffffffc0 00102abc` */
export function hexWord(value) {
  const digits = word(value).toString(16).padStart(16, '0');
  return `0x${digits.slice(0, 8)} ${digits.slice(8)}`;
}

/**
 * An address as people type one: `0x8020_0000`, `80200000h`, decimal, `symbol`'s offset is not read here.
 * @param {string} text
 * @returns {bigint | null} null when it is not a number of 64 bits
 */
export function parseAddress(text) {
  const clean = text.trim().replace(/[_\s]/g, '').toLowerCase();
  const digits = /^0x([0-9a-f]{1,16})$/.exec(clean)?.[1] ?? /^([0-9a-f]{1,16})h$/.exec(clean)?.[1];
  if (digits) return BigInt(`0x${digits}`);
  if (!/^[0-9]{1,20}$/.test(clean)) return null;
  const value = BigInt(clean);
  return value < 2n ** 64n ? value : null;
}

/** Virtual time with the unit that keeps it short. @param {Word} nanoseconds @returns {[string, 'ns' | 'µs' | 'ms' | 's']} */
export function duration(nanoseconds) {
  const value = Number(nanoseconds);
  if (value < 1e3) return [String(value), 'ns'];
  if (value < 1e6) return [(value / 1e3).toFixed(3), 'µs'];
  if (value < 1e9) return [(value / 1e6).toFixed(3), 'ms'];
  return [(value / 1e9).toFixed(6), 's'];
}

/** A printable ASCII character for a byte, else a dot. @param {number} byte @returns {string} */
export function printable(byte) {
  return byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.';
}
