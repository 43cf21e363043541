/** The store's reducers: what a keyframe, ticks and documents leave behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TrapRing } from '../../static/js/records.js';
import { Store } from '../../static/js/store.js';
import { migration, counts, keyframe, labDocument, records, tick } from './lab.mjs';

function joined() {
  const store = new Store();
  store.keyframe(keyframe(), 7, 0);
  return store;
}

test('a keyframe says everything a joining page needs', () => {
  const store = joined();
  assert.equal(store.revision, 7);
  assert.equal(store.guests.get(1)?.pc, 0xffffffff80200400n);
  assert.equal(store.guests.get(2)?.failure?.key, 'trap-loop');
  assert.deepEqual([...store.traps].map((trap) => trap.sequence), [9, 10]);
  assert.equal(store.guests.get(1)?.last?.sequence, 10);
  assert.equal(store.hosts.get(1)?.memoryUsedMib, 24);
  assert.deepEqual([...(store.totals.get(1)?.values() ?? [])].map(({ cause, count }) => [cause, count]), [[2, 10]]);
});

test('ticks add to the exact totals and replace the status', () => {
  const store = joined();
  store.tick(tick({ exits: 15, counted: 5, sample: records([[15, 1, 0, 1]]) }), 100);
  assert.equal([...(store.totals.get(1)?.values() ?? [])][0].count, 15);
  assert.equal(store.guests.get(1)?.exits, 15);
  assert.equal(store.guests.get(1)?.traps, 15);
  assert.equal(store.guests.get(1)?.pc, 2n ** 64n - 4n, 'all 64 bits of pc survive');
  assert.equal(store.guests.get(1)?.last?.sequence, 15);
  assert.deepEqual(store.hosts.get(1), { id: 1, time: 5000, busy: 0.25, memoryUsedMib: 24, framesUsed: 512, framesSaved: 64, pagesSwapped: 32 });
});

test('traps are counted and timed where there are no VM exits; wall time and virtual time apart', () => {
  const store = joined();
  for (let n = 0; n <= 10; n += 1) {
    store.tick(tick({ n, instructions: 1000 + n * 50, exits: 0, counted: n ? 3 : 0, virtual: 5000 + n * 1_000_000 }), n * 100);
  }
  const rates = store.guests.get(1)?.rates;
  assert.equal(rates?.instructions, 500);
  assert.equal(rates?.traps, 30);
  assert.equal(rates?.perVirtualSecond, 3000);
});

test('rates and load do not outlive what they measured', () => {
  const store = joined();
  for (let n = 1; n <= 10; n += 1) store.tick(tick({ n, counted: 20, instructions: 1000 + n * 100 }), n * 100);
  store.silence(2400);
  assert.ok((store.guests.get(1)?.rates.traps ?? 0) > 100, 'a tick may be late');
  store.silence(2501);
  assert.deepEqual(store.guests.get(1)?.rates, { instructions: 0, traps: 0, perVirtualSecond: 0, ran: 0, stolen: 0 });
  assert.deepEqual([store.flows.size, store.hosts.get(1)?.busy], [0, 0]);
  store.tick(tick({ n: 11, counted: 5, instructions: 2100 }), 9000);
  store.tick(tick({ n: 12, counted: 5, instructions: 2200 }), 9100);
  assert.equal(store.guests.get(1)?.rates.traps, 50, 'and begin anew');
});

test('a guest that does not trap is told by its instructions, whatever the host’s own clock does', () => {
  const store = joined();
  store.tick(tick({ n: 1, instructions: 5000 }), 100);
  assert.equal(store.untrapped(1), 4000, 'since this page joined');
  store.tick(tick({ n: 2, instructions: 9000, counted: 1, kind: 1 }), 200);
  assert.equal(store.untrapped(1), 8000, 'the hypervisor’s own timer is nothing that the guest did');
  store.tick(tick({ n: 3, instructions: 9500, counted: 1 }), 300);
  assert.equal(store.untrapped(1), 0);
  store.tick(tick({ n: 4, instructions: 9900 }), 400);
  assert.equal(store.untrapped(1), 400);
  store.tick(tick({ n: 5, instructions: 7000 }), 500);
  assert.equal(store.untrapped(1), 0, 'time was turned back');
});

test('the latest migration of each guest is kept, told of, and gone with its guest', () => {
  const store = joined();
  /** @type {string[]} */
  const heard = [];
  store.on('migration', (row) => heard.push(row.phase));
  const row = migration();
  store.tick({ ...tick({ n: 1 }), migrations: [row] }, 100);
  store.tick({ ...tick({ n: 2 }), migrations: [{ ...row, phase: 'done' }] }, 200);
  assert.deepEqual(heard, ['copying', 'done']);
  assert.equal(store.migrations.get(1)?.phase, 'done');
  const document = labDocument();
  document.guests = document.guests.filter((guest) => guest.id !== 1);
  store.setDocument(document, 9);
  assert.equal(store.migrations.size, 0);
});

test('a flow knows how much of it the sample did not show, and dies when nothing runs', () => {
  const store = joined();
  for (let n = 1; n <= 40; n += 1) store.tick(tick({ n, counted: 20, sample: records([[n + 10, 1, 0, 1], [n + 11, 1, 0, 1]]) }), n * 100);
  const [flow] = store.flows.values();
  assert.ok(Math.abs(flow.rate - 200) < 5, `rate ${flow.rate}`);
  assert.ok(Math.abs(flow.sampled - 20) < 1, `sampled ${flow.sampled}`);
  store.tick(tick({ n: 41, running: false }), 4100);
  assert.equal(store.flows.size, 0);
  assert.equal(store.guests.get(1)?.rates.traps, 0);
});

test('a guest is counted from its first tick, which comes before the document that names it', () => {
  const store = joined();
  const document = labDocument();
  document.guests = document.guests.filter((guest) => guest.id !== 1);
  store.keyframe(keyframe({ document, status: {}, totals: counts([]), records: records([]) }), 8, 0);
  store.tick(tick({ counted: 60 }), 100);
  store.setDocument(labDocument(), 9);
  assert.equal(store.guests.get(1)?.traps, 60);
});

test('what left the document leaves the store', () => {
  const store = joined();
  const document = labDocument();
  document.guests = document.guests.filter((guest) => guest.id !== 1);
  store.setDocument(document, 8);
  assert.equal(store.guests.has(1), false);
  assert.equal(store.totals.has(1), false);
  assert.deepEqual(store.guestsOf(1).map((guest) => guest.name), ['vm-2']);
});

test('a guest’s failure and exit status come with the notice and go with a restart', () => {
  const store = joined();
  store.tick(tick({ state: 4, notices: [{ guest: 1, host: 1, key: 'guest-failed', params: { reason: 'trap-loop', guest: 'vm-1' }, level: 'error' }] }), 100);
  assert.equal(store.guests.get(1)?.failure?.key, 'trap-loop');
  store.tick(tick({ n: 2, state: 1 }), 200);
  assert.equal(store.guests.get(1)?.failure, null);
  store.tick(tick({ n: 3, state: 3, notices: [{ guest: 1, host: 1, key: 'guest-stopped', params: { status: 3 }, level: 'info' }] }), 300);
  assert.equal(store.guests.get(1)?.exitStatus, 3);
});

test('a new keyframe forgets the old world', () => {
  const store = joined();
  store.tick(tick({ counted: 5, sample: records([[15, 1, 0, 1]]) }), 100);
  store.keyframe(keyframe({ position: 50, records: records([]) }), 9, 200);
  assert.equal(store.traps.length, 0);
  assert.equal(store.guests.get(1)?.last, null);
  assert.equal(store.position, 50);
});

test('the ring keeps the latest and counts everything', () => {
  const ring = new TrapRing(3);
  for (const sequence of [1, 2, 3, 4, 5]) ring.push(/** @type {any} */ ({ sequence }));
  assert.deepEqual([...ring].map((trap) => trap.sequence), [3, 4, 5]);
  assert.equal(ring.total, 5);
  assert.equal(ring.at(3), undefined);
});

test('a tick that comes before the document with its guest is not forgotten', () => {
  const store = new Store();
  const { guests: [, second], ...rest } = labDocument();
  const without = { ...rest, guests: [second] };
  store.keyframe({ ...keyframe(), document: without, status: {}, totals: counts([]), records: records([]) }, 7, 0);
  store.tick(tick({ instructions: 77, counted: 3, running: false }), 100);
  store.setDocument(without, 8);
  assert.equal(store.guests.get(1)?.instructions, 77, 'an older document does not take it away');
  store.setDocument(labDocument(), 9);
  assert.deepEqual([store.guests.get(1)?.instructions, [...(store.totals.get(1)?.values() ?? [])][0].count], [77, 3]);
  store.setDocument(without, 10);
  assert.equal(store.guests.has(1), false, 'the document that removes it does');
});
