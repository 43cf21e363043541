/**
 * Everything a reader can do, once: the buttons of the top bar, the keyboard and the command palette all come from here.
 * To add an action, add a row. Ids are unique (checked when the table is built).
 */
import { cancellable } from './migrations.js';

/**
 * @typedef {import('./app.js').App} App
 * @typedef {object} Action
 * @property {string} id
 * @property {string} titleKey
 * @property {import('./app.js').Params} [params] of the title
 * @property {string} [hintKey] one sentence: what it does, shown as the button's tooltip
 * @property {string[]} [keys] as "r", "shift+s", "ctrl+z"
 * @property {(app: App) => boolean} [enabled]
 * @property {(app: App) => boolean} [pressed] for one that is on or off
 * @property {(app: App) => void | Promise<void>} run
 */

export const SPEEDS = /** @type {const} */ (['1', '2', '5', '10', '25', 'real', 'max']);

/** @param {App} app */
const live = (app) => app.connection === 'live' && app.store.document !== null;
/** @param {App} app */
const selectedGuest = (app) => (app.selection?.kind === 'guest' ? app.selection.id : null);
/** The selected guest's image if it is a changed form of another. @param {App} app */
const changedImage = (app) => {
  const id = selectedGuest(app);
  const image = app.store.image(id === null ? '' : app.store.guest(id)?.image ?? '');
  return image?.original ? image.id : null;
};
/** @param {App} app @returns {number} the state of the selected guest, -1 without one */
const guestState = (app) => {
  const id = selectedGuest(app);
  return id === null ? -1 : (app.store.guests.get(id)?.state ?? 0);
};

/** So many commands wait for one that takes long. */
const MOST_WAITING = 20;

/**
 * A command that may take long: one at a time, and its button says so. What is asked for meanwhile comes after it, unless it is
 * cancelled (the action "run"), refused, or nothing more happens.
 * @param {App} app @param {string} id @param {import('./protocol.js').Command} command
 */
async function longWork(app, id, command) {
  if (app.waiting.length < MOST_WAITING) app.waiting.push([id, command]);
  if (app.busy) return;
  for (let next = app.waiting.shift(); next; next = app.waiting.shift()) {
    app.setBusy(next[0]);
    const result = await app.attempt(next[1]);
    const isOver = result?.reached === false;
    if (isOver && !app.cancelled) app.toast({ text: app.t('toast.nothing-more'), level: 'info' });
    if (isOver || app.cancelled || result === undefined) app.waiting.length = 0;
  }
  app.setBusy(null);
}

/** Steps concern the selected guest, or any when none is selected. @param {App} app */
const ofSelection = (app) => ({ guest: selectedGuest(app) });

/** @param {App} app @param {'on' | 'off' | 'reset'} action */
async function power(app, action) {
  const guest = selectedGuest(app);
  if (guest === null) return;
  const name = app.store.guest(guest)?.name ?? '';
  if ((await app.attempt({ type: 'guest.power', guest, action })) !== undefined) {
    app.announce(app.t(`announce.power-${action}`, { name }));
  }
}

/** @type {Action[]} */
const TABLE = [
  {
    id: 'run', titleKey: 'do.run', hintKey: 'do.run.hint', keys: ['r'], enabled: live,
    pressed: (app) => app.store.running,
    run: async (app) => {
      const pause = app.store.running || app.busy !== null;
      app.cancelled = app.busy !== null;
      if ((await app.attempt({ type: pause ? 'lab.pause' : 'lab.run' })) !== undefined) {
        app.announce(app.t(pause ? 'announce.paused' : 'announce.running'));
      }
    },
  },
  {
    id: 'step', titleKey: 'do.step', hintKey: 'do.step.hint', keys: ['s'], enabled: live,
    run: (app) => longWork(app, 'step', { type: 'lab.step', unit: 'trap', ...ofSelection(app) }),
  },
  {
    id: 'step-instruction', titleKey: 'do.step-instruction', keys: ['shift+s'], enabled: live,
    run: (app) => longWork(app, 'step-instruction', { type: 'lab.step', unit: 'instruction', ...ofSelection(app) }),
  },
  {
    id: 'back', titleKey: 'do.back', hintKey: 'do.back.hint', keys: ['b'], enabled: live,
    run: (app) => longWork(app, 'back', { type: 'lab.step_back', unit: 'trap', ...ofSelection(app) }),
  },
  {
    id: 'back-instruction', titleKey: 'do.back-instruction', keys: ['shift+b'], enabled: live,
    run: (app) => longWork(app, 'back-instruction', { type: 'lab.step_back', unit: 'instruction', ...ofSelection(app) }),
  },
  {
    id: 'reset', titleKey: 'do.reset', hintKey: 'do.reset.hint', keys: ['x'], enabled: live,
    run: async (app) => {
      if ((await app.attempt({ type: 'lab.reset' })) !== undefined) app.announce(app.t('announce.reset'));
    },
  },
  ...SPEEDS.map((speed) => /** @type {Action} */ ({
    id: `speed-${speed}`, titleKey: Number(speed) ? 'do.speed' : `do.speed-${speed}`, params: { speed },
    enabled: live, pressed: (app) => app.store.document?.speed === speed,
    run: async (app) => {
      await app.attempt({ type: 'lab.speed', speed, unit: app.store.document?.unit ?? 'trap' });
    },
  })),
  ...(/** @type {const} */ (['trap', 'instruction'])).map((unit) => /** @type {Action} */ ({
    id: `unit-${unit}`, titleKey: `do.unit-${unit}`, enabled: live,
    pressed: (app) => app.store.document?.unit === unit,
    run: async (app) => {
      await app.attempt({ type: 'lab.speed', speed: app.store.document?.speed ?? '10', unit });
    },
  })),
  {
    id: 'undo', titleKey: 'do.undo', keys: ['ctrl+z'], enabled: (app) => live(app) && Boolean(app.store.document?.undo),
    run: async (app) => {
      const what = app.store.document?.undo;
      if ((await app.attempt({ type: 'lab.undo' })) !== undefined) app.announce(app.t('announce.undone', { what: app.t(`command.${what}`) }));
    },
  },
  {
    id: 'redo', titleKey: 'do.redo', keys: ['ctrl+shift+z', 'ctrl+y'],
    enabled: (app) => live(app) && Boolean(app.store.document?.redo),
    run: async (app) => {
      const what = app.store.document?.redo;
      if ((await app.attempt({ type: 'lab.redo' })) !== undefined) app.announce(app.t('announce.redone', { what: app.t(`command.${what}`) }));
    },
  },
  {
    id: 'share', titleKey: 'do.share', hintKey: 'do.share.hint',
    run: async (app) => {
      const address = new URL(`/labs/${app.lab}`, location.href).href;
      try {
        await navigator.clipboard.writeText(address);
        app.toast({ text: app.t('toast.link-copied') });
      } catch {
        app.toast({ text: app.t('toast.link', { address }) });
      }
    },
  },
  { id: 'rename-lab', titleKey: 'do.rename-lab', enabled: live, run: (app) => app.page.renameLab() },
  { id: 'labs', titleKey: 'do.labs', run: () => location.assign('/labs') },
  { id: 'popek-goldberg', titleKey: 'do.popek-goldberg', hintKey: 'do.popek-goldberg.hint', run: () => void window.open('/popek-goldberg', '_blank', 'noopener') },
  {
    id: 'host-create', titleKey: 'do.host-create', enabled: live,
    run: async (app) => {
      const right = Math.max(0, ...(app.store.document?.hosts.map((host) => host.x + 520) ?? []));
      const result = await app.attempt({ type: 'host.create', x: right, y: 0 });
      if (result) {
        app.select({ kind: 'host', id: result.host });
        await app.fitWith(result.host);
      }
    },
  },
  { id: 'upload', titleKey: 'do.upload', enabled: live, run: (app) => app.page.upload() },
  { id: 'system', titleKey: 'do.system', enabled: live, run: (app) => app.page.openSystems() },
  { id: 'compare', titleKey: 'do.compare', hintKey: 'do.compare.hint', keys: ['c'], enabled: live, run: (app) => app.page.openCompare() },
  { id: 'assemble', titleKey: 'do.assemble', enabled: live, run: (app) => app.openEditor() },
  {
    id: 'power-on', titleKey: 'do.power-on', enabled: (app) => live(app) && [0, 3, 4].includes(guestState(app)),
    run: (app) => power(app, 'on'),
  },
  {
    id: 'power-off', titleKey: 'do.power-off', enabled: (app) => live(app) && [1, 2].includes(guestState(app)),
    run: (app) => power(app, 'off'),
  },
  {
    id: 'power-reset', titleKey: 'do.power-reset', enabled: (app) => live(app) && guestState(app) >= 0,
    run: (app) => power(app, 'reset'),
  },
  {
    id: 'rename', titleKey: 'do.rename', keys: ['f2'], enabled: (app) => live(app) && app.selection !== null,
    run: (app) => { if (app.selection) app.page.rename(app.selection); },
  },
  {
    id: 'move', titleKey: 'do.move', hintKey: 'do.move.hint', enabled: (app) => live(app) && selectedGuest(app) !== null,
    run: (app) => {
      const guest = selectedGuest(app);
      if (guest !== null) app.page.move(guest);
    },
  },
  {
    id: 'migrate-cancel', titleKey: 'do.migrate-cancel', hintKey: 'do.migrate-cancel.hint',
    enabled: (app) => live(app) && cancellable(app.store.migrations.get(selectedGuest(app) ?? 0)),
    run: async (app) => {
      const guest = selectedGuest(app);
      if (guest !== null) await app.attempt({ type: 'guest.migrate.cancel', guest });
    },
  },
  {
    id: 'clone', titleKey: 'do.clone', hintKey: 'do.clone.hint', keys: ['ctrl+d'], enabled: (app) => live(app) && selectedGuest(app) !== null,
    run: async (app) => {
      const guest = selectedGuest(app);
      if (guest === null) return;
      const original = app.store.guest(guest)?.name ?? '';
      const result = await app.attempt({ type: 'guest.clone', guest });
      if (!result) return;
      app.select({ kind: 'guest', id: result.guest });
      app.announce(app.t('announce.guest-cloned', { name: original }));
    },
  },
  {
    id: 'snapshot', titleKey: 'do.snapshot', hintKey: 'do.snapshot.hint', enabled: (app) => live(app) && selectedGuest(app) !== null,
    run: async (app) => {
      const guest = selectedGuest(app);
      if (guest === null) return;
      const result = await app.attempt({ type: 'snapshot.take', guest });
      if (result) app.toast({ text: app.t('toast.snapshot', { name: app.store.guest(guest)?.name ?? '' }) });
    },
  },
  {
    id: 'difference', titleKey: 'do.difference', hintKey: 'do.difference.hint', enabled: (app) => changedImage(app) !== null,
    run: (app) => {
      const image = changedImage(app);
      if (image !== null) app.page.showDifference(image);
    },
  },
  {
    id: 'gdb', titleKey: 'do.gdb', hintKey: 'do.gdb.hint', enabled: (app) => live(app) && selectedGuest(app) !== null,
    run: async (app) => {
      const guest = selectedGuest(app);
      if (guest === null) return;
      try {
        const { address, port } = await app.query({ type: 'gdb', guest });
        app.page.showGdb(guest, address, port);
      } catch (error) {
        app.toast({ text: app.problemText(error), level: 'error' });
      }
    },
  },
  {
    id: 'gdb-close', titleKey: 'do.gdb-close',
    enabled: (app) => live(app) && app.store.gdb !== null && app.store.gdb.guest === selectedGuest(app),
    run: async (app) => {
      const guest = selectedGuest(app);
      if (guest === null) return;
      await app.query({ type: 'gdb', guest, open: false });
      app.announce(app.t('announce.gdb-closed'));
    },
  },
  {
    id: 'remove', titleKey: 'do.remove', keys: ['delete'], enabled: (app) => live(app) && app.selection !== null,
    run: (app) => { if (app.selection) app.page.remove(app.selection); },
  },
  { id: 'zoom-in', titleKey: 'do.zoom-in', keys: ['+', '='], run: (app) => app.page.zoom(1.25) },
  { id: 'zoom-out', titleKey: 'do.zoom-out', keys: ['-'], run: (app) => app.page.zoom(0.8) },
  { id: 'fit', titleKey: 'do.fit', keys: ['0'], run: (app) => app.page.fit() },
  ...(/** @type {const} */ (['datacenter', 'host', 'stack'])).map((level) => /** @type {Action} */ ({
    id: `level-${level}`, titleKey: `do.level-${level}`, run: (app) => app.page.showLevel(level),
  })),
  ...(/** @type {const} */ (['palette', 'inspector', 'dock', 'objects'])).map((part) => /** @type {Action} */ ({
    id: `toggle-${part}`, titleKey: `do.toggle-${part}`, keys: part === 'objects' ? ['o'] : undefined,
    run: (app) => app.page.toggle(part),
  })),
  ...(/** @type {const} */ (['en', 'ko'])).map((language) => /** @type {Action} */ ({
    id: `language-${language}`, titleKey: `do.language-${language}`,
    pressed: (app) => app.i18n.language === language, run: (app) => app.page.setLanguage(language),
  })),
  ...(/** @type {const} */ (['system', 'dark', 'light'])).map((theme) => /** @type {Action} */ ({
    id: `theme-${theme}`, titleKey: `do.theme-${theme}`,
    pressed: (app) => app.page.themeChoice() === theme, run: (app) => app.page.setTheme(theme),
  })),
  { id: 'keys', titleKey: 'do.keys', keys: ['?'], run: (app) => app.page.openKeys() },
  { id: 'commands', titleKey: 'do.commands', keys: ['ctrl+k'], run: (app) => app.page.openCommands() },
];

export class Actions {
  /** @param {App} app @param {Action[]} [more] rows that depend on what the page holds (the dock's panels) */
  constructor(app, more = []) {
    this.app = app;
    /** @type {Map<string, Action>} */
    this.byId = new Map();
    for (const action of [...TABLE, ...more]) {
      if (this.byId.has(action.id)) throw new Error(`two actions are called ${action.id}`);
      this.byId.set(action.id, action);
    }
  }

  /** @param {string} id @returns {Action} */
  get(id) {
    const action = this.byId.get(id);
    if (!action) throw new Error(`no action is called ${id}`);
    return action;
  }

  all() {
    return [...this.byId.values()];
  }

  /** @param {string} id */
  enabled(id) {
    return this.get(id).enabled?.(this.app) ?? true;
  }

  /** @param {string} id */
  title(id) {
    const action = this.get(id);
    return this.app.t(action.titleKey, action.params);
  }

  /** @param {string} id does nothing when the action is not possible now */
  run(id) {
    if (this.enabled(id)) void this.get(id).run(this.app);
  }

  /**
   * Run the action of a key, if there is one. A key that is held does not pile up work.
   * @param {Pick<KeyboardEvent, 'key' | 'code' | 'ctrlKey' | 'metaKey' | 'altKey' | 'shiftKey' | 'repeat'>} event
   * @returns {boolean} whether the key belongs to an action
   */
  key(event) {
    const name = keyName(event);
    for (const action of this.byId.values()) {
      if (action.keys?.includes(name)) {
        if (!event.repeat || this.app.busy === null) this.run(action.id);
        return true;
      }
    }
    return false;
  }
}

/**
 * A key as the table writes it. Letters are told by their place on the keyboard where the layout gives none (a Korean
 * input method), so that R is R in both languages.
 * @param {Pick<KeyboardEvent, 'key' | 'code' | 'ctrlKey' | 'metaKey' | 'altKey' | 'shiftKey'>} event
 */
export function keyName(event) {
  const letter = /^Key([A-Z])$/.exec(event.code)?.[1];
  const key = letter && !/^[a-z]$/i.test(event.key) ? letter.toLowerCase() : event.key.toLowerCase();
  const printed = key.length === 1 && !/[a-z]/.test(key);
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push('ctrl');
  if (event.altKey) parts.push('alt');
  if (event.shiftKey && !printed) parts.push('shift');
  return [...parts, key].join('+');
}
