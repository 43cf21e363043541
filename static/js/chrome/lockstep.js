/**
 * Where a guest breaks on a host whose sensitive instructions are silent: asked for by a button, found by the engine, which runs a
 * fresh copy in lock-step with one on a machine where all of them trap.
 */
import { hex } from '../panels/format.js';
import { h } from '../dom.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {import('../panels/format.js').Word} Word */
/**
 * @typedef {{instructions: number, ended: boolean, difference: null | {pc: Word, instruction: string, symbol: string | null,
 *   source: {file: string, line: number, text: string} | null, x86: string, values: [string, Word, Word][]}}} Answer
 */

/** @param {App} app @param {number} guest */
export function lockstepPart(app, guest) {
  const result = h('div.silent-result', { role: 'status' });
  const find = h('button', { type: 'button', dataset: { action: 'find-silent' }, onclick: () => void ask() }, app.t('silent.find'));

  async function ask() {
    find.disabled = true;
    result.replaceChildren(h('p.dim', null, app.t('silent.running')));
    try {
      result.replaceChildren(...shown(app, await app.query({ type: 'lockstep', guest })));
    } catch (error) {
      result.replaceChildren(h('p.refusal', null, app.problemText(error)));
    }
    find.disabled = false;
  }

  return h('div.silent', null, h('p.text', null, app.t('silent.about')), h('div.buttons', null, find, h('a.button', { href: '/popek-goldberg', target: '_blank', rel: 'noopener' }, app.t('silent.popek'))), result);
}

/** @param {string} label @param {Word} value */
const held = (label, value) => h('dd', null, h('span', null, label), h('code', null, hex(value)));

/** @param {App} app @param {Answer} answer */
function shown(app, { instructions, ended, difference }) {
  const count = app.n(instructions);
  if (!difference) return [h('p.text', null, app.t(ended ? 'silent.same' : 'silent.limit', { count }))];
  const { pc, instruction, symbol, source, x86, values } = difference;
  return [
    h('p.text', null, app.t('silent.first', { count })),
    h('p.silent-instruction', null, h('code', null, instruction), x86 && h('span', null, ` ${app.t('silent.mirrors', { x86 })}`)),
    h('p.dim', null, h('code', null, `${symbol ?? hex(pc)}`), source && ` · ${source.file}:${source.line}`),
    source && h('pre.silent-source', null, source.text.trim()),
    h('dl.silent-values', null, ...values.flatMap(([name, there, here]) => [
      h('dt', null, h('code', null, name)), held(app.t('silent.there'), there), held(app.t('silent.here'), here)])),
  ].filter((part) => part !== null);
}
