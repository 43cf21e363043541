/**
 * A block of a guest's kernel beside what runs in its place under binary translation: each guest instruction with the host
 * instructions that stand for it, what became of it, and what has been translated so far.
 * @typedef {import('../app.js').App} App
 * @typedef {import('./format.js').Word} Word
 * @typedef {{address: Word, text: string}} HostInstruction
 * @typedef {{address: Word, text: string, symbol: string | null, how: string, host: HostInstruction[]}} Row
 * @typedef {{pc: Word, counts: Record<string, number> | null,
 *            block: {pc: Word, end: Word, rows: Row[], stubs: HostInstruction[]} | null}} Translation
 */
import { h } from '../dom.js';
import { hex, word } from './format.js';

/** What is counted, in the order in which it is told. */
const COUNTS = ['blocks', 'instructions', 'chained', 'call_outs', 'faults', 'retranslated', 'dropped', 'flushes', 'bytes'];

/** @param {App} app */
export function translationTable(app) {
  const counts = h('dl.translation-counts');
  const rows = h('div', { role: 'table', 'aria-label': app.t('cpu.translation') });
  const element = h('div.translation', {}, counts, rows);

  /** @param {HostInstruction[]} code */
  const listing = (code) => code.map((each) => h('div.host-line', {}, h('span.code-address', {}, hex(each.address)), h('span.code-text', {}, each.text)));

  /** @param {Row} row @param {bigint} pc */
  function line(row, pc) {
    const here = word(row.address) === pc;
    return h('div', { role: 'row', class: here ? 'translation-row current' : 'translation-row' },
      h('span.code-mark', { role: 'cell' }, here ? '▶' : '', here && h('span.visually-hidden', {}, app.t('cpu.current'))),
      h('span.guest-line', { role: 'cell' }, h('span.code-address', {}, hex(row.address)), h('span.code-text', {}, row.text)),
      h('span', { role: 'cell', class: `how ${row.how}` }, app.t(`cpu.translation.${row.how}`)),
      h('div', { role: 'cell' }, ...listing(row.host)));
  }

  /** @param {Translation} now */
  function show(now) {
    const told = now.counts ?? {};
    counts.replaceChildren(...COUNTS.filter((name) => name in told).map((name) => h('div', {},
      h('dt', {}, app.t(`cpu.translation.count.${name}`)), h('dd', {}, app.n(told[name])))));
    if (now.block === null) {
      rows.replaceChildren(h('div', { role: 'row' }, h('span.dim', { role: 'cell' }, app.t('cpu.translation.none'))));
      return;
    }
    const head = (/** @type {string} */ key) => h('span', { role: 'columnheader' }, app.t(key));
    const symbol = now.block.rows[0].symbol;
    rows.replaceChildren(
      h('div.translation-row.head', { role: 'row' }, head('cpu.translation.mark'), head('cpu.translation.guest'), head('cpu.translation.how'),
        head('cpu.translation.host')),
      ...(symbol === null ? [] : [h('div.code-symbol', { role: 'row' }, h('span', { role: 'cell' }, `${symbol}:`))]),
      ...now.block.rows.map((row) => line(row, word(now.pc))),
      ...(now.block.stubs.length === 0 ? [] : [h('div.translation-row', { role: 'row' }, h('span', { role: 'cell' }),
        h('span.dim', { role: 'cell' }, app.t('cpu.translation.stubs')), h('span', { role: 'cell' }),
        h('div', { role: 'cell' }, ...listing(now.block.stubs)))]));
  }

  return { element, show };
}
