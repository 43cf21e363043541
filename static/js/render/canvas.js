/**
 * The canvas: three stacked 2D layers over one scene, each redrawn only when it is dirty.
 *   ground     boxes and titles     document, theme, camera, level of detail
 *   live       figures, selection   ticks, hover, drags
 *   particles  traps under way      every frame while there are any
 * Everything that moves comes from records and counters of the engine (see store.js); the canvas invents nothing.
 */
import { DISPOSITION_MARKS } from '../marks.js';
import { SHAPES } from '../shapes/index.js';
import { drawMark } from '../shapes/host.js';
import { Brush } from './brush.js';
import { Camera } from './camera.js';
import { hit } from './hit.js';
import { Lanes } from './lanes.js';
import { layout, route } from './layout.js';
import { Particles, travelMs } from './particles.js';
import { Words } from './words.js';

/** @typedef {import('./layout.js').Box} Box */
/** @typedef {import('../records.js').TrapRecord} TrapRecord */

/** Ticks come ten times a second; traps of one tick set out over this time, ms. */
const TICK_MS = 100;
const SPRITE = 26;

export class CanvasView {
  /**
   * @param {import('../app.js').App} app
   * @param {import('./scheduler.js').Scheduler} scheduler
   * @param {import('../tools/carry.js').Carry} carry
   * @param {HTMLElement} root holds the three canvases
   */
  constructor(app, scheduler, carry, root) {
    this.app = app;
    this.scheduler = scheduler;
    this.carry = carry;
    this.root = root;
    this.camera = new Camera();
    this.words = new Words(app);
    this.particles = new Particles();
    this.lanes = new Lanes();
    const layers = /** @type {const} */ (['ground', 'live', 'particles']);
    const contexts = layers.map((name) => {
      const canvas = /** @type {HTMLCanvasElement} */ (root.querySelector(`#layer-${name}`));
      return /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: name !== 'ground' }));
    });
    this.ground = new Brush(contexts[0], app, this.camera);
    this.live = new Brush(contexts[1], app, this.camera);
    this.moving = new Brush(contexts[2], app, this.camera);
    this.dirty = { ground: true, live: true, particles: true };
    /** @type {import('./layout.js').Scene} */
    this.scene = layout({ name: '', hosts: [], guests: [], images: [], speed: '10', unit: 'trap', running: false, undo: null, redo: null, link_gbit: 10, costs: { profile: '', overrides: {} } }, 'stack');
    this.layoutDirty = true;
    /** @type {import('./layout.js').Preview} */
    this.preview = {};
    /** @type {Box | null} */
    this.hovered = null;
    /** @type {import('./particles.js').Particle | null} */
    this.hoveredParticle = null;
    this.pixelRatio = 1;
    /** @type {HTMLCanvasElement[]} */
    this.sprites = [];
    /** @type {string[][]} */
    this.paths = [];
    this.drawn = { x: 0, y: 0, w: 0, h: 0 };
    /** @type {Map<number, number>} by guest, traps a second that are not drawn one by one */
    this.unseen = new Map();
    /** @type {Map<string, number>} until when a band shines for a reader who wants no motion, ms */
    this.shining = new Map();
    this.stillness = matchMedia('(prefers-reduced-motion: reduce)');
    this.stillness.addEventListener('change', () => this.settle());
    this.settle();
    /** @type {import('../shapes/index.js').Scenery} */
    this.scenery = {
      level: 'stack',
      selected: (box) => app.selection?.kind === box.kind && app.selection.id === (box.guest || box.host),
      hovered: (box) => this.hovered !== null && (box.kind === 'guest' ? this.hovered.guest === box.guest : this.hovered === box),
      carried: (box) => carry.load?.item.kind === 'guest' && carry.load.item.id === box.guest,
      verdict: (host) => (carry.load?.target === host ? carry.load.verdict : null),
      words: this.words,
    };
    new ResizeObserver(() => this.resize()).observe(root);
    this.resize();
    scheduler.onUpdate((now, elapsed) => this.update(now, elapsed));
    scheduler.onDraw(() => this.draw());
    this.listen();
  }

  listen() {
    const { app, carry } = this;
    app.store.on('document', () => this.relayout());
    app.store.on('keyframe', () => {
      const { schema } = app.store;
      this.paths = schema.paths.map((path) => path.map((level) => schema.levels[level].name));
      this.particles.clear();
      this.lanes.begin(app.store.migrations.values());
      this.words.forget();
      this.makeSprites();
      this.relayout();
    });
    for (const event of /** @type {const} */ (['tick', 'quiet'])) app.store.on(event, () => this.touch('live'));
    app.store.on('traps', (traps) => this.spawn(traps));
    app.store.on('migration', (row) => {
      this.lanes.hear(row, performance.now());
      this.touch('particles');
    });
    app.on('selection', () => this.touch('live'));
    app.on('theme', () => {
      this.makeSprites();
      this.relayout();
    });
    app.on('language', () => {
      this.words.forget();
      for (const brush of [this.ground, this.live, this.moving]) brush.forget();
      this.relayout();
    });
    carry.on('change', () => {
      const { item, target: over } = carry.load ?? { item: null, target: null };
      const target = (item?.kind === 'image' || item?.kind === 'guest' || item?.kind === 'workload') && over !== 'compare' ? over : null;
      const already = carry.load?.item.kind === 'guest' && app.store.guest(carry.load.item.id)?.host === target;
      const slot = already ? null : target;
      if (slot === (this.preview.slot ?? null)) this.touch('ground', 'live');
      else {
        this.preview.slot = slot;
        this.relayout();
      }
    });
    void document.fonts.ready.then(() => {
      for (const brush of [this.ground, this.live, this.moving]) brush.forget();
      this.relayout();
    });
  }

  settle() {
    this.camera.eased = !this.stillness.matches;
    this.particles.clear();
  }

  /** @param {...('ground' | 'live' | 'particles')} layers */
  touch(...layers) {
    for (const layer of layers) this.dirty[layer] = true;
    this.scheduler.invalidate();
  }

  relayout() {
    this.layoutDirty = true;
    this.touch('ground', 'live', 'particles');
  }

  resize() {
    const { width, height } = this.root.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const first = this.camera.width === 1;
    this.pixelRatio = ratio;
    this.camera.width = Math.max(1, width);
    this.camera.height = Math.max(1, height);
    for (const { context } of [this.ground, this.live, this.moving]) {
      context.canvas.width = Math.max(1, Math.round(width * ratio));
      context.canvas.height = Math.max(1, Math.round(height * ratio));
    }
    if (first) this.fit(true);
    this.makeSprites();
    this.relayout();
    this.scheduler.invalidate();
  }

  /** One small picture for each disposition: its mark with a glow. */
  makeSprites() {
    if (!this.app.store.reader || !this.app.parts) return;
    const size = SPRITE * this.pixelRatio;
    this.sprites = this.app.store.schema.dispositions.map((name) => {
      const canvas = document.createElement('canvas');
      canvas.width = size;
      canvas.height = size;
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
      const colour = this.app.page.colour(`--disposition-${name}`);
      context.scale(this.pixelRatio, this.pixelRatio);
      const glow = context.createRadialGradient(SPRITE / 2, SPRITE / 2, 2, SPRITE / 2, SPRITE / 2, SPRITE / 2);
      glow.addColorStop(0, colour);
      glow.addColorStop(1, `${colour}00`);
      context.globalAlpha = 0.4;
      context.fillStyle = glow;
      context.fillRect(0, 0, SPRITE, SPRITE);
      context.globalAlpha = 1;
      drawMark(context, DISPOSITION_MARKS[name], SPRITE / 2 - 5.5, SPRITE / 2 - 5.5, 11, colour);
      return canvas;
    });
  }

  // -- the camera ----------------------------------------------------------------------------------

  /** @param {boolean} [atOnce] */
  fit(atOnce = false) {
    this.ensureScene();
    this.camera.fit(this.scene.bounds);
    if (atOnce) this.camera.jump();
    this.touch('ground', 'live', 'particles');
  }

  /** @param {number} factor @param {number} [x] @param {number} [y] */
  zoom(factor, x = this.camera.width / 2, y = this.camera.height / 2) {
    this.camera.zoomAt(factor, x, y);
    this.scheduler.invalidate();
  }

  /** All of the lab where the level's zooms allow, else the host of the selection or the one in the middle. @param {import('./layout.js').Level} level */
  showLevel(level) {
    const { camera, scene } = this;
    const { bounds } = scene;
    camera.showLevel(level, bounds);
    const { scale } = camera.target;
    if (bounds.w * scale > camera.width || bounds.h * scale > camera.height) {
      const box = this.selectedHost() ?? this.middleHost();
      if (box) camera.showLevel(level, box);
    }
    this.scheduler.invalidate();
  }

  selectedHost() {
    const { selection, store } = this.app;
    const host = selection?.kind === 'guest' ? store.guest(selection.id)?.host : selection?.id;
    return this.scene.byKey.get(`host:${host}`);
  }

  middleHost() {
    const away = (/** @type {Box} */ box) => Math.hypot(box.x + box.w / 2 - this.camera.x, box.y + box.h / 2 - this.camera.y);
    return this.scene.boxes.filter((box) => box.kind === 'host').sort((a, b) => away(a) - away(b))[0];
  }

  /** @param {Box} box */
  zoomTo(box) {
    const host = this.scene.byKey.get(`host:${box.host}`);
    if (!host) return;
    this.camera.fit(host);
    this.scheduler.invalidate();
  }

  /** Bring an object into view when it is outside. @param {import('../app.js').Selection} selection */
  reveal(selection) {
    this.ensureScene();
    const key = this.scene.level === 'datacenter' && selection.kind === 'guest'
      ? `host:${this.app.store.guest(selection.id)?.host}`
      : `${selection.kind}:${selection.id}`;
    const box = this.scene.byKey.get(key);
    if (!box) return;
    const { camera } = this;
    const left = (box.x - camera.target.x) * camera.target.scale + camera.width / 2;
    const top = (box.y - camera.target.y) * camera.target.scale + camera.height / 2;
    const right = left + box.w * camera.target.scale;
    const bottom = top + box.h * camera.target.scale;
    const dx = left < 16 ? 16 - left : right > camera.width - 16 ? camera.width - 16 - right : 0;
    const dy = top < 16 ? 16 - top : bottom > camera.height - 16 ? camera.height - 16 - bottom : 0;
    camera.target.x -= dx / camera.target.scale;
    camera.target.y -= dy / camera.target.scale;
    this.scheduler.invalidate();
  }

  /** @param {number} x @param {number} y CSS pixels of the canvas */
  hit(x, y) {
    this.ensureScene();
    return hit(this.scene, this.camera.worldX(x), this.camera.worldY(y));
  }

  /** @param {number} x @param {number} y CSS pixels of the canvas */
  hover(x, y) {
    const { camera } = this;
    const particle = this.particles.at(camera.worldX(x), camera.worldY(y), 11 / camera.scale);
    const box = this.hit(x, y);
    if (particle !== this.hoveredParticle) this.touch('particles');
    if (box?.key !== this.hovered?.key) this.touch('live');
    this.hoveredParticle = particle;
    this.hovered = box;
  }

  /** @returns {{key: string, lines: string[]} | null} what to say about the thing under the pointer */
  tip() {
    if (this.hoveredParticle?.alive) {
      const { trap } = this.hoveredParticle;
      return { key: `trap:${trap.guest}:${trap.sequence}`, lines: this.words.tip(trap) };
    }
    const box = this.hovered;
    const lines = box ? (SHAPES.get(box.kind)?.tip(this.app, box) ?? []) : [];
    return box && lines.length ? { key: box.key, lines } : null;
  }

  // -- a frame -------------------------------------------------------------------------------------

  ensureScene() {
    const { document } = this.app.store;
    const { level } = this.camera;
    if (!document || (!this.layoutDirty && this.scene.level === level)) return;
    this.layoutDirty = false;
    this.scene = layout(document, level, this.preview);
    this.scenery.level = level;
    if (this.hovered) this.hovered = this.scene.byKey.get(this.hovered.key) ?? null;
    this.touch('ground', 'live', 'particles');
  }

  /** @param {TrapRecord[]} traps */
  spawn(traps) {
    const { document } = this.app.store;
    if (!document || this.scene.level !== 'stack') return;
    const { slow } = this.words;
    const now = performance.now();
    if (this.stillness.matches) {
      for (const trap of traps.slice(-8)) this.shine(trap, now);
      return;
    }
    const duration = travelMs(document.speed);
    traps.forEach((trap, index) => this.particles.add(trap, now + (TICK_MS * index) / traps.length, duration, slow));
    this.touch('particles');
  }

  /** @param {TrapRecord} trap @param {number} now ms */
  shine(trap, now) {
    const made = route(this.scene, trap.guest, trap.path, this.paths[trap.path]);
    if (!made) return;
    const disposition = this.app.store.schema.dispositions[trap.disposition];
    for (const point of made.legs) {
      const box = hit(this.scene, made.xs[point], made.ys[point]);
      if (box) this.shining.set(`${box.key}|${disposition}`, now + 400);
    }
    this.touch('particles');
  }

  /** @param {number} now @param {number} elapsed @returns {boolean} */
  update(now, elapsed) {
    const moved = this.camera.advance(elapsed);
    if (moved) this.touch('ground', 'live', 'particles');
    this.ensureScene();
    if (this.particles.count > 0) {
      this.particles.advance(now, this.scene, this.paths);
      this.dirty.particles = true;
    }
    const streaming = this.lanes.shown.size > 0;
    const lanesMove = this.lanes.advance(now, this.app.store.running);
    if (streaming) this.dirty.particles = true;
    const under = String(this.particles.count > 0);
    if (this.root.dataset.moving !== under) this.root.dataset.moving = under;
    for (const [key, until] of this.shining) if (until <= now) this.shining.delete(key);
    if (this.shining.size > 0) this.dirty.particles = true;
    return moved || (lanesMove && !this.stillness.matches) || this.particles.count > 0 || this.shining.size > 0;
  }

  draw() {
    if (!this.app.parts) return;
    if (this.dirty.ground) this.drawGround();
    if (!this.app.store.document) return;
    if (this.dirty.live) this.drawLive();
    if (this.dirty.particles) this.drawParticles();
    this.dirty.ground = this.dirty.live = this.dirty.particles = false;
  }

  /** @param {Brush} brush */
  start(brush) {
    brush.context.setTransform(this.pixelRatio, 0, 0, this.pixelRatio, 0, 0);
    brush.begin();
  }

  drawGround() {
    const { ground: brush, camera } = this;
    this.start(brush);
    const { context } = brush;
    context.fillStyle = brush.colour('--canvas');
    context.fillRect(0, 0, camera.width, camera.height);
    this.drawDots(context, brush.colour('--dot'));
    for (const box of this.scene.boxes) if (brush.place(box)) SHAPES.get(box.kind)?.ground(brush, box, this.scenery);
  }

  /** @param {CanvasRenderingContext2D} context @param {string} colour */
  drawDots(context, colour) {
    const { camera } = this;
    let step = 24 * camera.scale;
    while (step < 14) step *= 2;
    const left = (((camera.width / 2 - camera.x * camera.scale) % step) + step) % step;
    const top = (((camera.height / 2 - camera.y * camera.scale) % step) + step) % step;
    context.fillStyle = colour;
    context.beginPath();
    for (let y = top; y < camera.height; y += step) for (let x = left; x < camera.width; x += step) context.rect(Math.round(x), Math.round(y), 1.5, 1.5);
    context.fill();
  }

  drawLive() {
    const { live: brush, camera } = this;
    this.start(brush);
    brush.context.clearRect(0, 0, camera.width, camera.height);
    for (const box of this.scene.boxes) if (brush.place(box)) SHAPES.get(box.kind)?.live(brush, box, this.scenery);
    if (this.scene.level === 'stack') this.drawStreams(brush);
  }

  /** The ways that traps take, as dotted lines: the brighter and thicker, the more of them. @param {Brush} brush */
  drawStreams(brush) {
    const { context } = brush;
    const { camera } = this;
    const { store } = this.app;
    const { dispositions } = store.schema;
    context.lineCap = 'round';
    this.unseen.clear();
    for (const flow of store.flows.values()) {
      this.unseen.set(flow.guest, (this.unseen.get(flow.guest) ?? 0) + flow.rate - flow.sampled);
      const made = route(this.scene, flow.guest, flow.path, this.paths[flow.path]);
      if (!made || flow.rate < 0.2) continue;
      const strength = Math.min(1, Math.log10(1 + flow.rate) / 5);
      const colour = brush.colour(`--disposition-${dispositions[flow.disposition]}`);
      context.strokeStyle = colour;
      context.globalAlpha = 0.35 + 0.5 * strength;
      context.lineWidth = 1.2 + 2.4 * strength;
      context.setLineDash([2, 5]);
      context.beginPath();
      for (let i = 0; i < made.xs.length; i += 1) {
        const x = (made.xs[i] - camera.x) * camera.scale + camera.width / 2;
        const y = (made.ys[i] - camera.y) * camera.scale + camera.height / 2;
        if (i === 0) context.moveTo(x, y);
        else context.lineTo(x, y);
      }
      context.stroke();
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
    for (const [guest, unseen] of this.unseen) {
      const box = this.scene.byKey.get(`guest:${guest}`);
      if (unseen >= 5 && box && brush.place(box)) this.drawUnseen(brush, unseen);
    }
  }

  /** How many more traps happen than are drawn one by one, under the guest's tile. @param {Brush} brush @param {number} unseen */
  drawUnseen(brush, unseen) {
    const size = brush.type('code', 10.5, 600);
    const text = this.app.t('figure.unseen', { rate: this.app.i18n.compact(unseen) });
    const width = Math.min(brush.w, brush.context.measureText(text).width + 10);
    const left = brush.x + Math.round(8 * this.camera.scale);
    const top = brush.y + brush.h + 1;
    brush.context.fillStyle = brush.colour('--label');
    brush.context.beginPath();
    brush.context.roundRect(left, top, width, size * 1.5, 3);
    brush.context.fill();
    brush.text(text, left + 5, top + size * 1.1, width - 6, brush.colour('--soft'));
  }

  drawParticles() {
    const { moving: brush, camera, particles } = this;
    this.start(brush);
    const { context } = brush;
    context.clearRect(this.drawn.x, this.drawn.y, this.drawn.w, this.drawn.h);
    let [left, top, right, bottom] = [camera.width, camera.height, 0, 0];
    const size = SPRITE * Math.min(1.2, Math.max(0.7, camera.scale)) * (this.words.slow ? 1 : 0.62);
    const half = size / 2;
    let labels = false;
    for (let i = 0; i < particles.count; i += 1) {
      const particle = particles.pool[i];
      if (!particle.alive) continue;
      const x = (particle.x - camera.x) * camera.scale + camera.width / 2;
      const y = (particle.y - camera.y) * camera.scale + camera.height / 2;
      if (x < -half || y < -half || x > camera.width + half || y > camera.height + half) continue;
      context.drawImage(this.sprites[particle.trap.disposition], x - half, y - half, size, size);
      left = Math.min(left, x - half);
      top = Math.min(top, y - half);
      right = Math.max(right, x + half);
      bottom = Math.max(bottom, y + half);
      labels = labels || particle.labelled || particle === this.hoveredParticle;
    }
    if (labels) {
      /** @type {{left: number, top: number, right: number, bottom: number}[]} */
      const taken = [];
      if (this.hoveredParticle?.alive) this.drawLabel(brush, this.hoveredParticle, taken);
      for (let i = particles.count - 1; i >= 0; i -= 1) {
        const particle = particles.pool[i];
        if (particle.alive && particle.labelled && particle !== this.hoveredParticle) this.drawLabel(brush, particle, taken);
      }
    }
    for (const key of this.shining.keys()) this.drawShine(brush, key);
    this.lanes.draw(brush, this.scene, performance.now(), this.stillness.matches);
    this.drawn = labels || this.lanes.shown.size > 0 || this.shining.size > 0
      ? { x: 0, y: 0, w: camera.width, h: camera.height }
      : { x: left - 2, y: top - 2, w: Math.max(0, right - left + 4), h: Math.max(0, bottom - top + 4) };
  }

  /** @param {Brush} brush @param {string} key of `shining` */
  drawShine(brush, key) {
    const [boxKey, disposition] = key.split('|');
    const box = this.scene.byKey.get(boxKey);
    if (box && brush.place(box)) brush.rectangle(null, brush.colour(`--disposition-${disposition}`), { radius: 5, width: 2.5 });
  }

  /**
   * What a trap is, beside it; nothing where a newer one's label stands.
   * @param {Brush} brush @param {import('./particles.js').Particle} particle
   * @param {{left: number, top: number, right: number, bottom: number}[]} taken by labels of this frame
   */
  drawLabel(brush, particle, taken) {
    const { context } = brush;
    const { camera } = this;
    const [title, what] = this.words.label(particle.trap);
    const disposition = this.app.store.schema.dispositions[particle.trap.disposition];
    const x = Math.round((particle.x - camera.x) * camera.scale + camera.width / 2);
    const y = Math.round((particle.y - camera.y) * camera.scale + camera.height / 2);
    const room = 250 * brush.size;
    const line = brush.type('text', 11, 600);
    const shortTitle = brush.fit(title, room);
    const titleWidth = context.measureText(shortTitle).width;
    brush.type('code', 10.5);
    const shortWhat = brush.fit(what, room);
    const width = Math.max(titleWidth, context.measureText(shortWhat).width) + 14;
    const height = line * 2.9;
    const left = x + 14 + width > camera.width ? x - 14 - width : x + 14;
    const top = Math.min(Math.max(4, y - height / 2), camera.height - height - 4);
    if (taken.some((other) => left < other.right && left + width > other.left && top < other.bottom && top + height > other.top)) return;
    taken.push({ left, top, right: left + width, bottom: top + height });
    context.fillStyle = brush.colour('--label');
    context.strokeStyle = brush.colour(`--disposition-${disposition}`);
    context.lineWidth = 1;
    context.beginPath();
    context.roundRect(left + 0.5, top + 0.5, width, height, 4);
    context.fill();
    context.stroke();
    brush.text(what, left + 7, top + line * 2.4, room, brush.colour('--soft'));
    brush.type('text', 11, 600);
    brush.text(title, left + 7, top + line * 1.2, room, brush.colour('--ink'));
  }
}
