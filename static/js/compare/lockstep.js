/**
 * Two configurations stepped together: the stretch in which their traps first differ, beside each other, and whether what their
 * guests saw ever did (engine.compare.Difference).
 */
import { h, setText } from '../dom.js';
import { ask } from '../http.js';
import { causeName, describe, pathWords } from '../panels/describe.js';
import { hex } from '../panels/format.js';
import { pill } from '../panels/parts.js';
import { sessionOf } from '../panels/session.js';
import { RecordReader } from '../records.js';
import { bytesOf } from './model.js';
import { configurationText } from './words.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {import('./model.js').Run & import('./model.js').Measured} Measured */
/**
 * @typedef {{stretch: number | null, same: number, left: string, right: string, seen: number, apart: [string, string] | null,
 *            console: boolean, skip: number}} Difference records as base64
 * @typedef {{left: string, right: string, found: Difference | null, refusal: string}} Step what is chosen and what was found
 */

/** @param {App} app @param {Measured[]} runs of one workload @param {string} costs the table @param {Step} step @param {() => void} changed */
export function lockStep(app, runs, costs, step, changed) {
  const names = runs.map((run) => run.configuration);
  if (!names.includes(step.left)) step.left = names[0];
  if (!names.includes(step.right)) step.right = names.find((name) => name !== step.left) ?? names[0];
  /** @param {'left' | 'right'} side */
  const choice = (side) => h('select', {
    'aria-label': app.t(`lockstep.${side}`),
    onchange: (/** @type {Event} */ event) => {
      step[side] = /** @type {HTMLSelectElement} */ (event.target).value;
      step.found = null;
      changed();
    },
  }, names.map((name) => h('option', { value: name, selected: name === step[side] }, configurationText(app, name))));
  const refusal = h('p.refusal', { role: 'alert', hidden: !step.refusal }, step.refusal);
  /** @param {number} skip */
  const go = async (skip) => {
    start.disabled = true;
    step.refusal = '';
    try {
      const workload = `${runs[0].workload}:${runs[0].count}`;
      step.found = { ...await ask(app, `/labs/${app.lab}/lock-step`, 'POST', { workload, left: step.left, right: step.right, skip, costs }), skip };
    } catch (error) {
      step.refusal = app.problemText(error);
      setText(refusal, step.refusal);
    }
    changed();
  };
  const start = h('button', { type: 'button', dataset: { do: 'lock-step' }, onclick: () => void go(0) }, app.t('lockstep.start'));
  return h('section.lockstep', null, h('h3', null, app.t('lockstep.title')), h('p.dim', null, app.t('lockstep.what')),
    h('div.compare-do', null, choice('left'), choice('right'), start), refusal,
    step.found ? found(app, step, step.found, go) : null);
}

/** @param {App} app @param {Step} step @param {Difference} difference @param {(skip: number) => Promise<void>} go */
function found(app, step, difference, go) {
  const { context } = sessionOf(app);
  const reader = new RecordReader(context.schema);
  const [left, right] = [difference.left, difference.right].map((bytes) => reader.read(bytesOf(bytes)));
  /** @param {import('../records.js').TrapRecord | undefined} record */
  const cell = (record) => {
    if (!record) return [h('td', { colspan: 2 }, h('span.dim', null, '–'))];
    const disposition = context.schema.dispositions[record.disposition];
    const mark = pill('span');
    mark.set(disposition, app.t(`disposition.${disposition}`));
    return [
      h('td', null, h('span.lockstep-cause', null, app.t(`kind.${context.schema.kinds[record.kind]}`), ' · ', causeName(context, record.cause)),
        h('small', null, describe(record, context))),
      h('td', { title: pathWords(record.path, context) }, mark.element, h('small', null, hex(record.pc))),
    ];
  };
  const seen = difference.apart ? 'lockstep.apart' : difference.console ? 'lockstep.alike' : 'lockstep.alike-but-console';
  const verdict = h('p.compare-said', { role: 'status', dataset: { same: String(!difference.apart && difference.console) } },
    app.t(seen, { n: difference.seen }));
  if (difference.stretch === null) return h('div', null, verdict, h('p', null, app.t(difference.skip ? 'lockstep.no-more' : 'lockstep.never')));
  const rows = Array.from({ length: Math.max(left.length, right.length) }, (_, place) => h('tr', {
    dataset: { differs: String(place === difference.same) }, 'aria-label': place === difference.same ? app.t('lockstep.first') : null,
  }, h('th', { scope: 'row' }, place === difference.same ? `${place + 1} ◀` : String(place + 1)), cell(left[place]), cell(right[place])));
  return h('div', null, verdict,
    h('p', null, app.t('lockstep.stretch', { stretch: difference.stretch + 1, left: left.length, right: right.length }), ' ',
      h('button', { type: 'button', dataset: { do: 'next-difference' }, onclick: () => void go(difference.skip + 1) }, app.t('lockstep.next'))),
    h('div.compare-scroll', { tabindex: 0, role: 'region', 'aria-label': app.t('lockstep.title') }, h('table.compare-table.lockstep-table', null,
      h('thead', null, h('tr', null, h('td'), [step.left, step.right].map((name) => h('th', { scope: 'col', colspan: 2 }, configurationText(app, name))))),
      h('tbody', null, rows))));
}
