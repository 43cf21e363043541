/**
 * The one object that the page's parts share: state, commands, words, selection. Chrome, tools and panels get it and
 * nothing else; none of them imports another.
 *
 * Invariant: the server is authoritative. `send` asks; what is shown changes when the server's document, tick or
 * keyframe says so.
 */
import { Emitter } from './events.js';

/**
 * @typedef {import('./protocol.js').Command} Command
 * @typedef {import('./protocol.js').Query} Query
 * @typedef {import('./protocol.js').Problem} Problem
 * @typedef {import('./i18n.js').Params} Params
 * @typedef {import('./i18n.js').Language} Language
 * @typedef {import('./records.js').TrapRecord} TrapRecord
 * @typedef {{kind: 'host' | 'guest', id: number}} Selection
 * @typedef {'connecting' | 'live' | 'reconnecting' | 'refused'} Connection
 * @typedef {'dark' | 'light'} Theme  what is shown, after "system" has been resolved
 * @typedef {{text: string, level?: 'info' | 'warning' | 'error', action?: {text: string, run: () => void}}} Toast
 *
 * What a panel of the dock is. `mount` is called when its tab is first shown; `update` at most once a frame, only while
 * the tab is shown and something changed; `hide` and `show` when its tab is left and entered again.
 * @typedef {{show?: () => void, hide?: () => void, update: () => void, destroy: () => void}} Panel
 * @typedef {{id: string, titleKey: string, mount: (root: HTMLElement, app: App) => Panel}} PanelDefinition
 *
 * Events: `selection` (the selection changed), `guest` (the guest that the dock is about changed), `connection`,
 * `presence`, `language`, `theme`, `busy`, `fetch` (how far the server is with fetching an operating system),
 * `comparison` (how far one of the lab's comparisons is). Events of the lab itself are `app.store.on(...)`.
 * @typedef {{selection: Selection | null, guest: number | null, connection: Connection, presence: number,
 *            language: Language, theme: Theme, busy: string | null, fetch: import('./protocol.js').Fetch,
 *            comparison: import('./protocol.js').Comparing}} AppEvents
 */

/** A refusal by the server, for the person who caused it. */
export class ProblemError extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(problem.message);
    this.name = 'ProblemError';
    this.key = problem.key;
    this.params = problem.params ?? {};
  }
}

/**
 * What `App` needs from the outside.
 * @typedef {object} Surroundings
 * @property {string} lab the lab's identifier
 * @property {string} csrf token for the HTTP routes that change something
 * @property {import('./store.js').Store} store
 * @property {import('./i18n.js').I18n} i18n
 * @property {import('./preferences.js').Preferences} preferences
 * @property {(event: 'command' | 'query', payload: object) => Promise<any>} request rejects with ProblemError
 * @property {(toast: Toast) => void} toast
 * @property {(text: string) => void} announce says it once to screen readers
 */

/**
 * What actions and panels may ask of the page's parts.
 * @typedef {object} Parts
 * @property {(panel: string) => void} openPanel
 * @property {(options?: {source?: string, name?: string}) => void} openEditor
 * @property {(factor: number) => void} zoom
 * @property {() => void} fit
 * @property {(level: 'datacenter' | 'host' | 'stack') => void} showLevel
 * @property {() => void} openKeys
 * @property {() => void} openCommands
 * @property {() => void} upload
 * @property {(x: number, y: number) => number | null} hostAt  the host under a client pixel
 * @property {() => void} openSystems
 * @property {(asked?: import('./compare/model.js').Asked | null, atOnce?: boolean) => void} openCompare  what is asked for is carried out at once, or only chosen
 * @property {(guest: number, address: string, port: number) => void} showGdb  how to connect
 * @property {(image: string) => void} showDifference  of a kernel that is a changed form of another
 * @property {() => void} renameLab
 * @property {(selection: Selection) => void} rename
 * @property {(selection: Selection) => void} remove
 * @property {(guest: number) => void} move
 * @property {(host: number, wanted: import('./chrome/restack.js').Wanted) => Promise<boolean>} restack  asks if it has guests
 * @property {(part: 'palette' | 'inspector' | 'dock' | 'objects') => void} toggle
 * @property {(language: Language) => void} setLanguage
 * @property {(theme: 'dark' | 'light' | 'system') => void} setTheme
 * @property {() => 'dark' | 'light' | 'system'} themeChoice
 * @property {(name: string) => string} colour  a CSS custom property of the theme, resolved: `colour('--ink')`
 */

/** @extends {Emitter<AppEvents>} */
export class App extends Emitter {
  /** @param {Surroundings} surroundings */
  constructor(surroundings) {
    super();
    this.lab = surroundings.lab;
    this.csrf = surroundings.csrf;
    this.store = surroundings.store;
    this.i18n = surroundings.i18n;
    this.preferences = surroundings.preferences;
    this.request = surroundings.request;
    this.toast = surroundings.toast;
    this.announce = surroundings.announce;
    /** @type {Selection | null} */
    this.selection = null;
    /** @type {number | null} the guest the dock is about: the selected one, else the last selected, else the first */
    this.guest = null;
    /** @type {Connection} */
    this.connection = 'connecting';
    this.clients = 0;
    /** @type {Problem | null} why the lab cannot be joined */
    this.refusal = null;
    /** @type {Theme} */
    this.theme = 'dark';
    /** @type {string | null} the action that is being carried out and takes long */
    this.busy = null;
    /** How far it is, 0..1. */
    this.progress = 0;
    /** Was it cancelled? */
    this.cancelled = false;
    /** What waits for it. @type {[action: string, command: Command][]} */
    this.waiting = [];
    /** @type {import('./actions.js').Actions | null} */
    this.actions = null;
    /** @type {Parts | null} */
    this.parts = null;
    this.store.on('document', () => this.keepSelection());
  }

  /** What the other parts of the page can be asked to do. Throws before main.js has put them together. */
  get page() {
    if (!this.parts) throw new Error('the page is not put together yet');
    return this.parts;
  }

  /** Opens a panel of the dock. @param {string} panel */
  openPanel(panel) {
    this.page.openPanel(panel);
  }

  /** Show everything, a host among it whose document may not have come yet. @param {number} host */
  async fitWith(host) {
    if (!this.store.host(host)) {
      await new Promise((resolve) => {
        const stop = this.store.on('document', () => {
          if (!this.store.host(host)) return;
          stop();
          resolve(undefined);
        });
      });
    }
    this.page.fit();
  }

  /** Opens the assembly editor. @param {{source?: string, name?: string}} [options] */
  openEditor(options) {
    this.page.openEditor(options);
  }

  /** @param {string} key @param {Params} [params] */
  t(key, params) {
    return this.i18n.t(key, params);
  }

  /** @param {number | bigint} value */
  n(value) {
    return this.i18n.n(value);
  }

  /**
   * Ask the lab to change. @param {Command} command
   * @returns {Promise<any>} the command's result; rejects with ProblemError
   */
  async send(command) {
    return (await this.request('command', { command })).result;
  }

  /** Ask the lab to look. @param {Query} query @returns {Promise<any>} rejects with ProblemError */
  async query(query) {
    return (await this.request('query', { query })).result;
  }

  /**
   * Send a command and show a refusal as a toast. @param {Command} command
   * @returns {Promise<any>} the result, or undefined when it was refused
   */
  async attempt(command) {
    try {
      return await this.send(command);
    } catch (error) {
      this.complain(error);
      return undefined;
    }
  }

  /**
   * What a number field holds; when it is no whole number of this range the reader is told so.
   * @param {string} text @param {number} low @param {number} high @returns {number | null}
   */
  wholeNumber(text, low, high) {
    const value = Number(text);
    if (text.trim() !== '' && Number.isInteger(value) && value >= low && value <= high) return value;
    this.toast({ text: this.t('control.out-of-range', { low, high }), level: 'warning' });
    return null;
  }

  /** Show why something was refused. @param {unknown} error */
  complain(error) {
    this.toast({ text: this.problemText(error), level: 'error' });
  }

  /** The sentence for a refusal, in the reader's language; an assembler's error is told by its first diagnostic. @param {unknown} error */
  problemText(error) {
    if (error && typeof error === 'object' && 'key' in error) {
      const problem = /** @type {{key: string, message?: string, params?: Params}} */ (error);
      const key = `error.${problem.params?.diagnostic ?? problem.key}`;
      if (this.i18n.has(key)) return this.t(key, problem.params ?? {});
      if (problem.message) return problem.message;
    }
    return this.t('error.unexpected');
  }

  /** @param {Selection | null} selection */
  select(selection) {
    const before = this.selection;
    if (before?.kind === selection?.kind && before?.id === selection?.id) return;
    this.selection = selection;
    this.emit('selection', selection);
    if (selection?.kind === 'guest') this.setGuest(selection.id);
  }

  /** @param {number | null} guest */
  setGuest(guest) {
    if (guest === this.guest) return;
    this.guest = guest;
    this.emit('guest', guest);
  }

  /** After a change of the document: forget what is gone. */
  keepSelection() {
    const { selection, store } = this;
    if (selection && !(selection.kind === 'host' ? store.host(selection.id) : store.guest(selection.id))) this.select(null);
    if (this.guest === null || !store.guest(this.guest)) this.setGuest(store.document?.guests[0]?.id ?? null);
  }

  /** @param {Connection} connection */
  setConnection(connection) {
    if (connection === this.connection) return;
    this.connection = connection;
    this.emit('connection', connection);
  }

  /** @param {string | null} action */
  setBusy(action) {
    if (action === this.busy) return;
    this.busy = action;
    this.progress = 0;
    this.cancelled = false;
    this.emit('busy', action);
  }
}
