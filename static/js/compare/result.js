/**
 * One comparison: how far it is, its figures in sortable columns, exits by cause and costs as bars with their tables, crossings by
 * level, and two of its configurations in lock-step. Executed instructions and modelled cycles stand side by side.
 */
import { h, icon } from '../dom.js';
import { ICONS } from '../icons.js';
import { causeName } from '../panels/describe.js';
import { sessionOf } from '../panels/session.js';
import { lockStep } from './lockstep.js';
import { baseOf, byWorkload, crossingsBy, exitsBy, figureOf, measured, ratioText } from './model.js';
import { bars, table } from './table.js';
import { configurationText, costsText, figureText, workloadText } from './words.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {import('./model.js').Comparison} Comparison */
/** @typedef {import('./model.js').Run & import('./model.js').Measured} Measured */

/**
 * What a reader has set on a comparison's screen. @typedef {{workload: string, perUnit: boolean, sort: import('./model.js').Sort | null,
 *            unfolded: Set<string>, step: import('./lockstep.js').Step}} View
 * @typedef {{again: () => void, cancel: () => void, remove: () => void, changed: () => void}} Doing
 */

/** @returns {View} */
export const freshView = () => ({ workload: '', perUnit: true, sort: null, unfolded: new Set(), step: { left: '', right: '', found: null, refusal: '' } });

/** How a figure is told: its unit and how many of it make one of them. @type {Record<string, {divide: number, unit: string}>} */
const UNITS = {
  virtual_ns: { divide: 1e3, unit: 'µs' }, wall_s: { divide: 1e-6, unit: 'µs' }, start_ns: { divide: 1e3, unit: 'µs' },
  overhead_bytes: { divide: 1024, unit: 'KiB' },
};
/** Columns that a ratio follows. */
const COMPARED = new Set(['exits', 'modelled_cycles']);

/**
 * @param {App} app @param {Comparison} comparison @param {import('./model.js').Choices} choices @param {View} view @param {Doing} doing
 */
export function resultView(app, comparison, choices, view, doing) {
  const groups = byWorkload(comparison.runs);
  if (!groups.has(view.workload)) view.workload = [...groups.keys()][0] ?? '';
  const over = comparison.done === comparison.total;
  const file = (/** @type {string} */ suffix) => h('a.button', {
    href: `/labs/${app.lab}/comparisons/${comparison.id}.${suffix}`, download: true, 'aria-label': app.t('compare.download', { kind: suffix.toUpperCase() }),
  }, icon(ICONS.download), suffix.toUpperCase());
  const link = async () => {
    const address = new URL(`/labs/${app.lab}?${comparison.query}`, location.href).href;
    try {
      await navigator.clipboard.writeText(address);
      app.toast({ text: app.t('compare.link-copied') });
    } catch {
      app.toast({ text: app.t('compare.link', { address }) });
    }
  };
  const head = over
    ? h('div.compare-do', null, h('button', { type: 'button', dataset: { do: 'again' }, onclick: doing.again }, app.t('compare.again')),
      h('button', { type: 'button', dataset: { do: 'link' }, onclick: link }, icon(ICONS.share), app.t('compare.copy-link')), file('csv'), file('json'),
      h('span.spacer'), h('button.danger', { type: 'button', dataset: { do: 'delete' }, onclick: doing.remove }, app.t('compare.delete')))
    : h('div.compare-do', null, h('progress', { max: comparison.total, value: comparison.done, 'aria-label': app.t('compare.progress') }),
      h('span', { role: 'status' }, app.t('compare.done', { done: comparison.done, total: comparison.total })),
      h('button', { type: 'button', dataset: { do: 'cancel' }, onclick: doing.cancel }, app.t('dialog.cancel')));
  const tabs = h('div.segments', { role: 'group', 'aria-label': app.t('compare.workloads') }, [...groups.keys()].map((key) => {
    const [name, count] = key.split(':');
    return h('button', {
      type: 'button', 'aria-pressed': key === view.workload, dataset: { tab: name },
      onclick: () => { view.workload = key; view.step.found = null; doing.changed(); },
    }, app.t('compare.workload-times', { name: workloadText(app, name), count: Number(count) }));
  }));
  const per = h('div.segments', { role: 'group', 'aria-label': app.t('compare.figures-for') }, [true, false].map((unit) => h('button', {
    type: 'button', 'aria-pressed': view.perUnit === unit, dataset: { per: unit ? 'unit' : 'all' },
    onclick: () => { view.perUnit = unit; doing.changed(); },
  }, app.t(unit ? 'compare.per-unit' : 'compare.per-work'))));
  return h('div.compare-result', null, head, groups.size ? h('div.compare-do', null, tabs, h('span.spacer'), per) : null,
    groups.size ? oneWorkload(app, groups.get(view.workload) ?? [], comparison.costs_text, choices, view, doing) : h('p.dim', null, app.t('compare.waiting')));
}

/** @param {App} app @param {import('./model.js').Run[]} runs @param {string} charged the table of costs @param {import('./model.js').Choices} choices @param {View} view @param {Doing} doing */
function oneWorkload(app, runs, charged, choices, view, doing) {
  const { context } = sessionOf(app);
  const good = runs.filter(measured);
  const failed = runs.filter((run) => !measured(run));
  const name = (/** @type {import('./model.js').Run} */ run) => configurationText(app, run.configuration);
  const problems = failed.map((run) => h('p.refusal', { role: 'alert' }, `${name(run)}: ${app.problemText(run.problem)}`));
  if (good.length === 0) return h('div', null, problems);
  const base = baseOf(good);
  const share = (/** @type {Measured} */ run, /** @type {number} */ value) => (view.perUnit ? value / run.count : value);
  const format = (/** @type {number} */ value) => figureText(app, value);
  /** @param {import('./model.js').Figure} figure @returns {import('./table.js').Column<Measured>[]} */
  const columnsOf = (figure) => {
    const { divide, unit } = UNITS[figure.id] ?? { divide: 1, unit: '' };
    const value = (/** @type {Measured} */ run) => figureOf(run, figure, view.perUnit) / divide;
    const text = app.t(`compare.figure.${figure.id}`);
    return [
      { key: figure.id, text: unit ? `${text}, ${unit}` : text, hint: app.t(`compare.figure.${figure.id}.what`), value, show: (run) => format(value(run)) },
      ...(COMPARED.has(figure.id) ? [{
        key: `${figure.id}-ratio`, text: app.t('compare.ratio'), hint: app.t('compare.ratio.what', { name: name(base) }),
        show: (/** @type {Measured} */ run) => ratioText(value(run), figureOf(base, figure, view.perUnit) / divide),
      }] : []),
    ];
  };
  const outputs = new Set(good.map((run) => run.output_sha256));
  const figures = table(app, {
    caption: app.t(view.perUnit ? 'compare.figures.unit' : 'compare.figures.work', { name: workloadText(app, runs[0].workload) }),
    columns: [
      { key: 'configuration', text: app.t('compare.configuration'), head: true, value: name, show: name },
      ...choices.figures.flatMap(columnsOf),
    ],
    rows: good, sort: view.sort, onSort: (sort) => { view.sort = sort; doing.changed(); },
  });
  const labels = good.map(name);

  /** A picture of counts by sort, and the same numbers. @param {{sort: string, counts: number[]}[]} sorts @param {(sort: string) => string} words */
  const partsOf = (sorts, words) => sorts.map(({ sort, counts }) => ({ id: sort, text: words(sort), values: counts.map((count, place) => share(good[place], count)) }));
  const kinds = partsOf(exitsBy(good, (row) => row.kind), (kind) => app.t(`kind.${kind}`));
  const causes = partsOf(exitsBy(good, (row) => `${row.kind} ${row.cause} ${row.disposition}`), (sort) => {
    const [kind, cause, disposition] = sort.split(' ');
    return `${app.t(`kind.${kind}`)}: ${causeName(context, Number(cause))}, ${app.t(`disposition.${disposition}`)}`;
  });
  const levels = partsOf(crossingsBy(good), (sort) => sort.split(' ').map((level) => app.t(`level.${level}`)).join(' → '));
  const costs = [
    { id: 'executed', text: app.t('compare.figure.instructions'), values: good.map((run) => share(run, run.figures.instructions)) },
    { id: 'modelled', text: app.t('compare.figure.modelled_cycles'), values: good.map((run) => share(run, run.figures.modelled_cycles)) },
  ];
  /** @param {string} caption @param {{id: string, text: string, values: number[]}[]} parts @param {boolean} total */
  const numbers = (caption, parts, total) => table(app, {
    caption,
    columns: [
      { key: 'configuration', text: app.t('compare.configuration'), head: true, show: (/** @type {number} */ place) => labels[place] },
      ...parts.map((part) => ({ key: part.id, text: part.text, show: (/** @type {number} */ place) => (part.values[place] ? format(part.values[place]) : '–') })),
      ...(total ? [{ key: 'total', text: app.t('compare.total'), show: (/** @type {number} */ place) => format(parts.reduce((sum, part) => sum + part.values[place], 0)) }] : []),
    ],
    rows: labels.map((_, place) => place),
  });
  /** @param {string} id @param {{id: string, text: string, values: number[]}[]} parts @param {boolean} stacked */
  const picture = (id, parts, stacked) => h('div.compare-picture', { dataset: { picture: id } },
    bars(app, { title: app.t(`compare.${id}`), note: app.t(`compare.${id}.what`, { table: charged ? costsText(app, charged) : app.t('compare.usual-costs') }), labels, parts, stacked, format }),
    numbers(app.t(`compare.${id}`), parts, stacked));
  /** @param {string} id @param {{id: string, text: string, values: number[]}[]} parts */
  const folded = (id, parts) => {
    const element = h('details', {
      open: view.unfolded.has(id), dataset: { fold: id },
      ontoggle: () => { if (element.open) view.unfolded.add(id); else view.unfolded.delete(id); },
    }, h('summary', null, app.t(`compare.${id}`)), numbers(app.t(`compare.${id}`), parts, true));
    return element;
  };

  return h('div', null, problems, figures,
    h('p.compare-said', { dataset: { same: String(outputs.size === 1) } },
      app.t(outputs.size === 1 ? 'compare.same-output' : 'compare.other-output', { line: good[0].said })),
    kinds.length ? picture('exits', kinds, true) : h('p.dim', null, app.t('compare.no-exits')),
    picture('costs', costs, false),
    causes.length ? folded('causes', causes) : null,
    levels.length ? folded('switches-by-level', levels) : null,
    good.length > 1 ? lockStep(app, good, charged, view.step, doing.changed) : null);
}
