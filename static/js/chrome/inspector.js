/**
 * The inspector: what is selected, in figures and with what can be done to it. Built when the selection or the document's
 * structure changes, updated in place on every tick, so that nothing jumps while the lab runs.
 */
import { byId, h, setAttribute, setText } from '../dom.js';
import { causeName } from '../panels/describe.js';
import { sessionOf } from '../panels/session.js';
import { GUEST_STATES } from '../protocol.js';
import { UNTRAPPED_INSTRUCTIONS } from '../store.js';
import { shownState } from '../marks.js';
import { layersOf, stackText, techniqueText } from '../stacks.js';
import { linkControl, migrationFigures, modeControl } from './migration.js';
import { stackControls } from './restack.js';
import { lockstepPart } from './lockstep.js';
import { guestMemory, hostMemory } from './memory.js';
import { hartShares, shareControls } from './shares.js';
import { actionButton, dispositionMark, figure, section, stateBadge } from './parts.js';

/** @typedef {import('../app.js').App} App */

/** Exits by cause shown before the rest is summed up. */
const CAUSES_SHOWN = 6;

export class Inspector {
  /** @param {App} app @param {import('../render/scheduler.js').Scheduler} scheduler */
  constructor(app, scheduler) {
    this.app = app;
    this.root = byId('inspector');
    /** @type {() => void} */
    this.update = () => undefined;
    this.built = '';
    this.dirty = true;
    const touch = () => {
      this.dirty = true;
      scheduler.invalidate();
    };
    for (const event of /** @type {const} */ (['document', 'keyframe', 'tick', 'quiet', 'notice', 'migration'])) app.store.on(event, touch);
    for (const event of /** @type {const} */ (['selection', 'connection', 'busy'])) app.on(event, touch);
    app.on('language', () => {
      this.built = '';
      touch();
    });
    scheduler.onDraw(() => {
      if (!this.dirty || !app.store.document) return;
      this.dirty = false;
      this.refresh();
    });
  }

  refresh() {
    const { selection, store } = this.app;
    const thing = selection && (selection.kind === 'host' ? store.host(selection.id) : store.guest(selection.id));
    const below = thing && 'host' in thing ? store.host(thing.host) : undefined;
    const guests = selection?.kind === 'host' ? store.guestsOf(selection.id).map((guest) => guest.name) : [below?.stack, below?.technique, below?.switches];
    const key = JSON.stringify([selection, { ...thing, host_load: null, scheduler: null, share_pages: null, overcommit: null, weight: null, cap: null, balloon_mib: null }, guests, store.document?.link_gbit, store.document?.hosts.length, store.document?.guests.length]);
    if (key !== this.built) {
      const focused = document.activeElement instanceof HTMLElement && this.root.contains(document.activeElement)
        ? document.activeElement.dataset.action : undefined;
      this.built = key;
      if (!selection || !thing) this.overview();
      else if (selection.kind === 'host') this.host(selection.id);
      else this.guest(selection.id);
      if (focused) /** @type {HTMLElement | null} */ (this.root.querySelector(`[data-action="${focused}"]`))?.focus();
    }
    this.update();
  }

  /** @param {string} what @param {string} name @param {string} line @param {Node} [state] */
  title(what, name, line, state) {
    return h('header.inspector-title', null, h('p.eyebrow', null, what), h('h2', null, name), h('p.line', null, line), state ?? null);
  }

  overview() {
    const { app } = this;
    const { document: lab, schema } = app.store;
    const levels = /** @type {const} */ (['user', 'kernel', 'hypervisor', 'hardware']);
    const guests = figure(app.t('figure.guests'));
    const hosts = figure(app.t('figure.hosts'));
    const exits = figure(app.t('figure.traps'));
    const time = figure(app.t('figure.virtual-time'));
    this.root.replaceChildren(
      this.title(app.t('inspector.lab'), lab?.name ?? '', app.t('inspector.lab-line')),
      section(app, 'lab-figures', app.t('inspector.figures'), h('dl.figures', null, hosts.element, guests.element, exits.element, time.element)),
      section(app, 'lab-link', app.t('migrate.title'), h('div.controls', null, linkControl(app)), h('p.text', null, app.t('migrate.explained'))),
      section(app, 'lab-steps', app.t('inspector.first-steps'), h('ol.steps', null,
        ['first.watch', 'first.select', 'first.drag', 'first.step', 'first.console'].map((key) => h('li', null, app.t(key))))),
      section(app, 'lab-colours', app.t('inspector.colours'),
        h('h3', null, app.t('legend.title')),
        h('ul.meanings', null, schema.dispositions.map((name) => h('li', null, dispositionMark(name),
          h('span', null, h('strong', null, app.t(`disposition.${name}`)), ` ${app.t(`disposition.${name}.detail`)}`)))),
        h('h3', null, app.t('inspector.levels')),
        h('ul.meanings', null, levels.map((level) => h('li', null, h('span.swatch', { style: { background: `var(--level-${level})` } }),
          h('span', null, h('strong', null, app.t(`group.${level}`)), ` ${app.t(`group.${level}.detail`)}`))))),
    );
    this.update = () => {
      setText(hosts.value, app.n(app.store.document?.hosts.length ?? 0));
      setText(guests.value, app.n(app.store.document?.guests.length ?? 0));
      let sum = 0;
      for (const live of app.store.guests.values()) sum += live.traps;
      setText(exits.value, app.n(sum));
      setText(time.value, app.i18n.duration(app.store.time));
    };
  }

  /** @param {number} id */
  host(id) {
    const { app } = this;
    const host = app.store.host(id);
    if (!host) return;
    const harts = figure(app.t('figure.harts-label'));
    const busy = figure(app.t('figure.busy'));
    const memory = figure(app.t('figure.memory'));
    const time = figure(app.t('figure.virtual-time'));
    const buttons = [actionButton(app, 'rename'), actionButton(app, 'remove', { className: 'danger' })];
    const controls = stackControls(app, host);
    const shares = host.technique ? hartShares(app, host) : null;
    const frames = host.technique ? hostMemory(app, host) : null;
    const list = h('ul.guest-list', null, app.store.guestsOf(id).map((guest) => h('li', null, h('button.link', {
      type: 'button', onclick: () => app.select({ kind: 'guest', id: guest.id }),
    }, guest.name), h('span', null, `${app.store.image(guest.image)?.name ?? ''} · ${app.n(guest.memory_mib)} MiB`))));
    this.root.replaceChildren(
      this.title(app.t('inspector.host'), host.name, stackText(app, host)),
      h('div.buttons', null, ...buttons),
      section(app, 'host-figures', app.t('inspector.figures'), h('dl.figures', null, harts.element, busy.element, memory.element, time.element)),
      section(app, 'host-guests', app.t('figure.guests'), list.children.length ? list : h('p.empty', null, app.t('inspector.no-guests'))),
      section(app, 'host-stack', app.t('inspector.stack'), controls.element, h('p.text', null, app.t(`stack.${host.stack}.explained`)),
        host.technique ? h('p.text', null, app.t(`technique.${host.technique}.explained`)) : ''),
      shares ? section(app, 'host-shares', app.t('inspector.shares'), shares.element) : '',
      frames ? section(app, 'host-memory', app.t('inspector.memory'), frames.element) : '',
    );
    this.update = () => {
      const live = app.store.hosts.get(id);
      setText(harts.value, app.n(host.harts));
      setText(busy.value, `${Math.round((live?.busy ?? 0) * 100)} %`);
      setText(memory.value, `${app.n(live?.memoryUsedMib ?? 0)} / ${app.n(host.memory_mib)} MiB`);
      setText(time.value, app.i18n.duration(live?.time ?? 0));
      controls.update();
      shares?.update();
      frames?.update();
      for (const button of buttons) button.refresh();
    };
  }

  /** @param {number} id */
  guest(id) {
    const { app } = this;
    const guest = app.store.guest(id);
    if (!guest) return;
    const host = app.store.host(guest.host);
    const image = app.store.image(guest.image);
    const badge = stateBadge(app);
    const failure = h('div.failure', { role: 'alert', hidden: true });
    const gdb = h('div.failure.calm', { role: 'status', hidden: true });
    const vcpus = figure(app.t('figure.vcpus'));
    const memory = figure(app.t('figure.memory'));
    const instructions = figure(app.t('figure.instructions'));
    const traps = figure(app.t('figure.traps-total'));
    const exits = layersOf(host).guest !== 'native' ? figure(app.t('figure.exits-total')) : null;
    const rate = figure(app.t('figure.exits-wall'));
    const virtual = figure(app.t('figure.exits-virtual'));
    rate.element.title = app.t('figure.exits-wall.tip');
    virtual.element.title = app.t('figure.exits-virtual.tip');
    const where = this.whereTrapsWent(id);
    const causes = this.causes(id);
    const share = host?.technique ? shareControls(app, guest) : null;
    const pages = host?.technique ? guestMemory(app, guest, host.technique) : null;
    const price = image?.original ? [section(app, 'guest-price', app.t('inspector.price'),
      h('p.text', null, app.t('inspector.price.text', { original: image.original })), h('div.buttons', null, actionButton(app, 'difference')))] : [];
    const buttons = ['power-on', 'power-off', 'power-reset', 'move', 'clone', 'snapshot', 'gdb', 'gdb-close', 'rename'].map((action) => actionButton(app, action));
    buttons.push(actionButton(app, 'remove', { className: 'danger' }));
    const migration = migrationFigures(app, id);
    const migrations = host && host.technique !== null
      ? [section(app, 'guest-migration', app.t('migrate.title'), h('div.controls', null, modeControl(app)), migration.element)] : [];
    this.root.replaceChildren(
      this.title(app.t('inspector.guest'), guest.name,
        app.t('inspector.guest-line', { image: image?.name ?? guest.image, host: host?.name ?? '', stack: techniqueText(app, host?.technique ?? null) }), badge.element),
      failure,
      gdb,
      h('div.buttons', null, ...buttons),
      section(app, 'guest-figures', app.t('inspector.figures'), h('dl.figures', null, vcpus.element, memory.element, instructions.element,
        traps.element, exits?.element ?? '', rate.element, virtual.element)),
      share ? section(app, 'guest-share', app.t('inspector.share'), share.element) : '',
      pages ? section(app, 'guest-memory', app.t('inspector.memory'), pages.element) : '',
      ...migrations,
      host?.switches.includes('silent-sensitive') ? section(app, 'guest-silent', app.t('silent.title'), lockstepPart(app, id)) : '',
      section(app, 'guest-where', app.t('inspector.where'), where.element),
      ...price,
      section(app, 'guest-causes', app.t('inspector.causes'), causes.element),
      guest.arguments ? section(app, 'guest-arguments', app.t('inspector.arguments'), h('p.text', null, h('code', null, guest.arguments))) : '',
    );
    this.update = () => {
      const live = app.store.guests.get(id);
      if (!live) return;
      badge.set(shownState(GUEST_STATES[live.state], app.store.running));
      setText(vcpus.value, app.n(guest.vcpus));
      setText(memory.value, `${app.n(guest.memory_mib)} MiB`);
      setText(instructions.value, app.n(live.instructions));
      setText(traps.value, app.n(live.traps));
      if (exits) setText(exits.value, app.n(live.exits));
      setText(rate.value, `${app.i18n.compact(live.rates.traps)} ${app.t('unit.per-second')}`);
      setText(virtual.value, `${app.i18n.compact(live.rates.perVirtualSecond)} ${app.t('unit.per-second')}`);
      const untrapped = app.store.untrapped(id);
      const spins = live.state === 1 && untrapped >= UNTRAPPED_INSTRUCTIONS;
      failure.hidden = live.state !== 4 && live.state !== 3 && !spins;
      failure.classList.toggle('calm', live.state !== 4);
      if (live.state === 4) {
        const key = live.failure?.key ?? 'guest-failed';
        fill(failure, app.t('guest.failed'), app.t(`failure.${key}`, live.failure?.params), app.t(app.i18n.has(`failure.${key}.do`) ? `failure.${key}.do` : 'guest.failed.do'));
      } else if (live.state === 3) fill(failure, app.t('guest.stopped', { status: live.exitStatus ?? 0 }), app.t('guest.stopped.do'));
      else if (spins) fill(failure, app.t('guest.untrapped', { count: app.i18n.compact(untrapped) }), app.t('guest.untrapped.do'));
      const held = app.store.gdb?.guest === id ? app.store.gdb : null;
      gdb.hidden = held === null;
      if (held) fill(gdb, app.t(`gdb.${held.state}`), app.t(`gdb.${held.state}.do`, { address: held.address, port: String(held.port) }));
      migration.update();
      where.update();
      causes.update();
      share?.update();
      pages?.update();
      for (const button of buttons) button.refresh();
    };
  }

  /** One bar: what became of this guest's traps since it was started. @param {number} id */
  whereTrapsWent(id) {
    const { app } = this;
    const { dispositions } = app.store.schema;
    const parts = dispositions.map((name) => h('span', { style: { background: `var(--disposition-${name})` } }));
    const shares = dispositions.map(() => h('b'));
    const rows = dispositions.map((name, index) => h('li', null, dispositionMark(name), h('span', null, app.t(`disposition.${name}`)), shares[index]));
    const element = h('div', null, h('div.stacked', { 'aria-hidden': true }, ...parts), h('ul.shares', null, ...rows));
    return {
      element,
      update: () => {
        const sums = dispositions.map(() => 0);
        for (const total of app.store.totals.get(id)?.values() ?? []) sums[total.disposition] += total.count;
        const all = sums.reduce((sum, count) => sum + count, 0);
        sums.forEach((count, index) => {
          const share = all > 0 ? (count / all) * 100 : 0;
          parts[index].style.setProperty('width', `${share}%`);
          setText(shares[index], `${share > 0 && share < 1 ? '< 1' : Math.round(share)} %`);
          rows[index].classList.toggle('none', count === 0);
        });
      },
    };
  }

  /** Exits by cause, most frequent first; rows are reused, so that only figures change. @param {number} id */
  causes(id) {
    const { app } = this;
    const { context } = sessionOf(app);
    const rows = Array.from({ length: CAUSES_SHOWN }, () => {
      const name = h('span');
      const value = h('b');
      const bar = h('i');
      return { element: h('li', { hidden: true }, h('div', null, name, value), h('div.track', { 'aria-hidden': true }, bar)), name, value, bar };
    });
    const empty = h('p.empty', null, app.t('inspector.no-traps'));
    const element = h('div', null, h('ul.causes', null, ...rows.map((row) => row.element)), empty);
    return {
      element,
      update: () => {
        /** @type {Map<string, {kind: number, cause: number, count: number, dispositions: number[]}>} */
        const sums = new Map();
        for (const total of app.store.totals.get(id)?.values() ?? []) {
          const key = `${total.kind} ${total.cause}`;
          const sum = sums.get(key) ?? { kind: total.kind, cause: total.cause, count: 0, dispositions: [] };
          sum.count += total.count;
          sum.dispositions[total.disposition] = (sum.dispositions[total.disposition] ?? 0) + total.count;
          sums.set(key, sum);
        }
        const sorted = [...sums.values()].sort((a, b) => b.count - a.count);
        empty.hidden = sorted.length > 0;
        rows.forEach((row, index) => {
          const sum = sorted[index];
          row.element.hidden = !sum;
          if (!sum) return;
          const most = sum.dispositions.reduce((best, count, at) => (count > (sum.dispositions[best] ?? 0) ? at : best), 0);
          const kind = app.store.schema.kinds[sum.kind];
          setText(row.name, `${app.t(`kind.${kind}`)} · ${causeName(context, sum.cause)}`);
          setText(row.value, app.n(sum.count));
          row.bar.style.setProperty('width', `${(sum.count / sorted[0].count) * 100}%`);
          row.bar.style.setProperty('background', `var(--disposition-${app.store.schema.dispositions[most]})`);
        });
      },
    };
  }
}

/** @param {HTMLElement} element @param {...string} lines the first is the headline */
function fill(element, ...lines) {
  if (element.childElementCount !== lines.length) element.replaceChildren(...lines.map((_, index) => h(index ? 'p' : 'strong')));
  lines.forEach((line, index) => setText(element.children[index], line));
  setAttribute(element, 'data-lines', String(lines.length));
}
