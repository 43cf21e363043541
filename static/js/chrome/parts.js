/** Pieces that several parts of the frame show: action buttons, marks, folding sections. */
import { h, icon, setAttribute, setText } from '../dom.js';
import { ICONS } from '../icons.js';
import { DISPOSITION_MARKS, STATE_MARKS } from '../marks.js';

/** @typedef {import('../app.js').App} App */

/**
 * A button of an action: its words, key, state and effect come from the action's row.
 * @param {App} app @param {string} id
 * @param {{icon?: keyof typeof ICONS, text?: boolean, showKey?: boolean, className?: string}} [options]
 * @returns {HTMLButtonElement & {refresh: () => void}}
 */
export function actionButton(app, id, options = {}) {
  const actions = /** @type {import('../actions.js').Actions} */ (app.actions);
  const action = actions.get(id);
  const title = actions.title(id);
  const key = action.keys?.[0];
  const label = options.text === false ? null : h('span', null, title);
  const button = h('button', {
    type: 'button', class: options.className ?? null, title: action.hintKey ? app.t(action.hintKey) : title,
    'aria-label': options.text === false ? title : null, 'aria-keyshortcuts': key ? ariaKey(key) : null, dataset: { action: id },
    onclick: () => actions.run(id),
  }, options.icon ? icon(ICONS[options.icon]) : null, label, key && options.showKey ? h('kbd', { 'aria-hidden': true }, keyText(key)) : null);
  return Object.assign(button, {
    refresh() {
      setAttribute(button, 'aria-disabled', actions.enabled(id) ? null : 'true');
      setAttribute(button, 'aria-busy', app.busy === id ? 'true' : null);
      if (action.pressed) setAttribute(button, 'aria-pressed', String(action.pressed(app)));
    },
  });
}

/** A key as people read it. @param {string} key as in the action table */
export function keyText(key) {
  return key.split('+').map((part) => ({
    ctrl: 'Ctrl', shift: 'Shift', alt: 'Alt', delete: 'Del',
  })[part] ?? part.toUpperCase()).join('+') || '+';
}

/** @param {string} key */
function ariaKey(key) {
  return key.split('+').map((part) => ({ ctrl: 'Control', shift: 'Shift', delete: 'Delete', '': 'Plus' })[part] ?? part.toUpperCase()).join('+');
}

/** @param {string} name of a disposition */
export function dispositionMark(name) {
  const mark = icon(DISPOSITION_MARKS[name], 'icon mark');
  mark.style.setProperty('color', `var(--disposition-${name})`);
  return mark;
}

/** A state's mark and word, changed in place. @param {App} app */
export function stateBadge(app) {
  const mark = icon(STATE_MARKS.off, 'icon mark');
  const word = h('span');
  const element = h('span.state', null, mark, word);
  return {
    element,
    /** @param {string} state */
    set(state) {
      setAttribute(/** @type {Element} */ (mark.firstElementChild), 'd', STATE_MARKS[state]);
      mark.style.setProperty('color', `var(--state-${state})`);
      setText(word, app.t(`state.${state}`));
    },
  };
}

/**
 * A section that folds and remembers it.
 * @param {App} app @param {string} id @param {string} title @param {...(Node | string)} children
 */
export function section(app, id, title, ...children) {
  const body = h('div.section-body', { id: `section-${id}` }, ...children);
  const open = app.preferences.get(`fold.${id}`, true);
  body.hidden = !open;
  const toggle = h('button.section-title', {
    type: 'button', 'aria-expanded': open, 'aria-controls': body.id,
    onclick: () => {
      body.hidden = !body.hidden;
      toggle.setAttribute('aria-expanded', String(!body.hidden));
      app.preferences.set(`fold.${id}`, !body.hidden);
    },
  }, h('span', null, title), icon(ICONS.fold));
  return h('section.section', null, h('h2', null, toggle), body);
}

/**
 * What the parts of a bar mean; an entry does not break across lines.
 * @param {...{colour: string, words: string, hatched?: boolean}} entries colour: a disposition's
 */
export function barLegend(...entries) {
  return h('p.share-legend', null, entries.map(({ colour, words, hatched }) => h('span', null,
    h(hatched ? 'i.waited' : 'i', { style: { 'background-color': `var(--disposition-${colour})` } }), words)));
}

/** A term and its figure. @param {string} term */
export function figure(term) {
  const value = h('dd');
  return { element: h('div.figure', null, h('dt', null, term), value), value };
}
