/**
 * The dock: tabs and the panels behind them. A panel is mounted when its tab is first shown, and told to update at most
 * once a frame and only while it is shown. The open tab is remembered.
 */
import { byId, h, setAttribute, setText } from '../dom.js';

/**
 * @typedef {import('../app.js').App} App
 * @typedef {{definition: import('../app.js').PanelDefinition, tab: HTMLButtonElement, body: HTMLElement,
 *            panel: import('../app.js').Panel | null}} Entry
 */

export class Dock {
  /**
   * @param {App} app
   * @param {import('../render/scheduler.js').Scheduler} scheduler
   * @param {import('../app.js').PanelDefinition[]} definitions
   */
  constructor(app, scheduler, definitions) {
    this.app = app;
    this.root = byId('dock');
    this.dirty = false;
    this.tabs = h('div.tabs', { role: 'tablist' });
    this.bodies = h('div.bodies');
    this.root.replaceChildren(this.tabs, this.bodies);
    /** @type {Entry[]} */
    this.entries = definitions.map((definition) => {
      const tab = h('button.tab', {
        role: 'tab', id: `tab-${definition.id}`, 'aria-controls': `panel-${definition.id}`, tabindex: -1,
        onclick: () => this.show(definition.id),
      });
      const body = h('div.panel', { role: 'tabpanel', id: `panel-${definition.id}`, 'aria-labelledby': tab.id, tabindex: 0, hidden: true });
      this.tabs.append(tab);
      this.bodies.append(body);
      return { definition, tab, body, panel: null };
    });
    this.tabs.addEventListener('keydown', (event) => this.key(event));
    /** @type {Entry | null} */
    this.shown = null;
    scheduler.onDraw(() => {
      if (!this.dirty) return;
      this.dirty = false;
      this.shown?.panel?.update();
    });
    const touch = () => {
      this.dirty = true;
      scheduler.invalidate();
    };
    for (const event of /** @type {const} */ (['tick', 'quiet', 'document', 'keyframe'])) app.store.on(event, touch);
    for (const event of /** @type {const} */ (['guest', 'selection', 'theme', 'connection'])) app.on(event, touch);
    app.on('language', () => {
      this.words();
      for (const entry of this.entries) {
        entry.panel?.destroy();
        entry.panel = null;
        entry.body.replaceChildren();
      }
      if (this.shown) this.mount(this.shown);
    });
    this.words();
  }

  words() {
    setAttribute(this.tabs, 'aria-label', this.app.t('dock.label'));
    for (const { tab, definition } of this.entries) setText(tab, this.app.t(definition.titleKey));
  }

  /** Show the remembered tab, or the first. */
  start() {
    const remembered = this.app.preferences.get('dock.tab', this.entries[0]?.definition.id ?? '');
    this.show(this.entries.some((entry) => entry.definition.id === remembered) ? remembered : (this.entries[0]?.definition.id ?? ''));
  }

  /** @param {string} id */
  show(id) {
    const next = this.entries.find((entry) => entry.definition.id === id);
    if (!next || next === this.shown) return;
    this.shown?.panel?.hide?.();
    for (const entry of this.entries) {
      entry.body.hidden = entry !== next;
      setAttribute(entry.tab, 'aria-selected', String(entry === next));
      entry.tab.tabIndex = entry === next ? 0 : -1;
    }
    this.shown = next;
    this.app.preferences.set('dock.tab', id);
    if (next.panel) {
      next.panel.show?.();
      next.panel.update();
    } else this.mount(next);
  }

  /** @param {Entry} entry */
  mount(entry) {
    entry.panel = entry.definition.mount(entry.body, this.app);
    entry.panel.show?.();
    entry.panel.update();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const index = this.entries.findIndex((entry) => entry === this.shown);
    const count = this.entries.length;
    const next = { ArrowRight: index + 1, ArrowLeft: index - 1 + count, Home: 0, End: count - 1 }[event.key];
    if (next === undefined || count === 0) return;
    event.preventDefault();
    const entry = this.entries[next % count];
    this.show(entry.definition.id);
    entry.tab.focus();
  }
}
