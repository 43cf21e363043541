/**
 * The pointer's state machine on the canvas. A tool is a state with handlers; an event either is handled there or changes
 * the state. Coordinates are CSS pixels of the canvas. It knows no DOM: `Stage` is what it acts upon, so a test reads as a
 * script (`pointerDown(50, 50)`, `expect(tools.state)`).
 *
 *   idle ──down──> pressing ──up──> (select) idle
 *                     │ moved
 *                     ├─ on a guest ──> carrying ──up──> (dropped by carry.js) idle
 *                     ├─ on a host ───> moving host ──up──> (host.update) idle
 *                     └─ on nothing ──> panning ──up──> idle
 *   any of them ──Escape──> idle, as it was      second finger ──> pinching
 */
import { selectionOf } from '../render/hit.js';

/**
 * @typedef {object} Stage
 * @property {(x: number, y: number) => import('../render/layout.js').Box | null} hit
 * @property {(selection: import('../app.js').Selection | null) => void} select
 * @property {(x: number, y: number) => void} hover
 * @property {(dx: number, dy: number) => void} pan
 * @property {(factor: number, x: number, y: number) => void} zoomAt
 * @property {(box: import('../render/layout.js').Box) => void} zoomTo
 * @property {(host: number, dx: number, dy: number) => void} previewHost
 * @property {(keep: boolean) => void} endPreview  keep: the host stays where it was dragged to
 * @property {(guest: number) => void} carryGuest  from here on the carried guest follows the pointer on the whole page (carry.js)
 * @property {() => void} cancelCarry
 * @typedef {{button?: number, id?: number}} Press  id: of the pointer
 * @typedef {'idle' | 'pressing' | 'panning' | 'moving-host' | 'carrying' | 'pinching'} State
 */

/** How far a press may wander and still be a click, CSS pixels. */
const SLOP = 5;

export class Tools {
  /** @param {Stage} stage */
  constructor(stage) {
    this.stage = stage;
    /** @type {State} */
    this.state = 'idle';
    this.start = { x: 0, y: 0 };
    this.last = { x: 0, y: 0 };
    /** @type {import('../render/layout.js').Box | null} */
    this.pressed = null;
    /** @type {Map<number, {x: number, y: number}>} */
    this.pointers = new Map();
  }

  /** @param {number} x @param {number} y @param {Press} [press] */
  pointerDown(x, y, { button = 0, id = 1 } = {}) {
    this.pointers.set(id, { x, y });
    if (this.pointers.size === 2) {
      this.cancel();
      this.state = 'pinching';
      return;
    }
    if (this.state !== 'idle') return;
    this.start = { x, y };
    this.last = { x, y };
    this.pressed = button === 1 ? null : this.stage.hit(x, y);
    this.state = button === 1 ? 'panning' : button === 0 ? 'pressing' : 'idle';
  }

  /** @param {number} x @param {number} y @param {Press} [press] */
  pointerMove(x, y, { id = 1 } = {}) {
    const previous = this.pointers.get(id);
    if (this.state === 'pinching' && previous) this.pinch(id, previous, x, y);
    if (previous) this.pointers.set(id, { x, y });
    if (this.state === 'idle') this.stage.hover(x, y);
    if (this.state === 'pressing' && Math.hypot(x - this.start.x, y - this.start.y) > SLOP) this.beginDrag();
    if (this.state === 'panning') this.stage.pan(x - this.last.x, y - this.last.y);
    if (this.state === 'moving-host' && this.pressed) this.stage.previewHost(this.pressed.host, x - this.start.x, y - this.start.y);
    this.last = { x, y };
  }

  beginDrag() {
    const { pressed } = this;
    if (pressed?.guest) {
      this.state = 'carrying';
      this.stage.carryGuest(pressed.guest);
    } else this.state = pressed ? 'moving-host' : 'panning';
  }

  /** @param {number} id @param {{x: number, y: number}} previous @param {number} x @param {number} y */
  pinch(id, previous, x, y) {
    const other = [...this.pointers].find(([pointer]) => pointer !== id)?.[1];
    if (!other) return;
    const before = Math.hypot(previous.x - other.x, previous.y - other.y);
    const after = Math.hypot(x - other.x, y - other.y);
    this.stage.pan((x - previous.x) / 2, (y - previous.y) / 2);
    if (before > 0) this.stage.zoomAt(after / before, (x + other.x) / 2, (y + other.y) / 2);
  }

  /** @param {number} x @param {number} y @param {Press} [press] */
  pointerUp(x, y, { id = 1 } = {}) {
    this.pointers.delete(id);
    const { state } = this;
    if (state === 'pinching') {
      if (this.pointers.size === 0) this.state = 'idle';
      return;
    }
    this.state = 'idle';
    if (state === 'pressing') {
      this.stage.select(selectionOf(this.pressed));
    }
    if (state === 'moving-host') this.stage.endPreview(true);
  }

  /** @param {number} x @param {number} y */
  doubleClick(x, y) {
    const box = this.stage.hit(x, y);
    if (box) this.stage.zoomTo(box);
  }

  /** @param {number} x @param {number} y @param {number} dy pixels scrolled */
  wheel(x, y, dy) {
    this.stage.zoomAt(Math.exp(-Math.max(-120, Math.min(120, dy)) * 0.0022), x, y);
  }

  /** Escape, or the browser took the pointer away: nothing of a half-made gesture stays. */
  cancel() {
    const { state } = this;
    this.state = 'idle';
    this.pressed = null;
    if (state === 'moving-host') this.stage.endPreview(false);
    if (state === 'carrying') this.stage.cancelCarry();
  }
}
