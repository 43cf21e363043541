/**
 * The canvas's twin in the accessibility tree: a treegrid of the same hosts and guests with the same commands. It is always
 * there; unless it is shown beside the canvas it is seen only while the keyboard is in it. Rows are updated in place.
 */
import { byId, h, icon, setAttribute, setText } from '../dom.js';
import { ICONS } from '../icons.js';
import { shownState } from '../marks.js';
import { GUEST_STATES } from '../protocol.js';
import { stackText } from '../stacks.js';
import { stateBadge } from './parts.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {{element: HTMLTableRowElement, badge: ReturnType<typeof stateBadge>, cells: HTMLTableCellElement[], selection: import('../app.js').Selection}} Row */

/** A twin that nobody looks at takes the figures of every such tick only. */
const UNSEEN_TICKS = 20;

const COLUMNS = /** @type {const} */ (['name', 'state', 'what', 'memory', 'instructions', 'exits', 'rate']);

export class Objects {
  /** @param {App} app @param {import('../render/scheduler.js').Scheduler} scheduler @param {import('../tools/carry.js').Carry} carry */
  constructor(app, scheduler, carry) {
    this.app = app;
    this.carry = carry;
    this.root = byId('objects');
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {string | null} the row that Tab reaches */
    this.current = null;
    this.dirty = true;
    this.body = h('tbody');
    this.empty = h('p.empty');
    this.scroll = h('div.scroll');
    const touch = () => {
      this.dirty = true;
      scheduler.invalidate();
    };
    let figures = 0;
    for (const event of /** @type {const} */ (['document', 'keyframe', 'notice', 'quiet'])) app.store.on(event, touch);
    app.store.on('tick', () => {
      const seen = this.root.classList.contains('open') || this.root.contains(document.activeElement);
      figures += 1;
      if (seen || !app.store.running || figures % UNSEEN_TICKS === 0) touch();
    });
    app.on('selection', touch);
    app.on('language', () => {
      this.build();
      touch();
    });
    scheduler.onDraw(() => {
      if (!this.dirty || !app.store.document) return;
      this.dirty = false;
      this.refresh();
    });
    this.build();
    this.setOpen(app.preferences.get('objects', false));
  }

  build() {
    const { app } = this;
    this.rows.clear();
    this.body = h('tbody');
    const table = h('table', { role: 'treegrid', 'aria-label': app.t('objects.label'), 'aria-describedby': 'canvas-help' },
      h('thead', null, h('tr', null, COLUMNS.map((column) => h('th', { scope: 'col', class: column }, app.t(`objects.${column}`))))), this.body);
    table.addEventListener('keydown', (event) => this.key(event));
    this.empty = h('p.empty', null, app.t('objects.empty'));
    this.scroll = h('div.scroll', {}, table, this.empty);
    this.root.replaceChildren(h('header', null, h('h2', null, app.t('objects.label')),
      h('button.quiet.square', { type: 'button', 'aria-label': app.t('objects.hide'), onclick: () => this.setOpen(false) }, icon(ICONS.close))), this.scroll);
    this.emptied(true);
  }

  /** Say so where nothing is listed; then Tab reaches what scrolls, since it has no rows to reach. @param {boolean} isEmpty */
  emptied(isEmpty) {
    this.empty.hidden = !isEmpty;
    this.scroll.tabIndex = isEmpty ? 0 : -1;
  }

  /** @param {boolean} open */
  setOpen(open) {
    this.root.classList.toggle('open', open);
    this.app.preferences.set('objects', open);
  }

  toggle() {
    this.setOpen(!this.root.classList.contains('open'));
  }

  refresh() {
    const { app } = this;
    const { document: lab } = app.store;
    if (!lab) return;
    const order = lab.hosts.flatMap((host) => [
      { kind: /** @type {const} */ ('host'), id: host.id },
      ...app.store.guestsOf(host.id).map((guest) => ({ kind: /** @type {const} */ ('guest'), id: guest.id })),
    ]);
    const keys = new Set(order.map(({ kind, id }) => `${kind}:${id}`));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.rows.delete(key);
    }
    this.emptied(order.length === 0);
    if (!this.current || !keys.has(this.current)) this.current = order.length ? `${order[0].kind}:${order[0].id}` : null;
    order.forEach((selection, index) => {
      const key = `${selection.kind}:${selection.id}`;
      const row = this.rows.get(key) ?? this.add(key, selection);
      if (this.body.children[index] !== row.element) this.body.insertBefore(row.element, this.body.children[index] ?? null);
      this.fill(key, row);
    });
  }

  /** @param {string} key @param {import('../app.js').Selection} selection @returns {Row} */
  add(key, selection) {
    const badge = stateBadge(this.app);
    const cells = COLUMNS.map((column) => h('td', { role: 'gridcell', class: column }));
    cells[1].append(badge.element);
    const element = h('tr', {
      role: 'row', dataset: { key }, 'aria-level': selection.kind === 'host' ? 1 : 2, tabindex: -1,
      onclick: () => this.focus(key), onfocus: () => { this.current = key; this.app.select(selection); },
    }, ...cells);
    const row = { element, badge, cells, selection };
    this.rows.set(key, row);
    return row;
  }

  /** @param {string} key @param {Row} row */
  fill(key, row) {
    const { app } = this;
    const { store } = app;
    const { kind, id } = row.selection;
    const [name, , what, memory, instructions, exits, rate] = row.cells;
    setAttribute(row.element, 'aria-selected', String(app.selection?.kind === kind && app.selection.id === id));
    row.element.tabIndex = key === this.current ? 0 : -1;
    if (kind === 'host') {
      const host = store.host(id);
      if (!host) return;
      const guests = store.guestsOf(id);
      setAttribute(row.element, 'aria-expanded', guests.length ? 'true' : null);
      const states = guests.map((guest) => GUEST_STATES[store.guests.get(guest.id)?.state ?? 0]);
      row.badge.set(states.includes('failed') ? 'failed' : states.some((state) => state === 'running' || state === 'idle') ? shownState('running', store.running) : 'off');
      setText(name, host.name);
      setText(what, stackText(app, host));
      setText(memory, `${app.n(store.hosts.get(id)?.memoryUsedMib ?? 0)} / ${app.n(host.memory_mib)} MiB`);
      return;
    }
    const guest = store.guest(id);
    if (!guest) return;
    const live = store.live(id);
    row.badge.set(shownState(GUEST_STATES[live.state], store.running));
    setText(name, guest.name);
    setText(what, store.image(guest.image)?.name ?? guest.image);
    setText(memory, `${app.n(guest.memory_mib)} MiB`);
    setText(instructions, app.n(live.instructions));
    setText(exits, app.n(live.traps));
    setText(rate, app.i18n.compact(live.rates.traps));
  }

  /** @param {string} key */
  focus(key) {
    this.current = key;
    this.rows.get(key)?.element.focus();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const keys = [...this.body.children].map((row) => /** @type {HTMLElement} */ (row).dataset.key ?? '');
    const at = keys.indexOf(this.current ?? '');
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: keys.length - 1 }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      if (keys[next]) this.focus(keys[next]);
      return;
    }
    const { selection } = this.app;
    if (event.key === ' ' && selection?.kind === 'guest') {
      event.preventDefault();
      this.carry.begin({ kind: 'guest', id: selection.id }, 'keyboard');
    }
  }
}
