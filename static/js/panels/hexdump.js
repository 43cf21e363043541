/**
 * Layout of a memory view: rows of 16 bytes as hexadecimal and ASCII. Pure.
 * @typedef {import('./format.js').Word} Word
 * @typedef {{address: bigint, hex: string[], ascii: string}} Row `hex` and `ascii` have one entry a byte; an unmapped byte is `--` and a space
 */
import { printable, word } from './format.js';

export const ROW_BYTES = 16;
const PAGE_BYTES = 4096n;
const TOP = 2n ** 64n;

/** The row that an address lies in. @param {Word} address @returns {bigint} */
export const rowStart = (address) => word(address) & ~BigInt(ROW_BYTES - 1);

/**
 * @param {Word} address of the first byte
 * @param {Uint8Array} bytes
 * @param {boolean[]} mapped one per 4 KiB page touched, from the page of `address`
 * @returns {Row[]}
 */
export function hexdump(address, bytes, mapped) {
  const start = word(address);
  /** @type {Row[]} */
  const rows = [];
  for (let offset = 0; offset < bytes.length; offset += ROW_BYTES) {
    const hex = [];
    let ascii = '';
    for (let index = offset; index < Math.min(offset + ROW_BYTES, bytes.length); index++) {
      const page = Number((start + BigInt(index)) / PAGE_BYTES - start / PAGE_BYTES);
      if (mapped[page] === false) {
        hex.push('--');
        ascii += ' ';
      } else {
        hex.push(bytes[index].toString(16).padStart(2, '0'));
        ascii += printable(bytes[index]);
      }
    }
    rows.push({ address: start + BigInt(offset), hex, ascii });
  }
  return rows;
}

/** Move an address by whole rows and stay inside 64 bits. @param {Word} address @param {number} rows @param {number} shown rows on the screen */
export function moved(address, rows, shown) {
  const last = TOP - BigInt(shown * ROW_BYTES);
  const next = rowStart(address) + BigInt(rows * ROW_BYTES);
  return next < 0n ? 0n : next > last ? last : next;
}

/** The Sv39 fields of a virtual address. @param {Word} address @returns {{vpn: [number, number, number], offset: number, canonical: boolean}} */
export function sv39(address) {
  const value = word(address);
  const sign = BigInt.asIntN(39, value);
  return {
    vpn: [Number((value >> 30n) & 511n), Number((value >> 21n) & 511n), Number((value >> 12n) & 511n)],
    offset: Number(value & 4095n),
    canonical: BigInt.asUintN(64, sign) === value,
  };
}
