/**
 * What is being dragged, by pointer or by keyboard: one state for both. It asks the lab whether the drop would be accepted
 * while the item is over a host, and turns the drop into the command. Pure but for the questions it is given.
 */
import { Emitter } from '../events.js';
import { moveGuest } from '../migrations.js';

/**
 * An image becomes a guest, a host a host, a stack replaces a host's stack, a technique its technique, a guest moves (how: see moveGuest).
 * @typedef {{kind: 'image', id: string} | {kind: 'host', memory_mib?: number} | {kind: 'stack', id: string} | {kind: 'technique', id: string} |
 *            {kind: 'guest', id: number}} Item
 * `fits` null: the lab has not answered yet.
 * @typedef {{fits: boolean | null, title: string, detail: string}} Verdict
 * @typedef {{item: Item, via: 'pointer' | 'keyboard', target: number | null, inside: boolean, verdict: Verdict | null,
 *            x: number, y: number}} Load  inside: over the canvas; x, y: client pixels of the pointer
 */

/** @extends {Emitter<{change: Load | null, begin: Load, end: {dropped: boolean}}>} */
export class Carry extends Emitter {
  /** @param {import('../app.js').App} app */
  constructor(app) {
    super();
    this.app = app;
    /** @type {Load | null} */
    this.load = null;
    /** @type {Map<string, Promise<Verdict>>} answers of the lab at one revision */
    this.answers = new Map();
    this.revision = -1;
  }

  /** @param {Item} item */
  nameOf(item) {
    const { store } = this.app;
    if (item.kind === 'image') return store.image(item.id)?.name ?? '';
    if (item.kind === 'guest') return store.guest(item.id)?.name ?? '';
    if (item.kind === 'host') return this.app.t(item.memory_mib ? 'palette.small-host' : 'palette.host');
    return this.app.t(`${item.kind}.${item.id}`);
  }

  /** @param {Item} item @param {'pointer' | 'keyboard'} via @param {number} [x] @param {number} [y] */
  begin(item, via, x = 0, y = 0) {
    this.load = { item, via, target: null, inside: false, verdict: null, x, y };
    this.emit('begin', this.load);
    if (via === 'keyboard') {
      this.app.announce(this.app.t(item.kind === 'host' ? 'announce.grabbed-host' : 'announce.grabbed', { name: this.nameOf(item) }));
      if (item.kind === 'host') this.over(null, true);
      else this.next(1);
    } else this.emit('change', this.load);
  }

  /** Hosts that can be chosen by keyboard. @returns {number[]} */
  targets() {
    const { load } = this;
    if (!load || load.item.kind === 'host') return [];
    const from = load.item.kind === 'guest' ? this.app.store.guest(load.item.id)?.host : undefined;
    return (this.app.store.document?.hosts ?? []).map((host) => host.id).filter((id) => id !== from);
  }

  /** The next or previous host. @param {1 | -1} step */
  next(step) {
    const targets = this.targets();
    if (!this.load || targets.length === 0) {
      if (this.load && this.load.item.kind !== 'host') this.app.announce(this.app.t('announce.no-target'));
      this.emit('change', this.load);
      return;
    }
    const at = this.load.target === null ? (step > 0 ? -1 : 0) : targets.indexOf(this.load.target);
    this.over(targets[(at + step + targets.length) % targets.length], true);
  }

  /** The pointer moved. @param {number} x client @param {number} y client */
  at(x, y) {
    if (!this.load) return;
    this.load.x = x;
    this.load.y = y;
    this.emit('change', this.load);
  }

  /** The item is over a host, or over none. @param {number | null} host @param {boolean} inside over the canvas */
  over(host, inside) {
    const { load } = this;
    if (!load || (load.target === host && load.inside === inside)) return;
    load.target = host;
    load.inside = inside;
    load.verdict = null;
    if (load.item.kind === 'host') {
      load.verdict = inside && host === null ? { fits: true, title: this.app.t('drop.host'), detail: '' } : null;
    } else if (host !== null) void this.judge(load, host);
    this.emit('change', load);
  }

  /** @param {Load} load @param {number} host */
  async judge(load, host) {
    load.verdict = { fits: null, title: this.titleOf(load.item), detail: this.app.t('drop.asking') };
    const verdict = await this.ask(load.item, host);
    if (this.load !== load || load.target !== host) return;
    load.verdict = verdict;
    this.emit('change', load);
    if (load.via === 'keyboard') {
      const name = this.app.store.host(host)?.name ?? '';
      this.app.announce(this.app.t('announce.target', { name, verdict: verdict.detail || verdict.title }));
    }
  }

  /** @param {Item} item */
  titleOf(item) {
    const key = { image: 'drop.create', guest: 'drop.move', stack: 'drop.stack', technique: 'drop.stack', host: 'drop.host' }[item.kind];
    return this.app.t(key, { name: this.nameOf(item) });
  }

  /** @param {Item} item @param {number} host @returns {Promise<Verdict>} */
  ask(item, host) {
    const { store } = this.app;
    if (this.revision !== store.revision) {
      this.revision = store.revision;
      this.answers.clear();
    }
    const key = JSON.stringify([item, host]);
    const known = this.answers.get(key);
    if (known) return known;
    const answer = this.find(item, host);
    this.answers.set(key, answer);
    return answer;
  }

  /** @param {Item} item @param {number} host @returns {Promise<Verdict>} */
  async find(item, host) {
    const { app } = this;
    const target = app.store.host(host);
    const title = this.titleOf(item);
    /** @param {string} detail @returns {Verdict} */
    const no = (detail) => ({ fits: false, title: app.t('drop.refused'), detail });
    if (item.kind === 'stack' || item.kind === 'technique') {
      if (target?.[item.kind] === item.id) return no(app.t('drop.same-stack', { name: target.name }));
      const { stack } = this.restacked(item, host);
      if (item.kind === 'technique' && !app.store.schema.stacks[stack]?.techniques.includes(item.id)) {
        return no(app.t('error.technique-not-on-stack', { stack: app.t(`stack.${stack}`), technique: app.t(`technique.${item.id}`) }));
      }
      const n = app.store.guestsOf(host).length;
      return { fits: true, title, detail: n ? app.t('drop.stack-in-use', { n }) : app.t(`${item.kind}.${item.id}.detail`) };
    }
    if (item.kind === 'guest' && app.store.guest(item.id)?.host === host) return { fits: true, title: app.t('drop.here-already'), detail: '' };
    try {
      const what = item.kind === 'image' ? { image: item.id } : item.kind === 'guest' ? { guest: item.id } : {};
      const answer = await app.query({ type: 'fits', host, ...what });
      if (!answer.fits) return no(app.problemText(answer.error));
      return { fits: true, title, detail: app.t('drop.fits', { need: answer.need_mib, free: answer.free_mib }) };
    } catch (error) {
      return no(app.problemText(error));
    }
  }

  /**
   * Let go. Refusals have been shown already, or are shown by the lab's answer.
   * @param {{x: number, y: number}} place world, where a new host's corner goes
   */
  async drop(place) {
    const { load, app } = this;
    if (!load) return;
    const { item, target, verdict, inside, via } = load;
    const name = this.nameOf(item);
    this.finish(true);
    if (item.kind === 'host') {
      if (!inside || target !== null) return;
      const ram = item.memory_mib ? { memory_mib: item.memory_mib } : {};
      const result = await app.attempt({ type: 'host.create', x: Math.round(place.x), y: Math.round(place.y), ...ram });
      if (!result) return;
      this.done({ kind: 'host', id: result.host }, app.t('announce.host-created'));
      if (via === 'keyboard') await app.fitWith(result.host);
      return;
    }
    if (target === null) {
      if (inside || load.via === 'keyboard') app.toast({ text: app.t('drop.needs-host', { name }), level: 'info' });
      return;
    }
    if (verdict?.fits === false) {
      app.toast({ text: verdict.detail, level: 'error' });
      return;
    }
    const host = app.store.host(target)?.name ?? '';
    if (item.kind === 'image') {
      const result = await app.attempt({ type: 'guest.create', host: target, image: item.id });
      if (result) this.done({ kind: 'guest', id: result.guest }, app.t('announce.guest-created', { name, host }));
    } else if (item.kind === 'stack' || item.kind === 'technique') {
      if (await app.page.restack(target, this.restacked(item, target))) app.select({ kind: 'host', id: target });
    } else if (app.store.guest(item.id)?.host !== target) {
      await moveGuest(app, item.id, target);
    }
  }

  /**
   * What a host becomes when a stack or a technique is dropped on it: a bare machine gets a kernel with a hypervisor.
   * @param {{kind: 'stack' | 'technique', id: string}} item @param {number} host
   */
  restacked(item, host) {
    if (item.kind === 'stack') return { stack: item.id };
    const target = this.app.store.host(host);
    return { stack: target?.technique ? target.stack : 'kvm', technique: item.id };
  }

  /** @param {import('../app.js').Selection} selection @param {string} text */
  done(selection, text) {
    this.app.select(selection);
    this.app.announce(text);
  }

  cancel() {
    if (!this.load) return;
    this.finish(false);
    this.app.announce(this.app.t('announce.cancelled'));
  }

  /** @param {boolean} dropped */
  finish(dropped) {
    this.load = null;
    this.emit('end', { dropped });
    this.emit('change', null);
  }
}
