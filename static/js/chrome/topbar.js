/** The top bar: who and where, time (run, step, back, speed), history, sharing, language and theme. All from the action table. */
import { SPEEDS } from '../actions.js';
import { byId, h, icon, setAttribute, setText } from '../dom.js';
import { ICONS } from '../icons.js';
import { actionButton } from './parts.js';

/** @typedef {import('../app.js').App} App */

export class TopBar {
  /** @param {App} app @param {import('../render/scheduler.js').Scheduler} scheduler */
  constructor(app, scheduler) {
    this.app = app;
    this.root = byId('topbar');
    this.dirty = true;
    /** @type {{refresh: () => void}[]} */
    this.buttons = [];
    this.build();
    const touch = () => {
      this.dirty = true;
      scheduler.invalidate();
    };
    app.on('language', () => {
      this.build();
      touch();
    });
    for (const event of /** @type {const} */ (['connection', 'presence', 'selection', 'theme', 'busy'])) app.on(event, touch);
    for (const event of /** @type {const} */ (['document', 'keyframe', 'tick'])) app.store.on(event, touch);
    scheduler.onDraw(() => {
      if (this.dirty) this.refresh();
      this.dirty = false;
    });
  }

  /** @param {string} id @param {Parameters<typeof actionButton>[2]} [options] */
  button(id, options) {
    const button = actionButton(this.app, id, options);
    this.buttons.push(button);
    return button;
  }

  build() {
    const { app } = this;
    this.buttons = [];
    this.name = h('button.lab-name.quiet', {
      type: 'button', title: app.t('do.rename-lab'), onclick: () => this.rename(),
    });
    this.connection = h('span.connection', { role: 'status' }, h('span.dot'), h('span'));
    this.clients = h('span.clients');
    this.runLabel = h('span');
    this.runIcon = icon(ICONS.pause);
    this.run = h('button.run', {
      type: 'button', 'aria-keyshortcuts': 'R', dataset: { action: 'run' }, onclick: () => app.actions?.run('run'),
    }, this.runIcon, this.runLabel, h('kbd', { 'aria-hidden': true }, 'R'));
    const speeds = h('div.segments', { role: 'group', 'aria-label': app.t('topbar.speed') },
      SPEEDS.map((speed) => this.speed(speed)));
    const units = h('div.segments', { role: 'group', 'aria-label': app.t('topbar.unit') },
      this.button('unit-trap'), this.button('unit-instruction'));
    const languages = h('div.segments', { role: 'group', 'aria-label': app.t('topbar.language') },
      (/** @type {const} */ (['en', 'ko'])).map((language) => {
        const button = this.button(`language-${language}`);
        setText(/** @type {Element} */ (button.querySelector('span')), language === 'en' ? 'EN' : '한국어');
        button.setAttribute('lang', language);
        return button;
      }));
    const themes = h('div.segments.themes', { role: 'group', 'aria-label': app.t('topbar.theme') },
      this.button('theme-system', { icon: 'system', text: false }), this.button('theme-dark', { icon: 'moon', text: false }),
      this.button('theme-light', { icon: 'sun', text: false }));
    this.root.replaceChildren(
      h('div.bar-group.identity', null,
        h('a.brand', { href: '/labs', title: app.t('do.labs') }, 'ring', h('b', null, 'side')), h('h1', null, this.name), this.connection, this.clients),
      h('div.bar-group.time', { role: 'group', 'aria-label': app.t('topbar.time') },
        this.button('back', { icon: 'back', showKey: true }), this.run, this.button('step', { icon: 'step', showKey: true }),
        speeds, units, this.button('reset', { icon: 'reset', text: false })),
      h('div.bar-group.more', null,
        this.button('compare', { icon: 'compare', text: false }),
        this.button('undo', { icon: 'undo', text: false }), this.button('redo', { icon: 'redo', text: false }),
        this.button('commands', { icon: 'search', text: false }), this.button('keys', { icon: 'help', text: false }),
        this.button('share', { icon: 'share', text: false }), languages, themes),
    );
    this.refresh();
  }

  /** @param {string} speed */
  speed(speed) {
    const button = this.button(`speed-${speed}`);
    const words = /** @type {Element} */ (button.querySelector('span'));
    setAttribute(button, 'aria-label', words.textContent);
    setText(words, Number(speed) ? speed : this.app.t(`topbar.speed-${speed}`));
    return button;
  }

  refresh() {
    const { app } = this;
    if (!this.name || !this.run || !this.runLabel || !this.runIcon || !this.connection || !this.clients) return;
    for (const button of this.buttons) button.refresh();
    const { running } = app.store;
    const busy = app.busy !== null;
    setText(this.name, app.store.document?.name ?? '…');
    document.title = app.store.document ? `${app.store.document.name} · Ringside` : 'Ringside';
    setText(this.runLabel, busy ? app.t('topbar.working', { percent: Math.round(app.progress * 100) }) : app.t(running ? 'topbar.pause' : 'topbar.run'));
    setAttribute(this.run, 'title', app.t('do.run.hint'));
    setAttribute(this.run, 'aria-disabled', app.actions?.enabled('run') ? null : 'true');
    setAttribute(this.run, 'aria-busy', busy ? 'true' : null);
    this.run.classList.toggle('primary', app.connection === 'live');
    setAttribute(/** @type {Element} */ (this.runIcon.firstElementChild), 'd', running ? ICONS.pause : ICONS.run);
    setAttribute(this.connection, 'data-state', app.connection);
    setText(/** @type {Node} */ (this.connection.lastChild), app.connection === 'live' ? '' : app.t(`connection.${app.connection}`));
    setAttribute(this.connection, 'title', app.t(`connection.${app.connection}`));
    const here = app.clients > 1 ? app.t('topbar.clients', { n: app.clients }) : '';
    setText(this.clients, here);
    setAttribute(this.clients, 'title', here || null);
    setAttribute(this.clients, 'data-n', String(app.clients)); // what a narrow bar has room for
    for (const [id, key] of /** @type {const} */ ([['undo', 'undo'], ['redo', 'redo']])) {
      const what = app.store.document?.[key];
      const button = this.root.querySelector(`[data-action="${id}"]`);
      if (button) setAttribute(button, 'title', what ? `${app.t(`do.${id}`)}: ${app.t(`command.${what}`)}` : app.t(`do.${id}`));
    }
  }

  /** Rename the lab where its name stands. */
  rename() {
    const { app, name } = this;
    if (!name || app.connection !== 'live') return;
    const before = app.store.document?.name ?? '';
    const input = h('input', { type: 'text', maxlength: 40, value: before, 'aria-label': app.t('do.rename-lab') });
    let open = true;
    /** @param {boolean} keep */
    const close = (keep) => {
      if (!open) return;
      open = false;
      input.replaceWith(name);
      const text = input.value.trim();
      if (keep && text && text !== before) void app.attempt({ type: 'lab.rename', name: text });
      name.focus();
    };
    input.addEventListener('keydown', (event) => {
      event.stopPropagation();
      if (event.key !== 'Enter' && event.key !== 'Escape') return;
      event.preventDefault();
      close(event.key === 'Enter');
    });
    input.addEventListener('blur', () => close(true));
    name.replaceWith(input);
    input.select();
    input.focus();
  }
}
