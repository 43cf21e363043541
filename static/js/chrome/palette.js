/**
 * The palette: hosts, guests, hypervisor layers, techniques, and smaller: hardware, scheduling, workloads. Every item can be dragged to the canvas by pointer, or grabbed with Space and
 * placed with the arrows. A kernel or a snapshot can be uploaded here, by file picker or by dropping a file on the page;
 * dropped on a host, it starts there at once.
 */
import { byId, h, icon, setText } from '../dom.js';
import { ICONS } from '../icons.js';
import { STACKS, TECHNIQUES, techniqueText } from '../stacks.js';
import { FITTINGS } from '../tools/fittings.js';
import { section } from './parts.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {import('../tools/carry.js').Item} Item */

/** How far a press may wander and still be a click, CSS pixels. */
const SLOP = 5;
/** The RAM of a host that is soon full. */
const SMALL_HOST_MIB = 32;
/** What the server takes (the engine's bound on an image). */
const LARGEST_UPLOAD = 8 << 20;

export class Palette {
  /** @param {App} app @param {import('../tools/carry.js').Carry} carry */
  constructor(app, carry) {
    this.app = app;
    this.carry = carry;
    this.root = byId('palette');
    this.images = '';
    this.file = h('input', { type: 'file', hidden: true });
    this.file.addEventListener('change', () => {
      const chosen = this.file.files?.[0];
      if (chosen) void this.upload(chosen, null);
      this.file.value = '';
    });
    app.on('language', () => this.build());
    app.store.on('document', (document) => {
      const images = JSON.stringify(document.images.map(({ id, name }) => [id, name]));
      if (images !== this.images) {
        this.images = images;
        this.build();
      }
    });
    document.addEventListener('dragover', (event) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      document.body.dataset.dropping = 'true';
    });
    document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) delete document.body.dataset.dropping; });
    document.addEventListener('drop', (event) => {
      delete document.body.dataset.dropping;
      const file = event.dataTransfer?.files[0];
      if (!file) return;
      event.preventDefault();
      void this.upload(file, app.page.hostAt(event.clientX, event.clientY));
    });
    this.build();
  }

  build() {
    const { app } = this;
    const images = app.store.document?.images ?? [];
    const schema = app.store.reader ? app.store.schema : null;
    this.refusal = h('p.refusal', { role: 'alert', hidden: true });
    this.root.replaceChildren(
      section(app, 'palette-hosts', app.t('palette.hosts'), this.item({ kind: 'host' }, app.t('palette.host'), app.t('palette.host.detail'), 'hardware', icon(ICONS.host)),
        this.item({ kind: 'host', memory_mib: SMALL_HOST_MIB }, app.t('palette.small-host'), app.t('palette.small-host.detail', { ram: SMALL_HOST_MIB }), 'hardware', icon(ICONS.host))),
      section(app, 'palette-guests', app.t('palette.guests'), ...images.map((image) => this.image(image)), h('div.palette-buttons', null,
        h('button', { type: 'button', onclick: () => app.actions?.run('system') }, icon(ICONS.plus), app.t('do.system')),
        h('button', { type: 'button', onclick: () => this.file.click() }, icon(ICONS.upload), app.t('do.upload')),
        h('button', { type: 'button', onclick: () => app.actions?.run('assemble') }, icon(ICONS.code), app.t('do.assemble'))), this.refusal, this.file),
      section(app, 'palette-stacks', app.t('palette.stacks'), ...STACKS.map((stack) => this.item(
        { kind: 'stack', id: stack.id }, app.t(`stack.${stack.id}`), app.t(`stack.${stack.id}.detail`),
        stack.bands.includes('firmware') ? 'hardware' : 'hypervisor', app.t(`stack.${stack.id}.letter`),
      ))),
      section(app, 'palette-techniques', app.t('palette.techniques'), ...TECHNIQUES.map(({ id }) => this.item(
        { kind: 'technique', id }, app.t(`technique.${id}`), app.t(`technique.${id}.detail`), 'hypervisor', app.t(`technique.${id}.letter`),
      ))),
      ...(schema ? [
        section(app, 'palette-hardware', app.t('palette.hardware'), h('div.chips', null,
          schema.generations.map((_, index) => this.fitting('generation', String(index))),
          Object.keys(schema.switches).map((id) => this.fitting('switch', id)))),
        section(app, 'palette-sharing', app.t('palette.sharing'), h('div.chips', null,
          schema.schedulers.map((id) => this.fitting('scheduler', id)), this.fitting('sharing', 'pages'), this.fitting('overcommit', 'memory'))),
        section(app, 'palette-workloads', app.t('palette.workloads'), h('div.chips', null, Object.keys(schema.workloads.counts).map((id) => this.chip(
          { kind: 'workload', id }, app.t(`workload.${id}`), app.t('palette.workload', { what: app.t(`workload.${id}.what`) }))))),
      ] : []),
      h('p.palette-hint', null, app.t('palette.hint')),
    );
  }

  /** @param {keyof typeof FITTINGS} kind @param {string} id */
  fitting(kind, id) {
    const { nameKey, detailKey } = FITTINGS[kind];
    return this.chip({ kind, id }, this.app.t(nameKey(id)), this.app.t(detailKey(id)));
  }

  /** @param {import('../protocol.js').Image} image */
  image(image) {
    const { app } = this;
    const item = this.item(
      { kind: 'image', id: image.id }, image.name, this.describe(image), image.kind === 'assembly' ? 'user' : 'kernel',
      image.builtin ? 'V' : image.snapshot ? 'S' : image.kind === 'assembly' ? 'A' : image.kind === 'linux' ? 'L' : 'U',
    );
    if (!image.snapshot) return item;
    const title = app.t('palette.download', { name: image.name });
    return h('div.with-download', null, item, h('a.button', {
      href: `/labs/${encodeURIComponent(app.lab)}/snapshots/${encodeURIComponent(image.id)}`, download: true, title, 'aria-label': title,
    }, icon(ICONS.download)));
  }

  /** @param {import('../protocol.js').Image} image */
  describe(image) {
    const { app } = this;
    const size = image.size < 1024 ? `${app.n(image.size)} B` : `${app.n(Math.round(image.size / 1024))} KiB`;
    if (image.title_key && app.i18n.has(image.title_key)) return app.t(image.title_key);
    if (image.snapshot) return app.t('palette.snapshot', { size, technique: techniqueText(app, image.snapshot.technique) });
    if (image.title) return image.title;
    return app.t(image.builtin ? 'palette.image' : image.kind === 'assembly' ? 'palette.assembled' : 'palette.uploaded', { size });
  }

  /**
   * @param {Item} item @param {string} title @param {string} detail @param {string} group whose colour the badge wears
   * @param {Node | string} badge
   */
  item(item, title, detail, group, badge) {
    const element = h('button.item', {
      type: 'button', dataset: { item: 'memory_mib' in item ? 'small-host' : item.kind, id: 'id' in item ? String(item.id) : '' },
    }, h('span.badge', { style: { '--badge': `var(--level-${group})` }, 'aria-hidden': true }, badge),
    h('span.words', null, h('strong', null, title), h('small', null, detail)));
    return this.grabbable(element, item);
  }

  /** @param {Item & {id: string}} item @param {string} text @param {string} detail */
  chip(item, text, detail) {
    return this.grabbable(h('button.item.small', { type: 'button', title: detail, dataset: { item: item.kind, id: item.id } }, text), item);
  }

  /** @param {HTMLElement} element @param {Item} item */
  grabbable(element, item) {
    element.addEventListener('pointerdown', (event) => this.press(event, element, item));
    element.addEventListener('click', (event) => {
      if (event.detail === 0 && !this.carry.load) this.carry.begin(item, 'keyboard');
    });
    return element;
  }

  /**
   * A press that wanders off becomes a drag; one that does not is a click. @param {PointerEvent} event
   * @param {HTMLElement} element @param {Item} item
   */
  press(event, element, item) {
    if (event.button !== 0 || this.app.connection !== 'live') return;
    const { clientX, clientY, pointerId } = event;
    /** @param {PointerEvent} move */
    const move = (move) => {
      if (move.pointerId !== pointerId || Math.hypot(move.clientX - clientX, move.clientY - clientY) <= SLOP) return;
      done();
      this.carry.begin(item, 'pointer', move.clientX, move.clientY);
    };
    const done = () => {
      document.removeEventListener('pointermove', move);
      document.removeEventListener('pointerup', done);
      document.removeEventListener('pointercancel', done);
    };
    document.addEventListener('pointermove', move);
    document.addEventListener('pointerup', done);
    document.addEventListener('pointercancel', done);
    if (event.pointerType === 'touch' && element.hasPointerCapture(pointerId)) element.releasePointerCapture(pointerId);
  }

  openFilePicker() {
    this.file.click();
  }

  /** @param {File} file @param {number | null} host that it was dropped on */
  async upload(file, host) {
    const { app } = this;
    this.refuse('');
    if (file.size > LARGEST_UPLOAD) {
      this.refuse(app.t('error.upload-too-large', { name: file.name, most: LARGEST_UPLOAD >> 20 }));
      return;
    }
    const body = new FormData();
    body.append('file', file);
    try {
      const response = await fetch(`/labs/${app.lab}/images`, { method: 'POST', body, headers: { 'X-CSRF-Token': app.csrf } });
      const answer = await response.json();
      if (!answer.ok) this.refuse(`${file.name}: ${app.problemText(answer.error)}`);
      else if (host === null) app.toast({ text: app.t('toast.uploaded', { name: file.name }) });
      else {
        const result = await app.attempt({ type: 'guest.create', host, image: answer.image });
        if (result) app.select({ kind: 'guest', id: result.guest });
      }
    } catch {
      this.refuse(app.t('error.upload-failed', { name: file.name }));
    }
  }

  /** Say at the upload what was wrong with it. @param {string} text */
  refuse(text) {
    if (!this.refusal) return;
    setText(this.refusal, text);
    this.refusal.hidden = text === '';
    if (text) this.refusal.scrollIntoView({ block: 'nearest' });
  }
}
