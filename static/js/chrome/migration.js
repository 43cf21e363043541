/** A guest's migration in the inspector: how it moves when it is moved, and what the latest one comes to. */
import { h, setText } from '../dom.js';
import { LINKS, MODES, bars, chooseMode, chosenMode, dirtyRate, size, statusLine } from '../migrations.js';
import { actionButton, figure } from './parts.js';

/** @typedef {import('../app.js').App} App */

const BARS = 32;

/** How a move of a running VM goes. @param {App} app */
export function modeControl(app) {
  const chosen = chosenMode(app.preferences);
  const select = h('select', {
    dataset: { action: 'migrate-mode' }, 'aria-label': app.t('migrate.mode'), onchange: () => chooseMode(app.preferences, select.value),
  }, ...MODES.map((mode) => h('option', { value: mode, selected: mode === chosen, title: app.t(`migrate.mode.${mode}.detail`) }, app.t(`migrate.mode.${mode}`))));
  return h('label.control', { title: app.t('migrate.mode.detail') }, h('span', null, app.t('migrate.mode')), select);
}

/** The link between the lab's hosts, for migrations that begin from now on. @param {App} app */
export function linkControl(app) {
  const now = app.store.document?.link_gbit ?? LINKS[1];
  const offered = LINKS.includes(now) ? LINKS : [...LINKS, now].sort((a, b) => a - b);
  const select = h('select', {
    dataset: { action: 'lab-link' }, 'aria-label': app.t('control.link'),
    onchange: async () => {
      if ((await app.attempt({ type: 'lab.link', gbit: Number(select.value) })) === undefined) select.value = String(now);
    },
  }, ...offered.map((gbit) => h('option', { value: String(gbit), selected: gbit === now }, app.t('control.link.value', { gbit }))));
  return h('label.control', { title: app.t('control.link.detail') }, h('span', null, app.t('control.link')), select);
}

/** The latest migration of a guest, in figures that are updated in place. @param {App} app @param {number} guest */
export function migrationFigures(app, guest) {
  const status = h('p.text', { role: 'status', dataset: { migration: 'status' } });
  const rounds = figure(app.t('migrate.rounds'));
  const pages = figure(app.t('migrate.pages'));
  const bytes = figure(app.t('migrate.bytes'));
  const rate = figure(app.t('migrate.dirty-rate'));
  const fetched = figure(app.t('migrate.fetched'));
  const downtime = figure(app.t('migrate.downtime'));
  const total = figure(app.t('migrate.total'));
  const columns = Array.from({ length: BARS }, () => {
    const [sent, dirtied] = [h('i'), h('i.dirtied')];
    return { element: h('span', { hidden: true }, sent, dirtied), sent, dirtied };
  });
  const chart = h('div.rounds', { role: 'img' }, ...columns.map((column) => column.element));
  const cancel = actionButton(app, 'migrate-cancel');
  const element = h('div', null, status, chart,
    h('dl.figures', null, rounds.element, pages.element, bytes.element, rate.element, fetched.element, downtime.element, total.element),
    h('div.buttons', null, cancel));
  return {
    element,
    update() {
      const row = app.store.migrations.get(guest);
      element.hidden = row === undefined;
      if (!row) return;
      setText(status, statusLine(app, row));
      setText(rounds.value, app.n(row.round_count));
      setText(pages.value, app.n(row.pages));
      setText(bytes.value, size(app.i18n, row.bytes));
      const dirtied = dirtyRate(row);
      rate.element.hidden = dirtied === null;
      setText(rate.value, dirtied === null ? '' : `${app.i18n.compact(dirtied)} ${app.t('unit.per-second')}`);
      fetched.element.hidden = row.mode !== 'post-copy';
      setText(fetched.value, app.n(row.fetched));
      setText(downtime.value, row.end ? app.i18n.duration(row.downtime) : '');
      setText(total.value, row.end ? app.i18n.duration(row.end - row.begin) : '');
      const shown = bars(row);
      chart.setAttribute('aria-label', app.t('migrate.chart', { rounds: row.rounds.map(([, , sent, , stored]) => `${sent}/${stored ?? 0}`).join(', ') }));
      columns.forEach((column, index) => {
        const bar = shown[index];
        column.element.hidden = !bar;
        column.sent.style.setProperty('height', `${Math.max(2, (bar?.sent ?? 0) * 100)}%`);
        column.dirtied.style.setProperty('height', `${(bar?.dirtied ?? 0) * 100}%`);
      });
      cancel.refresh();
    },
  };
}
