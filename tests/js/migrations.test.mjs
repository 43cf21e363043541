/** A migration's figures, and where its lane is drawn. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { I18n } from '../../static/js/i18n.js';
import { active, bars, cancellable, chooseMode, chosenMode, dirtyRate, size } from '../../static/js/migrations.js';
import { Preferences } from '../../static/js/preferences.js';
import { Lanes, along, way } from '../../static/js/render/lanes.js';
import { migration } from './lab.mjs';

test('bars are shares of the largest round, and the rate is that of the latest known one', () => {
  const row = migration();
  assert.deepEqual(bars(row), [{ sent: 1, dirtied: 0.2 }, { sent: 0.2, dirtied: 0 }]);
  assert.equal(dirtyRate(row), 50_000);
  assert.equal(dirtyRate({ ...row, rounds: [] }), null);
});

test('a migration can be called off until the guest runs elsewhere', () => {
  const row = migration();
  assert.deepEqual(['copying', 'stopped', 'pulling', 'done', 'cancelled', 'failed'].map((phase) => [active({ ...row, phase }), cancellable({ ...row, phase })]),
    [[true, true], [true, true], [true, false], [false, false], [false, false], [false, false]]);
  assert.equal(active(undefined), false);
});

test('the way of moving is remembered, and nonsense is not', () => {
  const preferences = new Preferences(null);
  assert.equal(chosenMode(preferences), 'pre-copy');
  chooseMode(preferences, 'post-copy');
  assert.equal(chosenMode(preferences), 'post-copy');
  chooseMode(preferences, 'by-magic');
  assert.equal(chosenMode(preferences), 'pre-copy');
});

test('sizes for people', () => {
  const i18n = new I18n('en');
  assert.equal(size(i18n, 1), '1 KiB');
  assert.equal(size(i18n, 67_000_000), '64 MiB');
});

test('a lane joins the sides that face each other', () => {
  const box = (/** @type {number} */ x, /** @type {number} */ y) => /** @type {any} */ ({ x, y, w: 100, h: 50 });
  assert.deepEqual(way(box(0, 0), box(200, 10), []), [[100, 22], [200, 32]]);
  assert.deepEqual(way(box(200, 10), box(0, 0), []), [[200, 32], [100, 22]]);
  assert.deepEqual(way(box(0, 0), box(20, 100), []), [[50, 50], [70, 100]]);
});

test('a lane goes over the hosts in its way, and round none that are not', () => {
  const box = (/** @type {number} */ x, /** @type {number} */ y) => /** @type {any} */ ({ x, y, w: 100, h: 50 });
  const [from, middle, to] = [box(0, 0), box(150, -10), box(300, 0)];
  assert.deepEqual(way(from, to, [from, middle, to]), [[50, 0], [50, -34], [350, -34], [350, 0]]);
  assert.deepEqual(way(to, from, [from, middle, to]), [[350, 0], [350, -34], [50, -34], [50, 0]]);
  assert.deepEqual(way(from, to, [from, box(150, 90), to]), [[100, 22], [300, 22]]);
  assert.deepEqual([0, 0.25, 0.5, 1].map((share) => along([[0, 0], [0, 10], [30, 10]], share)), [[0, 0], [0, 10], [10, 10], [30, 10]]);
});

test('one that was over within a tick stays on show for a while', () => {
  const lanes = new Lanes();
  lanes.hear({ ...migration(), phase: 'done' }, 1000);
  assert.equal(lanes.advance(1100, false), true);
  assert.equal(lanes.advance(9000, true), false);
  assert.equal(lanes.shown.size, 0);
  lanes.begin([migration(), { ...migration(), guest: 2, phase: 'done' }]);
  assert.deepEqual([...lanes.shown.keys()], [1]);
  assert.equal(lanes.advance(9000, false), false, 'the lab stands still, and so does the lane');
  assert.equal(lanes.shown.size, 1);
});
