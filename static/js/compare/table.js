/** Tables and bars of a comparison: the same numbers twice, so that no picture speaks alone. */
import { h } from '../dom.js';
import { sorted } from './model.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {import('./model.js').Sort} Sort */

/**
 * @template T
 * @typedef {{key: string, text: string, hint?: string, value?: (row: T) => string | number, show: (row: T) => import('../dom.js').Child,
 *            head?: boolean}} Column `value`: what it is sorted by; none: it is not
 */

/**
 * A table whose columns sort on a click. @template T
 * @param {App} app
 * @param {{caption: string, columns: Column<T>[], rows: T[], sort?: Sort | null, onSort?: (sort: Sort) => void}} content
 */
export function table(app, { caption, columns, rows, sort = null, onSort = () => {} }) {
  const by = columns.find((column) => column.key === sort?.key);
  const shown = by?.value ? sorted(rows, by.value, sort?.descending ?? false) : rows;
  /** @param {Column<T>} column */
  const heading = (column) => {
    const direction = sort === null || sort.key !== column.key ? null : sort.descending ? 'descending' : 'ascending';
    return h('th', { scope: 'col', class: column.head ? null : 'figure-cell', 'aria-sort': direction, title: column.hint ?? null },
      column.value ? h('button.quiet', {
        type: 'button', dataset: { sort: column.key },
        onclick: () => onSort({ key: column.key, descending: direction === null ? !column.head : direction === 'ascending' }),
      }, column.text, direction ? h('span.sort-mark', { 'aria-hidden': true }, direction === 'descending' ? ' ▾' : ' ▴') : null) : column.text);
  };
  return h('div.compare-scroll', { tabindex: 0, role: 'region', 'aria-label': caption }, h('table.compare-table', null,
    h('caption', null, caption), h('thead', null, h('tr', null, columns.map(heading))),
    h('tbody', null, shown.map((row) => h('tr', null, columns.map((column) => (column.head
      ? h('th', { scope: 'row' }, column.show(row)) : h('td.figure-cell', null, column.show(row)))))))));
}

/**
 * Horizontal bars, one line for each label, all to one scale. Stacked: parts follow one another; else each part has a bar of
 * its own, and nothing is added. `parts`: id (its colour, in compare.css) and words.
 * @param {App} app
 * @param {{title: string, note?: string, labels: string[], parts: {id: string, text: string, values: number[]}[], stacked: boolean,
 *          format: (value: number) => string}} content
 */
export function bars(app, { title, note, labels, parts, stacked, format }) {
  const totals = labels.map((_, line) => parts.reduce((sum, part) => sum + part.values[line], 0));
  const longest = Math.max(1e-12, ...(stacked ? totals : parts.flatMap((part) => part.values)));
  /** @param {number} value */
  const share = (value) => `${(value / longest) * 100}%`;
  const rows = labels.map((label, line) => h('div.bar-row', null, h('span.bar-label', null, label),
    h('div.bar-lane', null, (stacked ? [parts] : parts.map((part) => [part])).map((group) => h('div.bar', null,
      group.filter((part) => part.values[line] > 0).map((part) => h('span.bar-part', {
        dataset: { part: part.id }, style: { width: share(part.values[line]) }, title: `${part.text}: ${format(part.values[line])}`,
      })),
      h('span.bar-sum', null, format(group.reduce((sum, part) => sum + part.values[line], 0))))))));
  return h('figure.bars', { role: 'group', 'aria-label': title },
    h('figcaption', null, h('h4', null, title), note ? h('p', null, note) : null),
    h('div', { 'aria-hidden': true }, rows),
    h('ul.bar-legend', null, parts.filter((part) => part.values.some((value) => value > 0)).map((part) => h('li', null,
      h('span.bar-part', { dataset: { part: part.id }, 'aria-hidden': true }), part.text))));
}
