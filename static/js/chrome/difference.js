/**
 * What paravirtualization costs: the source of a changed kernel beside the original's, file by file, line by line. Both texts
 * come from the server, which compares them.
 */
import { h } from '../dom.js';
import { dialog } from './dialogs.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {[number, string] | null} Line */
/** @typedef {['same' | 'changed' | 'removed' | 'added', Line, Line]} Row */
/** @typedef {[name: string, original: string | null, changed: string | null, rows: Row[]]} File */
/** @typedef {{guest: string, original: string, files: File[], shared: number, kept: number, removed: number, added: number}} Difference */

/** @param {App} app @param {string} guest of those that come with Ringside @returns {Promise<Difference>} rejects with a Problem */
async function ask(app, guest) {
  const response = await fetch(`/guests/${encodeURIComponent(guest)}/difference`, { headers: { 'X-CSRF-Token': app.csrf } });
  const answer = await response.json();
  if (!answer.ok) throw answer.error;
  return answer.difference;
}

/** @param {App} app @param {string} guest */
export async function differenceDialog(app, guest) {
  /** @type {Difference} */
  let found;
  try {
    found = await ask(app, guest);
  } catch (error) {
    app.toast({ text: app.problemText(error), level: 'error' });
    return;
  }
  const sections = found.files.map((file, index) => fileSection(app, file, `difference-${index}`));
  const element = dialog(app, app.t('difference.title', { changed: found.guest, original: found.original }),
    h('p', null, app.t('difference.summary', {
      shared: app.n(found.shared), removed: app.n(found.removed), added: app.n(found.added), kept: app.n(found.kept),
    })),
    h('nav.difference-files', { 'aria-label': app.t('difference.files') }, found.files.map((file, index) => h('a.button', {
      href: `#difference-${index}`,
      onclick: (/** @type {Event} */ event) => {
        event.preventDefault();
        sections[index].scrollIntoView({ block: 'start' });
        sections[index].focus({ preventScroll: true });
      },
    }, file[0], ' ', counts(file)))),
    ...sections);
  element.classList.add('difference');
}

/** `−12 +20`. @param {File} file */
function counts([, , , rows]) {
  const of = (/** @type {string[]} */ ...kinds) => rows.filter(([kind]) => kinds.includes(kind)).length;
  return h('span.counts', null, h('span.removed', null, `−${of('changed', 'removed')}`), ' ', h('span.added', null, `+${of('changed', 'added')}`));
}

/** @param {App} app @param {File} file @param {string} id */
function fileSection(app, file, id) {
  const [, original, changed, rows] = file;
  return h('section', { id, tabindex: -1 }, h('table', null,
    h('colgroup', null, h('col.number'), h('col'), h('col.number'), h('col')),
    h('thead', null, h('tr', null, h('th', { colspan: 2, scope: 'colgroup' }, original ?? app.t('difference.none')),
      h('th', { colspan: 2, scope: 'colgroup' }, changed ?? app.t('difference.none')))),
    h('tbody', null, rows.map((row) => tableRow(app, row)))));
}

/** @param {App} app @param {Row} row */
function tableRow(app, [kind, before, after]) {
  return h('tr', null,
    ...side(before, kind === 'same' ? '' : 'removed', app.t('difference.removed')),
    ...side(after, kind === 'same' ? '' : 'added', app.t('difference.added')));
}

/** A line's number and text. @param {Line} line @param {'' | 'removed' | 'added'} kind @param {string} word what a screen reader says of it */
function side(line, kind, word) {
  if (!line) return [h('td.number.none'), h('td.none')];
  const changed = kind ? `.${kind}` : '';
  return [
    h(/** @type {'td.number'} */ (`td.number${changed}`), null, line[0]),
    h(/** @type {'td.code'} */ (`td.code${changed}`), kind ? { 'aria-label': `${word}: ${line[1]}` } : null, line[1]),
  ];
}
