/**
 * Where everything is: a pure function from the lab's document and the level of detail to boxes in world coordinates
 * (one unit is a CSS pixel at zoom 1). A host's size never depends on the level, so zooming never moves anything.
 *
 *   host ┌ title ─────────────────────┐
 *        │ guest tiles (user, kernel) │   columns x rows
 *        │ hypervisor                 │   the stack's bands,
 *        │ device model               │   see stacks.js
 *        │ hardware                   │
 *        └────────────────────────────┘
 */
import { layersOf } from '../stacks.js';

/**
 * @typedef {'datacenter' | 'host' | 'stack'} Level
 * @typedef {'host' | 'guest' | 'band' | 'slot' | 'resources'} BoxKind
 * @typedef {{kind: BoxKind, key: string, host: number, guest: number, station: string, x: number, y: number, w: number,
 *            h: number}} Box  guest 0: belongs to the host itself
 * @typedef {{xs: number[], ys: number[], legs: number[]}} Route  points, and at which point each leg (station to station) ends
 * @typedef {{level: Level, boxes: Box[], byKey: Map<string, Box>, routes: Map<string, Route | null>,
 *            bounds: {x: number, y: number, w: number, h: number}}} Scene
 * `slot`: a host that makes room for something being dragged over it; `moved`: a host that is being dragged.
 * @typedef {{slot?: number | null, moved?: {host: number, x: number, y: number} | null}} Preview
 */

export const PAD = 14;
export const GAP = 10;
export const HEADER = 44;
const GUEST_WIDTH = 210;
const GUEST_HEADER = 32;
const USER_HEIGHT = 64;
const KERNEL_HEIGHT = 84;
const GUEST_HEIGHT = GUEST_HEADER + USER_HEIGHT + 6 + KERNEL_HEIGHT + 10;
const BAND_GAP = 12;
/** @type {Record<string, number>} */
const BAND_HEIGHTS = { hypervisor: 82, device_model: 56, host_kernel: 62, driver_domain: 62, vmm: 82, firmware: 62, hardware: 80 };
const HOST_DISTANCE = 48;

/** Guest columns of a host: two at least, then as square as bands allow. @param {number} guests */
function columnsOf(guests) {
  if (guests <= 3) return Math.max(2, guests);
  return Math.ceil(Math.sqrt(guests * 1.5));
}

/** @param {number} places guest tiles and slots @param {import('../stacks.js').Configured} host */
export function hostSize(places, host) {
  const columns = columnsOf(places);
  const rows = Math.max(1, Math.ceil(places / columns));
  const bands = layersOf(host).bands.reduce((sum, band) => sum + BAND_HEIGHTS[band] + BAND_GAP, 0);
  return {
    columns, rows,
    w: 2 * PAD + columns * GUEST_WIDTH + (columns - 1) * GAP,
    h: HEADER + rows * GUEST_HEIGHT + (rows - 1) * GAP + 6 + bands + PAD - 2,
  };
}

/**
 * @param {import('../protocol.js').LabDocument} document
 * @param {Level} level
 * @param {Preview} [preview]
 * @returns {Scene}
 */
export function layout(document, level, preview = {}) {
  /** @type {Box[]} */
  const boxes = [];
  const guestsOf = new Map(document.hosts.map((host) => [host.id, /** @type {import('../protocol.js').Guest[]} */ ([])]));
  for (const guest of document.guests) guestsOf.get(guest.host)?.push(guest);
  /** @type {Box[]} */
  const placed = [];
  for (const host of [...document.hosts].sort((a, b) => a.y - b.y || a.x - b.x || a.id - b.id)) {
    const guests = guestsOf.get(host.id) ?? [];
    const slots = preview.slot === host.id ? 1 : 0;
    const size = hostSize(guests.length + slots, host);
    const moved = preview.moved?.host === host.id ? preview.moved : null;
    /** @type {Box} */
    const box = {
      kind: 'host', key: `host:${host.id}`, host: host.id, guest: 0, station: '', x: moved?.x ?? host.x, y: moved?.y ?? host.y,
      w: size.w, h: size.h,
    };
    if (!moved) {
      avoid(box, placed);
      placed.push(box);
    }
    boxes.push(box);
    if (level !== 'datacenter') fillHost(boxes, box, host, guests, slots, size, level);
  }
  const byKey = new Map(boxes.map((box) => [box.key, box]));
  return { level, boxes, byKey, routes: new Map(), bounds: boundsOf(boxes) };
}

/** Hosts never overlap on the screen, whatever their stored places: a later one moves right. @param {Box} box @param {Box[]} placed */
function avoid(box, placed) {
  for (let moved = true; moved;) {
    moved = false;
    for (const other of placed) {
      const apart = box.x >= other.x + other.w || other.x >= box.x + box.w || box.y >= other.y + other.h || other.y >= box.y + box.h;
      if (apart) continue;
      box.x = other.x + other.w + HOST_DISTANCE;
      moved = true;
    }
  }
}

/**
 * @param {Box[]} boxes @param {Box} box @param {import('../protocol.js').Host} host
 * @param {import('../protocol.js').Guest[]} guests @param {number} slots
 * @param {{columns: number, rows: number}} size @param {Level} level
 */
function fillHost(boxes, box, host, guests, slots, size, level) {
  const left = box.x + PAD;
  const inner = box.w - 2 * PAD;
  const alone = guests.length + slots === 1;
  const width = alone ? inner : GUEST_WIDTH;
  const top = box.y + HEADER;
  for (let i = 0; i < Math.max(1, guests.length + slots); i += 1) {
    const x = left + (i % size.columns) * (GUEST_WIDTH + GAP);
    const y = top + Math.floor(i / size.columns) * (GUEST_HEIGHT + GAP);
    const guest = guests[i];
    if (!guest) {
      const w = guests.length + slots <= 1 ? inner : width;
      boxes.push({ kind: 'slot', key: `slot:${host.id}`, host: host.id, guest: 0, station: '', x, y, w, h: GUEST_HEIGHT });
      continue;
    }
    boxes.push({ kind: 'guest', key: `guest:${guest.id}`, host: host.id, guest: guest.id, station: '', x, y, w: width, h: GUEST_HEIGHT });
    if (level !== 'stack') continue;
    const band = { kind: /** @type {const} */ ('band'), host: host.id, guest: guest.id, x: x + 10, w: width - 20 };
    boxes.push({ ...band, key: `band:${guest.id}:user`, station: 'user', y: y + GUEST_HEADER, h: USER_HEIGHT });
    boxes.push({ ...band, key: `band:${guest.id}:kernel`, station: 'kernel', y: y + GUEST_HEADER + USER_HEIGHT + 6, h: KERNEL_HEIGHT });
  }
  let y = top + size.rows * GUEST_HEIGHT + (size.rows - 1) * GAP + 6 + BAND_GAP;
  if (level === 'host') {
    const h = box.y + box.h - PAD - y;
    boxes.push({ kind: 'resources', key: `resources:${host.id}`, host: host.id, guest: 0, station: '', x: left, y, w: inner, h });
    return;
  }
  for (const station of layersOf(host).bands) {
    const h = BAND_HEIGHTS[station];
    boxes.push({ kind: 'band', key: `band:host${host.id}:${station}`, host: host.id, guest: 0, station, x: left, y, w: inner, h });
    y += h + BAND_GAP;
  }
}

/** @param {Box[]} boxes */
function boundsOf(boxes) {
  if (boxes.length === 0) return { x: 0, y: 0, w: 0, h: 0 };
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const { kind, x, y, w, h } of boxes) {
    if (kind !== 'host') continue;
    left = Math.min(left, x);
    top = Math.min(top, y);
    right = Math.max(right, x + w);
    bottom = Math.max(bottom, y + h);
  }
  return { x: left, y: top, w: right - left, h: bottom - top };
}

/** The band of a station on a trap's path, for one guest. @param {Scene} scene @param {Box} guest @param {string} station */
export function stationBox(scene, guest, station) {
  const kernel = station === 'kernel' || station === 'kernel_deprivileged';
  const key = kernel || station === 'user'
    ? `band:${guest.guest}:${kernel ? 'kernel' : 'user'}`
    : `band:host${guest.host}:${station}`;
  return scene.byKey.get(key);
}

/**
 * The way a trap of one guest travels along its path: down beside the text, back a little further right. Guests that do not stand
 * on the lowest row go round the tiles below them through the gutter at their right.
 * @param {Scene} scene
 * @param {number} guestId
 * @param {number} path the path's id, which also chooses its lane
 * @param {string[]} stations the path's level names
 * @returns {Route | null} null when a station is not drawn at this level of detail
 */
export function route(scene, guestId, path, stations) {
  const key = `${guestId}:${path}`;
  const known = scene.routes.get(key);
  if (known !== undefined) return known;
  const made = makeRoute(scene, guestId, path, stations);
  scene.routes.set(key, made);
  return made;
}

/** @param {Scene} scene @param {number} guestId @param {number} path @param {string[]} stations @returns {Route | null} */
function makeRoute(scene, guestId, path, stations) {
  const guest = scene.byKey.get(`guest:${guestId}`);
  if (!guest || scene.level !== 'stack') return null;
  const lane = guest.x + guest.w * (0.62 + 0.28 * (((path * 5) % 9) / 9));
  const lowest = !scene.boxes.some((box) => box.kind === 'guest' && box.host === guest.host && box.y > guest.y && Math.abs(box.x - guest.x) < 1);
  const gutter = guest.x + guest.w + GAP / 2;
  /** @type {Route} */
  const made = { xs: [], ys: [], legs: [] };
  const middle = (stations.length - 1) / 2;
  stations.forEach((station, index) => {
    const box = stationBox(scene, guest, station);
    if (!box) return;
    const x = lane + (index - middle) * 12;
    const y = box.y + box.h * (box.guest ? 0.55 : 0.16);
    const previous = stations[index - 1];
    const from = previous === undefined ? undefined : stationBox(scene, guest, previous);
    if (from && !lowest && Boolean(from.guest) !== Boolean(box.guest)) {
      const lastY = made.ys.at(-1) ?? y;
      made.xs.push(gutter, gutter);
      made.ys.push(lastY, y);
    }
    made.xs.push(x);
    made.ys.push(y);
    made.legs.push(made.xs.length - 1);
  });
  return made.legs.length === stations.length ? made : null;
}

/**
 * The point at a fraction of a route: every leg takes the same time; `calm` adds a short stay at each station.
 * @param {Route} made @param {number} fraction 0..1 @param {{x: number, y: number}} out receives the point @param {boolean} calm
 */
export function pointOn(made, fraction, out, calm) {
  const { xs, ys, legs } = made;
  const count = legs.length - 1;
  const at = Math.min(Math.max(fraction, 0), 1) * count;
  const leg = Math.min(Math.floor(at), count - 1);
  if (count < 1) {
    out.x = xs[0];
    out.y = ys[0];
    return;
  }
  const t = calm ? Math.min(1, Math.max(0, (at - leg - 0.1) / 0.8)) : at - leg;
  const eased = calm ? t * t * (3 - 2 * t) : t;
  const first = legs[leg];
  const points = legs[leg + 1] - first;
  let length = 0;
  for (let i = first; i < first + points; i += 1) length += Math.abs(xs[i + 1] - xs[i]) + Math.abs(ys[i + 1] - ys[i]);
  let left = length * eased;
  for (let i = first; i < first + points; i += 1) {
    const step = Math.abs(xs[i + 1] - xs[i]) + Math.abs(ys[i + 1] - ys[i]);
    if (left <= step || i === first + points - 1) {
      const part = step > 0 ? Math.min(1, left / step) : 1;
      out.x = xs[i] + (xs[i + 1] - xs[i]) * part;
      out.y = ys[i] + (ys[i + 1] - ys[i]) * part;
      return;
    }
    left -= step;
  }
}
