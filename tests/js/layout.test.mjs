/** The scene: where boxes are, what is under a point, how a trap travels, what the camera shows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Camera } from '../../static/js/render/camera.js';
import { hit, selectionOf } from '../../static/js/render/hit.js';
import { layout, pointOn, route } from '../../static/js/render/layout.js';
import { Particles } from '../../static/js/render/particles.js';
import { labDocument, SCHEMA } from './lab.mjs';

const LEVELS = /** @type {const} */ (['datacenter', 'host', 'stack']);
/** @typedef {import('../../static/js/render/layout.js').Box} Box */
/** @param {Box} a @param {Box} b */
const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
/** @param {Box} outer @param {Box} inner */
const inside = (outer, inner) => inner.x >= outer.x && inner.y >= outer.y && inner.x + inner.w <= outer.x + outer.w && inner.y + inner.h <= outer.y + outer.h;

/** @param {number} hosts @param {number} each */
function crowd(hosts, each) {
  const document = labDocument();
  document.hosts = Array.from({ length: hosts }, (_, i) => ({ ...document.hosts[0], id: i + 1, x: (i % 3) * 100, y: 0 }));
  document.guests = Array.from({ length: hosts * each }, (_, i) => ({ ...document.guests[0], id: i + 1, host: Math.floor(i / each) + 1 }));
  return document;
}

test('a host has the same place and size at every level of detail', () => {
  const places = LEVELS.map((level) => layout(labDocument(), level).boxes.filter((box) => box.kind === 'host').map(({ x, y, w, h }) => [x, y, w, h]));
  assert.deepEqual(places[0], places[1]);
  assert.deepEqual(places[1], places[2]);
});

test('everything of a host lies inside it and nothing overlaps its peers', () => {
  for (const guests of [0, 1, 2, 3, 5, 12, 40]) {
    const scene = layout(crowd(1, guests), 'stack');
    const [host] = scene.boxes;
    const tiles = scene.boxes.filter((box) => box.kind === 'guest' || box.kind === 'slot' || (box.kind === 'band' && !box.guest));
    for (const box of scene.boxes) assert.ok(inside(host, box), `${box.key} with ${guests} guests`);
    tiles.forEach((a, i) => tiles.slice(i + 1).forEach((b) => assert.ok(!overlap(a, b), `${a.key} and ${b.key} with ${guests} guests`)));
    assert.equal(scene.boxes.filter((box) => box.kind === 'guest').length, guests);
  }
});

test('hosts never overlap, whatever their stored places', () => {
  const hosts = layout(crowd(9, 2), 'datacenter').boxes;
  hosts.forEach((a, i) => hosts.slice(i + 1).forEach((b) => assert.ok(!overlap(a, b))));
});

test('a host that something is dragged over makes room', () => {
  const scene = layout(labDocument(), 'stack', { slot: 1 });
  assert.ok(scene.byKey.get('slot:1'));
  assert.ok(layout(labDocument(), 'stack').byKey.get('slot:2'), 'an empty host always shows its room');
});

test('the innermost box is hit; a band selects its guest, a host’s band its host', () => {
  const scene = layout(labDocument(), 'stack');
  const kernel = /** @type {Box} */ (scene.byKey.get('band:2:kernel'));
  assert.equal(hit(scene, kernel.x + 5, kernel.y + 5), kernel);
  assert.deepEqual(selectionOf(kernel), { kind: 'guest', id: 2 });
  const hypervisor = /** @type {Box} */ (scene.byKey.get('band:host1:hypervisor'));
  assert.deepEqual(selectionOf(hit(scene, hypervisor.x + 5, hypervisor.y + 5)), { kind: 'host', id: 1 });
  assert.equal(hit(scene, -50, -50), null);
});

test('a trap’s route visits the bands of its path in order', () => {
  const scene = layout(crowd(1, 12), 'stack');
  const stations = SCHEMA.paths[1].map((level) => SCHEMA.levels[level].name);
  for (const guest of [1, 12]) {
    const made = route(scene, guest, 1, stations);
    assert.ok(made);
    const visited = made.legs.map((point) => hit(scene, made.xs[point], made.ys[point])?.station);
    assert.deepEqual(visited, ['kernel', 'hypervisor', 'device_model', 'hypervisor', 'kernel']);
    assert.equal(hit(scene, made.xs[0], made.ys[0])?.guest, guest);
    const end = { x: 0, y: 0 };
    pointOn(made, 1, end, true);
    assert.ok(Math.hypot(end.x - (made.xs.at(-1) ?? 0), end.y - (made.ys.at(-1) ?? 0)) < 1e-6);
  }
  assert.equal(route(layout(crowd(1, 1), 'host'), 1, 1, stations), null, 'no bands, no way');
});

test('a particle lives for its duration and is where its trap is', () => {
  const scene = layout(labDocument(), 'stack');
  const paths = SCHEMA.paths.map((path) => path.map((level) => SCHEMA.levels[level].name));
  const particles = new Particles();
  const trap = /** @type {any} */ ({ guest: 1, path: 0, disposition: 1, sequence: 1 });
  particles.add(trap, 100, 800, true);
  particles.add({ ...trap, sequence: 2 }, 150, 800, true);
  particles.advance(110, scene, paths);
  assert.deepEqual(particles.pool.map(({ alive, labelled }) => [alive, labelled]), [[true, true], [false, false]], 'one label a guest at a time');
  const kernel = /** @type {Box} */ (scene.byKey.get('band:1:kernel'));
  assert.equal(hit(scene, particles.pool[0].x, particles.pool[0].y), kernel);
  assert.equal(particles.at(particles.pool[0].x + 3, particles.pool[0].y, 8)?.trap, trap);
  particles.advance(905, scene, paths);
  assert.deepEqual(particles.pool.slice(0, particles.count).map((particle) => particle.trap.sequence), [2]);
});

test('zooming keeps the point under the pointer; fitting shows everything', () => {
  const camera = new Camera();
  Object.assign(camera, { width: 800, height: 600 });
  const before = [camera.worldX(200), camera.worldY(100)];
  camera.zoomAt(2, 200, 100);
  camera.jump();
  assert.ok(Math.abs(camera.worldX(200) - before[0]) < 1e-9 && Math.abs(camera.worldY(100) - before[1]) < 1e-9);
  const { bounds } = layout(crowd(30, 10), 'datacenter');
  camera.fit(bounds);
  camera.jump();
  assert.ok(camera.worldX(0) <= bounds.x && camera.worldX(800) >= bounds.x + bounds.w);
  assert.ok(camera.worldY(0) <= bounds.y && camera.worldY(600) >= bounds.y + bounds.h);
});

test('a level shown on demand is that level, with everything in view where its zooms allow', () => {
  for (const [hosts, guests] of [[1, 1], [3, 2], [20, 10]]) {
    for (const level of LEVELS) {
      const camera = new Camera();
      Object.assign(camera, { width: 900, height: 560 });
      const { bounds } = layout(crowd(hosts, guests), level);
      camera.showLevel(level, bounds);
      camera.jump();
      assert.equal(camera.level, level);
      if (level === 'datacenter') assert.ok(camera.worldX(0) <= bounds.x && camera.worldX(900) >= bounds.x + bounds.w);
    }
  }
});

test('the level of detail follows the zoom', () => {
  const camera = new Camera();
  const levels = [0.1, 0.3, 1].map((scale) => {
    camera.scale = scale;
    return camera.level;
  });
  assert.deepEqual(levels, [...LEVELS]);
});

test('the eased camera arrives and then rests', () => {
  const camera = new Camera();
  Object.assign(camera, { width: 800, height: 600 });
  camera.zoomAt(1.5, 10, 10);
  let frames = 0;
  while (camera.advance(16)) frames += 1;
  assert.ok(frames > 3 && frames < 120);
  assert.equal(camera.scale, camera.target.scale);
});
