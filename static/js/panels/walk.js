/**
 * Why a page walk ended without a mapping, from the entries it read (privileged specification 1.12, section 4.3.2). Pure.
 * @typedef {import('./format.js').Word} Word
 * @typedef {{level: number, table: Word, index: number, address: Word, pte: Word, flags: string, leaf: boolean}} Step
 */
import { word } from './format.js';
import { sv39 } from './hexdump.js';

const VALID = 1n;
const READ = 2n;
const WRITE = 4n;
const POINTER_BITS = 0xfn;

/** @param {Step} step @returns {'leaf' | 'pointer' | 'invalid'} what the entry is */
export function entryKind(step) {
  const pte = word(step.pte);
  if ((pte & VALID) === 0n || (pte & (READ | WRITE)) === WRITE) return 'invalid';
  return (pte & POINTER_BITS) === VALID ? 'pointer' : 'leaf';
}

/**
 * @param {Step[]} steps of the guest's own walk, which gave no address @param {Word} gva
 * @returns {'noncanonical' | 'outside' | 'invalid' | 'reserved' | 'deep' | 'misaligned'} names a sentence `memory.fault.*`
 */
export function whyUnmapped(steps, gva) {
  const last = steps.at(-1);
  if (!last) return sv39(gva).canonical ? 'outside' : 'noncanonical';
  const pte = word(last.pte);
  if ((pte & VALID) === 0n) return 'invalid';
  if ((pte & (READ | WRITE)) === WRITE) return 'reserved';
  if (entryKind(last) === 'leaf') return 'misaligned';
  return last.level === 0 ? 'deep' : 'outside';
}

/**
 * The order of a walk's references: before each of the guest's comes the second stage that finds it, if there is one.
 * @param {number} guest how many references the guest's own walk has
 * @param {number[]} stages how many each second stage has; the last leads to the page
 * @returns {{guest: number[], second: number[]}} the number, from 1, of each of the guest's and of each stage's first
 */
export function walkOrder(guest, stages) {
  const order = { guest: /** @type {number[]} */ ([]), second: /** @type {number[]} */ ([]) };
  let next = 1;
  for (let index = 0; index < Math.max(guest, stages.length); index += 1) {
    if (index < stages.length) {
      order.second.push(next);
      next += stages[index];
    }
    if (index < guest) order.guest.push(next++);
  }
  return order;
}

/** Levels of Sv39, and of the second stage; shadow tables have a leaf for each 4 KiB page, and so has the second stage. */
const LEVELS = 3;

/**
 * How many memory references one TLB miss costs for a page that the guest's own walk finds with so many.
 * @param {number} guest @returns {{native: number, shadow: number, second: number}} without a hypervisor, through shadow tables,
 *   and with a second stage under the guest's tables: one for each reference and one for the page, (n + 1) x 3 + n
 */
export function missCosts(guest) {
  return { native: guest, shadow: LEVELS, second: (guest + 1) * LEVELS + guest };
}
