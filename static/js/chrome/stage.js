/**
 * Joins the canvas to pointer and keyboard: browser events become the tools' script, and what the tools decide becomes camera
 * moves, selections and commands.
 */
import { byId, setAttribute } from '../dom.js';
import { Tools } from '../tools/tools.js';

/** @typedef {import('../app.js').App} App */

/** A tooltip waits this long, so that it does not follow every move, ms. */
const TIP_MS = 350;

export class Stage {
  /**
   * @param {App} app
   * @param {import('../render/canvas.js').CanvasView} view
   * @param {import('../tools/carry.js').Carry} carry
   * @param {import('./overlay.js').Overlay} overlay
   */
  constructor(app, view, carry, overlay) {
    this.app = app;
    this.view = view;
    this.carry = carry;
    this.overlay = overlay;
    this.canvas = byId('canvas');
    /** @type {{host: number, x: number, y: number, fromX: number, fromY: number} | null} a host that is being dragged */
    this.moved = null;
    this.tipTimer = 0;
    this.tools = new Tools({
      hit: (x, y) => view.hit(x, y),
      select: (selection) => app.select(selection),
      hover: (x, y) => view.hover(x, y),
      pan: (dx, dy) => {
        view.camera.pan(dx, dy);
        view.touch('ground', 'live', 'particles');
      },
      zoomAt: (factor, x, y) => view.zoom(factor, x, y),
      zoomTo: (box) => view.zoomTo(box),
      previewHost: (host, dx, dy) => this.previewHost(host, dx, dy),
      endPreview: (keep) => this.endPreview(keep),
      carryGuest: (guest) => {
        if (app.connection === 'live') carry.begin({ kind: 'guest', id: guest }, 'pointer');
      },
      cancelCarry: () => carry.cancel(),
    });
    this.pointer();
    this.carrying();
    document.addEventListener('keydown', (event) => this.captured(event), true);
    this.canvas.addEventListener('keydown', (event) => this.key(event));
    this.canvas.addEventListener('focus', () => { if (this.canvas.matches(':focus-visible') && !app.selection) this.walk(1); });
    const label = () => setAttribute(this.canvas, 'aria-label', app.t('stage.label', {
      hosts: app.store.document?.hosts.length ?? 0, guests: app.store.document?.guests.length ?? 0,
    }));
    app.store.on('document', label);
    app.on('language', label);
    label();
  }

  /** @param {MouseEvent} event @returns {[x: number, y: number]} CSS pixels of the canvas */
  place(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  pointer() {
    const { canvas, tools, view } = this;
    canvas.addEventListener('pointerdown', (event) => {
      if (this.carry.load?.via === 'keyboard') {
        this.dropByClick(event);
        return;
      }
      canvas.setPointerCapture(event.pointerId);
      this.hideTip();
      tools.pointerDown(...this.place(event), { button: event.button, id: event.pointerId });
    });
    canvas.addEventListener('pointermove', (event) => {
      tools.pointerMove(...this.place(event), { id: event.pointerId });
      canvas.dataset.tool = tools.state;
      if (tools.state === 'idle' && !this.carry.load) this.scheduleTip(event);
    });
    canvas.addEventListener('pointerup', (event) => {
      tools.pointerUp(...this.place(event), { id: event.pointerId });
      canvas.dataset.tool = tools.state;
    });
    canvas.addEventListener('pointercancel', () => tools.cancel());
    canvas.addEventListener('pointerleave', () => {
      this.hideTip();
      view.hover(-1e6, -1e6);
    });
    canvas.addEventListener('dblclick', (event) => tools.doubleClick(...this.place(event)));
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      this.hideTip();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
      if (event.shiftKey) tools.stage.pan(-(event.deltaX || event.deltaY) * lines, 0);
      else tools.wheel(...this.place(event), event.deltaY * lines * (event.ctrlKey ? 4 : 1));
    }, { passive: false });
  }

  /** A load under the pointer is followed on the whole page, wherever the drag began. */
  carrying() {
    const { carry } = this;
    /** @param {PointerEvent} event */
    const move = (event) => {
      const [x, y] = this.place(event);
      const inside = this.isInside(event);
      const box = inside ? this.view.hit(x, y) : null;
      carry.over(box?.host ?? this.comparing(event), inside);
      carry.at(event.clientX, event.clientY);
    };
    /** @param {PointerEvent} event */
    const up = (event) => {
      move(event);
      const [x, y] = this.place(event);
      void carry.drop({ x: this.view.camera.worldX(x), y: this.view.camera.worldY(y) });
    };
    const cancel = () => carry.cancel();
    carry.on('begin', (load) => {
      this.hideTip();
      if (load.via !== 'pointer') return;
      document.addEventListener('pointermove', move);
      document.addEventListener('pointerup', up);
      document.addEventListener('pointercancel', cancel);
    });
    carry.on('change', (load) => {
      if (load?.via === 'keyboard' && typeof load.target === 'number') this.view.reveal({ kind: 'host', id: load.target });
    });
    carry.on('end', () => {
      document.removeEventListener('pointermove', move);
      document.removeEventListener('pointerup', up);
      document.removeEventListener('pointercancel', cancel);
    });
  }

  /** A workload can also be let go on the button of the Compare screen. @param {MouseEvent} event */
  comparing(event) {
    if (this.carry.load?.item.kind !== 'workload') return null;
    return document.elementFromPoint(event.clientX, event.clientY)?.closest('[data-action="compare"]') ? 'compare' : null;
  }

  /** @param {MouseEvent} event */
  isInside(event) {
    const { left, top, right, bottom } = this.canvas.getBoundingClientRect();
    return event.clientX >= left && event.clientX < right && event.clientY >= top && event.clientY < bottom;
  }

  /** A guest that was picked up by "move to" can also be put down with a click. @param {PointerEvent} event */
  dropByClick(event) {
    const box = this.view.hit(...this.place(event));
    if (box) this.carry.over(box.host, true);
    void this.carry.drop({ x: 0, y: 0 });
  }

  /** @param {number} host @param {number} dx @param {number} dy screen */
  previewHost(host, dx, dy) {
    const box = this.view.scene.byKey.get(`host:${host}`);
    if (!box) return;
    const { fromX, fromY } = this.moved ?? { fromX: box.x, fromY: box.y };
    const { scale } = this.view.camera;
    this.moved = { host, x: fromX + dx / scale, y: fromY + dy / scale, fromX, fromY };
    this.view.preview.moved = this.moved;
    this.view.relayout();
  }

  /** @param {boolean} keep */
  endPreview(keep) {
    const { moved, app, view } = this;
    this.moved = null;
    const settle = () => {
      view.preview.moved = null;
      view.relayout();
    };
    if (!keep || !moved) {
      settle();
      return;
    }
    void app.attempt({ type: 'host.update', host: moved.host, x: Math.round(moved.x), y: Math.round(moved.y) }).then(settle);
  }

  // -- keyboard --------------------------------------------------------------------------------------

  /** While something is carried its keys go before all others. @param {KeyboardEvent} event */
  captured(event) {
    const { carry, tools } = this;
    if (event.key === 'Escape' && (carry.load || tools.state !== 'idle')) {
      event.preventDefault();
      event.stopPropagation();
      tools.cancel();
      carry.cancel();
      return;
    }
    if (carry.load?.via !== 'keyboard') return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step !== undefined) carry.next(/** @type {1 | -1} */ (step));
    else if (event.key === ' ' || event.key === 'Enter') void carry.drop(this.freePlace());
    else if (event.key === 'Tab') carry.cancel();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Where a host goes that was placed by keyboard: right of all the others. */
  freePlace() {
    const { bounds } = this.view.scene;
    return { x: bounds.w ? bounds.x + bounds.w + 60 : 0, y: bounds.y };
  }

  /** Keys of the focused canvas. @param {KeyboardEvent} event */
  key(event) {
    const { app, view, carry } = this;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const { selection } = app;
    if (step !== undefined) this.walk(/** @type {1 | -1} */ (step));
    else if (event.key === ' ' && selection?.kind === 'guest') carry.begin({ kind: 'guest', id: selection.id }, 'keyboard');
    else if (event.key === 'Enter' && selection) {
      const box = view.scene.byKey.get(`host:${selection.kind === 'host' ? selection.id : app.store.guest(selection.id)?.host}`);
      if (box) view.zoomTo(box);
    } else if (event.key === 'Escape') app.select(null);
    else return;
    event.preventDefault();
  }

  /** The next or previous object, hosts before their guests. @param {1 | -1} step */
  walk(step) {
    const { app } = this;
    const lab = app.store.document;
    if (!lab) return;
    const order = lab.hosts.flatMap((host) => [
      { kind: /** @type {const} */ ('host'), id: host.id, name: host.name },
      ...app.store.guestsOf(host.id).map((guest) => ({ kind: /** @type {const} */ ('guest'), id: guest.id, name: guest.name })),
    ]);
    if (order.length === 0) return;
    const at = order.findIndex(({ kind, id }) => app.selection?.kind === kind && app.selection.id === id);
    const next = order[at < 0 ? (step > 0 ? 0 : order.length - 1) : (at + step + order.length) % order.length];
    app.select({ kind: next.kind, id: next.id });
    this.view.reveal(next);
    app.announce(app.t(next.kind === 'host' ? 'announce.host' : 'announce.guest', { name: next.name }));
  }

  // -- tooltips --------------------------------------------------------------------------------------

  /** @param {PointerEvent} event */
  scheduleTip(event) {
    const { clientX, clientY } = event;
    clearTimeout(this.tipTimer);
    const tip = this.view.tip();
    if (tip?.key.startsWith('trap:')) {
      this.overlay.showTip(tip, clientX, clientY);
      return;
    }
    this.overlay.showTip(null, 0, 0);
    this.tipTimer = window.setTimeout(() => this.overlay.showTip(this.view.tip(), clientX, clientY), TIP_MS);
  }

  hideTip() {
    clearTimeout(this.tipTimer);
    this.overlay.showTip(null, 0, 0);
  }
}
