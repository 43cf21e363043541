/** The page's dialogs: the list of keys, the command palette, renaming, and the one question (a host with guests). */
import { h, icon } from '../dom.js';
import { ICONS } from '../icons.js';
import { fuzzy } from './fuzzy.js';
import { keyText } from './parts.js';

/** @typedef {import('../app.js').App} App */

/**
 * @param {App} app @param {string} title @param {...Node} content
 * @returns {HTMLDialogElement} shown; it leaves the page when it closes
 */
export function dialog(app, title, ...content) {
  const heading = h('h2', { id: `dialog-${Date.now()}` }, title);
  const element = h('dialog', { 'aria-labelledby': heading.id },
    h('header', null, heading,
      h('button.quiet.square', { type: 'button', 'aria-label': app.t('dialog.close'), onclick: () => element.close() }, icon(ICONS.close))),
    h('div.content', null, ...content));
  element.addEventListener('close', () => element.remove());
  element.addEventListener('click', (event) => { if (event.target === element) element.close(); });
  element.addEventListener('keydown', (event) => event.stopPropagation());
  document.body.append(element);
  element.showModal();
  return element;
}

/** Every key, from the action table, and those that are not actions. @param {App} app */
export function keysDialog(app) {
  const actions = /** @type {import('../actions.js').Actions} */ (app.actions);
  /** @param {string[]} keys @param {string} text */
  const row = (keys, text) => h('div.key-row', null,
    h('dt', null, keys.flatMap((key, index) => [index ? ' ' : null, h('kbd', null, key)])), h('dd', null, text));
  const canvas = /** @type {const} */ ([
    [['←', '→', '↑', '↓'], 'keys.arrows'], [[app.t('keys.space')], 'keys.grab'], [['Enter'], 'keys.enter'], [['Esc'], 'keys.escape'],
    [[app.t('keys.wheel')], 'keys.zoom'], [[app.t('keys.double-click')], 'keys.closer'],
  ]);
  const timeline = /** @type {const} */ ([
    [['W', 'S'], 'keys.timeline-zoom'], [['A', 'D'], 'keys.timeline-pan'], [[',', '.'], 'keys.timeline-trap'],
    [['F'], 'keys.timeline-focus'], [['M'], 'keys.timeline-mark'],
  ]);
  dialog(app, app.t('keys.title'), h('div.key-columns', null,
    h('section', null, h('h3', null, app.t('keys.everywhere')), h('dl', null, actions.all().filter((action) => action.keys).map(
      (action) => row((action.keys ?? []).map(keyText), actions.title(action.id)),
    ))),
    h('section', null, h('h3', null, app.t('keys.canvas')), h('dl', null, canvas.map(([keys, key]) => row([...keys], app.t(key)))),
      h('h3', null, app.t('keys.timeline')), h('dl', null, timeline.map(([keys, key]) => row([...keys], app.t(key)))))));
}

/** The command palette: every action that is possible now, found by any letters of its title in order. @param {App} app */
export function commandPalette(app) {
  const actions = /** @type {import('../actions.js').Actions} */ (app.actions);
  const before = document.activeElement;
  const list = h('ul.commands', { role: 'listbox', id: 'commands', 'aria-label': app.t('do.commands') });
  const input = h('input', {
    type: 'text', role: 'combobox', 'aria-expanded': true, 'aria-controls': 'commands', 'aria-autocomplete': 'list', autocomplete: 'off',
    'aria-label': app.t('commands.find'), placeholder: app.t('commands.find'),
  });
  /** @type {import('../actions.js').Action[]} */
  let found = [];
  let chosen = 0;
  const element = dialog(app, app.t('do.commands'), input, list);
  element.classList.add('command-dialog');
  const mark = () => {
    [...list.children].forEach((child, index) => child.setAttribute('aria-selected', String(index === chosen)));
    const option = list.children[chosen];
    input.setAttribute('aria-activedescendant', option?.id ?? '');
    option?.scrollIntoView({ block: 'nearest' });
  };
  /** @param {number} index */
  const run = (index) => {
    const action = found[index];
    if (!action) return;
    element.close();
    if (before instanceof HTMLElement) before.focus();
    actions.run(action.id);
  };
  const filter = () => {
    found = actions.all().filter((action) => actions.enabled(action.id) && action.id !== 'commands')
      .map((action) => ({ action, score: fuzzy(input.value, actions.title(action.id)) }))
      .filter(({ score }) => score > 0).sort((a, b) => b.score - a.score).map(({ action }) => action);
    chosen = 0;
    list.replaceChildren(...found.map((action, index) => h('li', {
      role: 'option', id: `command-${action.id}`, onclick: () => run(index), onpointermove: () => { if (chosen !== index) { chosen = index; mark(); } },
    }, h('span', null, actions.title(action.id)), (action.keys ?? []).slice(0, 1).map((key) => h('kbd', null, keyText(key))))));
    if (found.length === 0) list.append(h('li.empty', { role: 'option', 'aria-disabled': true }, app.t('commands.none')));
    mark();
  };
  input.addEventListener('input', filter);
  input.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      chosen = (chosen + (event.key === 'ArrowDown' ? 1 : -1) + found.length) % Math.max(1, found.length);
      mark();
    }
    if (event.key === 'Enter') run(chosen);
  });
  filter();
  input.focus();
}

/** @param {App} app @param {import('../app.js').Selection} selection */
export function renameDialog(app, selection) {
  const thing = selection.kind === 'host' ? app.store.host(selection.id) : app.store.guest(selection.id);
  if (!thing) return;
  const refusal = h('p.refusal', { role: 'alert' });
  const input = h('input', { type: 'text', maxlength: 40, value: thing.name, id: 'rename', autocomplete: 'off' });
  const form = h('form', {
    method: 'dialog',
    onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      const name = input.value.trim();
      const command = selection.kind === 'host'
        ? { type: 'host.update', host: selection.id, name }
        : { type: 'guest.rename', guest: selection.id, name };
      app.send(command).then(() => element.close(), (error) => {
        refusal.textContent = app.problemText(error);
        input.setAttribute('aria-invalid', 'true');
      });
    },
  }, h('label', { for: 'rename' }, app.t('rename.label')), input, refusal,
  h('div.buttons', null, h('button', { type: 'button', onclick: () => element.close() }, app.t('dialog.cancel')),
    h('button.primary', null, app.t('do.rename'))));
  const element = dialog(app, app.t('rename.title', { name: thing.name }), form);
  input.select();
  input.focus();
}

/**
 * Remove what is selected. A guest goes at once and can be brought back; a host with guests is asked about first.
 * @param {App} app @param {import('../app.js').Selection} selection
 */
export function remove(app, selection) {
  const thing = selection.kind === 'host' ? app.store.host(selection.id) : app.store.guest(selection.id);
  if (!thing) return;
  const go = async () => {
    const command = selection.kind === 'host' ? { type: 'host.remove', host: selection.id } : { type: 'guest.remove', guest: selection.id };
    if ((await app.attempt(command)) === undefined) return;
    const text = app.t('toast.removed', { name: thing.name });
    const undo = () => { // unless it is back, or something else was done since
      if (app.store.document?.undo === command.type && !(selection.kind === 'host' ? app.store.host(selection.id) : app.store.guest(selection.id))) app.actions?.run('undo');
    };
    app.toast({ text, action: { text: app.t('do.undo'), run: undo } });
    app.announce(text);
  };
  const guests = selection.kind === 'host' ? app.store.guestsOf(selection.id).length : 0;
  if (guests === 0) {
    void go();
    return;
  }
  const element = dialog(app, app.t('confirm.title', { name: thing.name }),
    h('p', null, app.t('confirm.guests', { n: guests })),
    h('div.buttons', null, h('button', { type: 'button', onclick: () => element.close() }, app.t('dialog.cancel')),
      h('button.primary', { type: 'button', onclick: () => { element.close(); void go(); } }, app.t('do.remove'))));
}

/** How gdb takes a guest over: the command to copy. @param {App} app @param {number} guest @param {string} address @param {number} port */
export function gdbDialog(app, guest, address, port) {
  const command = gdbCommand(address, port);
  const name = app.store.guest(guest)?.name ?? '';
  const copy = h('button.primary', { type: 'button', onclick: async () => {
    try {
      await navigator.clipboard.writeText(command);
      app.announce(app.t('gdb.copied'));
      element.close();
    } catch {
      app.toast({ text: app.t('gdb.copy-by-hand'), level: 'info' });
    }
  } }, app.t('gdb.copy'));
  const element = dialog(app, app.t('gdb.title', { name }),
    h('p', null, app.t('gdb.how', { name })), h('pre.command-line', { tabindex: '0' }, h('code', null, command)),
    h('p', null, app.t('gdb.where', { address })), h('div.buttons', null, copy));
  copy.focus();
}

/** @param {string} address @param {number} port */
export function gdbCommand(address, port) {
  const host = address.includes(':') ? `[${address}]` : address;
  return `gdb-multiarch -ex 'set architecture riscv:rv64' -ex 'target remote ${host}:${port}'`;
}
