/**
 * The page that lists every instruction as privileged, sensitive or innocuous, with what each did in each mode. The server ran
 * them (engine.machine.popek_goldberg); here they are only filtered and shown.
 * @typedef {[what: string, one: string, other: string]} Evidence
 * @typedef {{trap: string | null, changes: Evidence[], shows: Evidence[]}} Behaviour
 * @typedef {{name: string, text: string, extension: string, privileged: boolean, control: boolean, behaviour: boolean, violates: boolean,
 *   differs: boolean, calls: boolean, x86: string, modes: Record<string, Behaviour>}} Verdict
 * @typedef {{plain: Verdict[], silent: Verdict[]}} Classification `silent`: of the switched machine, those that differ there
 */
import { byId, h, setText } from './dom.js';
import { i18n, renderers } from './pages.js';

const CLASSES = /** @type {const} */ (['privileged', 'control', 'behaviour', 'violates', 'innocuous']);
const MODES = ['U', 'S', 'M', 'VU', 'VS'];
/** Pieces of evidence that a cell shows before it has to be opened. */
const SHOWN = 2;
/** @type {Record<string, string>} */
const TRAPS = { 'illegal instruction': 'popek.trap.illegal', 'virtual instruction': 'popek.trap.virtual', breakpoint: 'popek.trap.breakpoint' };

/** @type {Classification | null} */
let found = null;
let failed = false;
const chosen = { machine: /** @type {'plain' | 'silent'} */ ('plain'), kind: 'all', text: '' };

/** @param {Verdict} verdict @returns {readonly (typeof CLASSES[number])[]} */
function classesOf(verdict) {
  const classes = /** @type {const} */ (['privileged', 'control', 'behaviour', 'violates']).filter((name) => verdict[name]);
  return classes.length > 0 ? classes : ['innocuous'];
}

/** The machine's instructions. @param {Classification} all @param {'plain' | 'silent'} machine */
function ofMachine(all, machine) {
  if (machine === 'plain') return all.plain;
  const changed = new Map(all.silent.map((verdict) => [verdict.name, verdict]));
  return all.plain.map((verdict) => changed.get(verdict.name) ?? verdict);
}

/** @param {Behaviour} mode */
function cell(mode) {
  if (mode.trap !== null) return h('span.trap', { title: mode.trap }, i18n.t(TRAPS[mode.trap] ?? 'popek.trap.call'));
  const evidence = [
    ...mode.changes.map(([what, before, after]) => i18n.t('popek.changes', { what: i18n.has(`popek.what.${what}`) ? i18n.t(`popek.what.${what}`) : what, before, after })),
    ...mode.shows.map(([what, one, other]) => i18n.t('popek.shows', { what, one, other })),
  ];
  const line = (/** @type {string} */ text) => h('span.does', null, text);
  return [
    h('span.runs', null, i18n.t('popek.runs')),
    ...evidence.slice(0, SHOWN).map(line),
    evidence.length > SHOWN && h('details', null, h('summary', null, i18n.t('popek.more', { count: evidence.length - SHOWN })), ...evidence.slice(SHOWN).map(line)),
  ];
}

/** @param {Verdict} verdict */
const row = (verdict) => h('tr', { class: verdict.violates ? 'violates' : null },
  h('td', null, h('code', null, verdict.name), h('span.dim', null, `${verdict.text} · ${verdict.extension}`)),
  h('td', null, h('div.chips', null, ...classesOf(verdict).map((name) => h('span', { class: name, title: i18n.t(`popek.class.${name}.detail`) }, i18n.t(`popek.class.${name}`)))),
    verdict.differs && h('span.does', null, i18n.t('popek.differs')), verdict.x86 && h('span.does', null, i18n.t('popek.mirrors', { x86: verdict.x86 }))),
  ...MODES.map((mode) => h('td', { class: mode.length > 1 ? 'virtual' : null }, ...[cell(verdict.modes[mode])].flat())));

function showVerdict() {
  const root = byId('verdict');
  if (!found) {
    root.className = failed ? 'fails' : '';
    root.replaceChildren(i18n.t(failed ? 'popek.failed' : 'popek.loading'));
    return;
  }
  const all = ofMachine(found, chosen.machine);
  const sensitive = all.filter((verdict) => verdict.control || verdict.behaviour).length;
  const violating = all.filter((verdict) => verdict.violates);
  root.className = violating.length > 0 ? 'fails' : 'holds';
  root.replaceChildren(
    h('strong', null, violating.length > 0 ? i18n.t('popek.fails', { violates: violating.length, sensitive }) : i18n.t('popek.holds', { sensitive })),
    h('p', null, i18n.t('popek.theorem')),
    ...violating.length > 0 ? [h('ul', null, ...violating.map((verdict) => h('li', null, h('code', null, verdict.name), verdict.x86 && ` (${i18n.t('popek.mirrors', { x86: verdict.x86 })})`)))] : [],
  );
}

function showTable() {
  if (!found) return;
  const all = ofMachine(found, chosen.machine);
  const text = chosen.text.trim().toLowerCase();
  const fitting = all.filter((verdict) => (chosen.kind === 'all' || classesOf(verdict).includes(/** @type {any} */ (chosen.kind)))
    && (verdict.name.includes(text) || verdict.text.includes(text) || verdict.extension.toLowerCase() === text));
  setText(byId('shown'), i18n.t('popek.shown', { shown: fitting.length, all: all.length }));
  byId('instructions').replaceChildren(fitting.length === 0 ? h('p.empty', null, i18n.t('popek.none')) : h('table', null,
    h('thead', null, h('tr', null, h('th', { scope: 'col' }, i18n.t('popek.instruction')), h('th', { scope: 'col' }, i18n.t('popek.class')),
      ...MODES.map((mode) => h('th', { scope: 'col', class: mode.length > 1 ? 'virtual' : null }, mode)))),
    h('tbody', null, ...fitting.map(row))));
}

function showFilters() {
  const root = byId('filters');
  const machine = (/** @type {'plain' | 'silent'} */ name) => h('button', {
    type: 'button', 'aria-pressed': chosen.machine === name, dataset: { machine: name }, onclick: () => {
      chosen.machine = name;
      show();
    },
  }, i18n.t(`popek.machine.${name}`));
  const kind = h('select', { id: 'kind', onchange: () => { chosen.kind = kind.value; showTable(); } },
    ...['all', ...CLASSES].map((name) => h('option', { value: name, selected: chosen.kind === name }, i18n.t(`popek.class.${name}`))));
  const text = h('input', { id: 'text', type: 'search', value: chosen.text, autocomplete: 'off', spellcheck: 'false', oninput: () => { chosen.text = text.value; showTable(); } });
  root.replaceChildren(
    h('div.segments', { role: 'group', 'aria-label': i18n.t('popek.machine') }, machine('plain'), machine('silent')),
    h('label', { for: 'kind' }, i18n.t('popek.filter'), kind), h('label', { for: 'text' }, i18n.t('popek.search'), text),
    h('span.shown', { id: 'shown', role: 'status' }));
}

function show() {
  showVerdict();
  byId('filters').hidden = byId('instructions').hidden = found === null;
  byId('instructions').setAttribute('aria-label', i18n.t('popek.title'));
  if (!found) return;
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.machine : undefined;
  showFilters();
  if (focused) /** @type {HTMLElement | null} */ (document.querySelector(`[data-machine="${focused}"]`))?.focus();
  showTable();
}

async function load() {
  renderers.push(show);
  show();
  try {
    const answer = await fetch('/popek-goldberg.json');
    if (!answer.ok) throw new Error(answer.statusText);
    found = await answer.json();
  } catch {
    failed = true;
  }
  show();
}

void load();
