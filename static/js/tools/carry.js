/**
 * What is being dragged, by pointer or by keyboard: one state for both. It asks the lab whether the drop would be accepted
 * while the item is over a host, and turns the drop into the command. Pure but for the questions it is given.
 */
import { configurationIn } from '../compare/model.js';
import { configurationText } from '../compare/words.js';
import { Emitter } from '../events.js';
import { moveGuest } from '../migrations.js';
import { FITTINGS, unfit } from './fittings.js';

/**
 * An image becomes a guest, a host a host, a guest moves (how: see moveGuest), and a fitting changes a host. A workload runs in a
 * fresh guest of the host that it is dropped on; dropped on Compare, it is measured as the lab's hosts would run it.
 * @typedef {{kind: keyof typeof FITTINGS, id: string}} FittingItem
 * @typedef {FittingItem | {kind: 'image', id: string} | {kind: 'workload', id: string} | {kind: 'host', memory_mib?: number} | {kind: 'guest', id: number}} Item
 * A host, or the Compare button.
 * @typedef {number | 'compare'} Target
 * `fits` null: the lab has not answered yet.
 * @typedef {{fits: boolean | null, title: string, detail: string}} Verdict
 * @typedef {{item: Item, via: 'pointer' | 'keyboard', target: Target | null, inside: boolean, verdict: Verdict | null,
 *            x: number, y: number}} Load  inside: over the canvas; x, y: client pixels of the pointer
 */

/** @param {Item} item @returns {item is FittingItem} */
const isFitting = (item) => Object.hasOwn(FITTINGS, item.kind);

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
    if (isFitting(item)) return this.app.t(FITTINGS[item.kind].nameKey(item.id));
    if (item.kind === 'host') return this.app.t(item.memory_mib ? 'palette.small-host' : 'palette.host');
    return this.app.t(`workload.${item.id}`);
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

  /** What can be chosen by keyboard. @returns {Target[]} */
  targets() {
    const { load } = this;
    if (!load || load.item.kind === 'host') return [];
    const from = load.item.kind === 'guest' ? this.app.store.guest(load.item.id)?.host : undefined;
    const hosts = (this.app.store.document?.hosts ?? []).map((host) => host.id).filter((id) => id !== from);
    return load.item.kind === 'workload' ? [...hosts, 'compare'] : hosts;
  }

  /** The next or previous target. @param {1 | -1} step */
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

  /** The item is over something, or over nothing. @param {Target | null} target @param {boolean} inside over the canvas */
  over(target, inside) {
    const { load } = this;
    if (!load || (load.target === target && load.inside === inside)) return;
    load.target = target;
    load.inside = inside;
    load.verdict = null;
    if (load.item.kind === 'host') {
      load.verdict = inside && target === null ? { fits: true, title: this.app.t('drop.host'), detail: '' } : null;
    } else if (target !== null) void this.judge(load, target);
    this.emit('change', load);
  }

  /** @param {Load} load @param {Target} target */
  async judge(load, target) {
    load.verdict = { fits: null, title: this.titleOf(load.item), detail: this.app.t('drop.asking') };
    const verdict = await this.ask(load.item, target);
    if (this.load !== load || load.target !== target) return;
    load.verdict = verdict;
    this.emit('change', load);
    if (load.via === 'keyboard') {
      const name = target === 'compare' ? this.app.t('compare.title') : this.app.store.host(target)?.name ?? '';
      this.app.announce(this.app.t('announce.target', { name, verdict: verdict.detail || verdict.title }));
    }
  }

  /** @param {Item} item */
  titleOf(item) {
    const titles = { image: 'drop.create', guest: 'drop.move', host: 'drop.host', workload: 'drop.workload' };
    return this.app.t(isFitting(item) ? 'drop.stack' : titles[item.kind], { name: this.nameOf(item) });
  }

  /** @param {Item} item @param {Target} target @returns {Promise<Verdict>} */
  ask(item, target) {
    const { store } = this.app;
    if (this.revision !== store.revision) {
      this.revision = store.revision;
      this.answers.clear();
    }
    const key = JSON.stringify([item, target]);
    const known = this.answers.get(key);
    if (known) return known;
    const answer = target === 'compare' ? Promise.resolve(this.comparable(item)) : this.find(item, target).catch((error) => {
      this.answers.delete(key); // nobody answered: that is no verdict to keep
      return { fits: false, title: this.app.t('drop.refused'), detail: this.app.problemText(error) };
    });
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
    if (isFitting(item)) {
      if (!target) return no(app.t('error.no-such-host'));
      const change = FITTINGS[item.kind].change(app, target, item.id);
      if ('no' in change) return no(change.no);
      const other = 'restack' in change ? unfit(app, target, change.restack) : null;
      if (other) return no(other);
      const n = 'restack' in change ? app.store.guestsOf(host).length : 0;
      return {
        fits: true, title: change.off ? app.t('drop.off', { name: this.nameOf(item) }) : title,
        detail: n ? app.t('drop.stack-in-use', { n }) : app.t(FITTINGS[item.kind].detailKey(item.id)),
      };
    }
    if (item.kind === 'workload' && app.store.schema.workloads.disk.includes(item.id)) return no(app.t('drop.no-disk'));
    if (item.kind === 'guest' && app.store.guest(item.id)?.host === host) return { fits: true, title: app.t('drop.here-already'), detail: '' };
    const what = item.kind === 'image' ? { image: item.id } : item.kind === 'guest' ? { guest: item.id }
      : item.kind === 'workload' ? { image: this.kernelFor(host) } : {};
    const answer = await app.query({ type: 'fits', host, ...what });
    if (!answer.fits) return no(app.problemText(answer.error));
    const detail = app.t('drop.fits', { need: answer.need_mib, free: answer.free_mib });
    return { fits: true, title, detail: item.kind === 'workload' ? app.t('drop.fresh', { fits: detail }) : detail };
  }

  /** The build of the workloads' kernel that a host runs. @param {number} host */
  kernelFor(host) {
    const { store } = this.app;
    const changed = store.host(host)?.technique === 'paravirtual';
    const { guests } = store.schema.workloads;
    return guests.find((id) => Boolean(store.image(id)?.paravirtual) === changed) ?? guests[0];
  }

  /** Ways to virtualize that the lab's hosts have, each once. @returns {string[]} */
  configurations() {
    return [...new Set((this.app.store.document?.hosts ?? []).map(configurationIn))];
  }

  /** @param {Item} item @returns {Verdict} */
  comparable(item) {
    const { app } = this;
    const under = this.configurations().map((text) => configurationText(app, text)).join(', ');
    return { fits: true, title: app.t('drop.compare', { name: this.nameOf(item) }), detail: under || app.t('drop.compare-usual') };
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
    if (item.kind === 'workload') {
      await this.dropWorkload(item.id, target);
      return;
    }
    if (target === 'compare') return;
    const host = app.store.host(target)?.name ?? '';
    if (item.kind === 'image') {
      const result = await app.attempt({ type: 'guest.create', host: target, image: item.id });
      if (result) this.done({ kind: 'guest', id: result.guest }, app.t('announce.guest-created', { name, host }));
    } else if (isFitting(item)) {
      await this.dropFitting(item, target);
    } else if (app.store.guest(item.id)?.host !== target) {
      await moveGuest(app, item.id, target);
    }
  }

  /** Asked again at the drop: somebody else may have changed the host meanwhile. @param {FittingItem} item @param {number} host */
  async dropFitting(item, host) {
    const { app } = this;
    const target = app.store.host(host);
    if (!target) {
      app.complain({ key: 'no-such-host' });
      return;
    }
    const change = FITTINGS[item.kind].change(app, target, item.id);
    if ('no' in change) {
      app.toast({ text: change.no, level: 'error' });
      return;
    }
    if ('restack' in change) {
      if (await app.page.restack(host, change.restack)) app.select({ kind: 'host', id: host });
      return;
    }
    if ((await app.attempt(change.command)) === undefined) return;
    this.done({ kind: 'host', id: host }, app.t(change.off ? 'announce.unfitted' : 'announce.fitted', { name: this.nameOf(item), host: target.name }));
  }

  /** @param {string} workload @param {Target} target */
  async dropWorkload(workload, target) {
    const { app } = this;
    const count = app.store.schema.workloads.counts[workload];
    if (target === 'compare') {
      app.page.openCompare({ workloads: [`${workload}:${count}`], configurations: this.configurations() }, false);
      return;
    }
    const image = this.kernelFor(target);
    const result = await app.attempt({ type: 'guest.create', host: target, image, arguments: `run=work ${workload} ${count}` });
    const names = { name: app.store.image(image)?.name ?? image, host: app.store.host(target)?.name ?? '' };
    if (result) this.done({ kind: 'guest', id: result.guest }, app.t('announce.guest-created', names));
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
