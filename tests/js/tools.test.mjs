/** The pointer's state machine, as scripts; and what is carried, by pointer and by keyboard. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Carry } from '../../static/js/tools/carry.js';
import { Tools } from '../../static/js/tools/tools.js';
import { App, ProblemError } from '../../static/js/app.js';
import { I18n } from '../../static/js/i18n.js';
import { Preferences } from '../../static/js/preferences.js';
import { Store } from '../../static/js/store.js';
import { keyframe } from './lab.mjs';

const BOX = { kind: /** @type {const} */ ('guest'), key: 'guest:2', host: 1, guest: 2, station: '', x: 0, y: 0, w: 1, h: 1 };
const HOST = { ...BOX, kind: /** @type {const} */ ('host'), key: 'host:1', guest: 0 };

/** A stage on which a guest lies at x < 100, a host at x < 200, nothing beyond. */
function stage() {
  /** @type {any[][]} */
  const calls = [];
  /** @param {string} name @returns {(...values: any[]) => void} */
  const log = (name) => (...values) => { calls.push([name, ...values]); };
  const tools = new Tools({
    hit: (x) => (x < 100 ? BOX : x < 200 ? HOST : null),
    select: log('select'), hover: log('hover'), pan: log('pan'), zoomAt: log('zoomAt'), zoomTo: log('zoomTo'), previewHost: log('previewHost'),
    endPreview: log('endPreview'), carryGuest: log('carryGuest'), cancelCarry: log('cancelCarry'),
  });
  return { tools, calls };
}

test('a click selects what is under it', () => {
  const { tools, calls } = stage();
  tools.pointerDown(50, 50);
  assert.equal(tools.state, 'pressing');
  tools.pointerMove(52, 51);
  tools.pointerUp(52, 51);
  tools.pointerDown(300, 50);
  tools.pointerUp(300, 50);
  assert.deepEqual(calls, [['select', { kind: 'guest', id: 2 }], ['select', null]]);
  assert.equal(tools.state, 'idle');
});

test('dragging a guest carries it; Escape puts it back', () => {
  const { tools, calls } = stage();
  tools.pointerDown(50, 50);
  tools.pointerMove(70, 50);
  assert.equal(tools.state, 'carrying');
  tools.cancel();
  tools.pointerUp(400, 50);
  assert.deepEqual(calls, [['carryGuest', 2], ['cancelCarry']]);
  assert.equal(tools.state, 'idle');
});

test('dragging a host moves it, and the drop keeps it there', () => {
  const { tools, calls } = stage();
  tools.pointerDown(150, 50);
  tools.pointerMove(180, 60);
  tools.pointerMove(190, 70);
  tools.pointerUp(190, 70);
  assert.deepEqual(calls, [['previewHost', 1, 30, 10], ['previewHost', 1, 40, 20], ['endPreview', true]]);
});

test('Escape while a host is dragged leaves it where it was', () => {
  const { tools, calls } = stage();
  tools.pointerDown(150, 50);
  tools.pointerMove(180, 60);
  tools.cancel();
  assert.deepEqual(calls.at(-1), ['endPreview', false]);
});

test('dragging nothing pans, and so does the middle button on anything', () => {
  const { tools, calls } = stage();
  tools.pointerDown(300, 50);
  tools.pointerMove(310, 60);
  tools.pointerMove(320, 65);
  tools.pointerUp(320, 65);
  tools.pointerDown(50, 50, { button: 1 });
  tools.pointerMove(52, 50);
  assert.deepEqual(calls, [['pan', 10, 10], ['pan', 10, 5], ['pan', 2, 0]]);
});

test('two fingers zoom about their middle and never drop anything', () => {
  const { tools, calls } = stage();
  tools.pointerDown(300, 100, { id: 1 });
  tools.pointerDown(400, 100, { id: 2 });
  assert.equal(tools.state, 'pinching');
  tools.pointerMove(500, 100, { id: 2 });
  assert.deepEqual(calls.find(([name]) => name === 'zoomAt'), ['zoomAt', 2, 400, 100]);
  tools.pointerUp(300, 100, { id: 1 });
  tools.pointerUp(500, 100, { id: 2 });
  assert.equal(tools.state, 'idle');
  assert.equal(calls.some(([name]) => name === 'select'), false);
});

test('scrolling up zooms in', () => {
  const { tools, calls } = stage();
  tools.wheel(10, 20, -100);
  const [name, factor] = calls[0];
  assert.equal(name, 'zoomAt');
  assert.ok(factor > 1);
});

/** @param {(query: any) => any} answer to the `fits` query */
function lab(answer) {
  const store = new Store();
  /** @type {any[]} */
  const sent = [];
  /** @type {any[]} */
  const asked = [];
  /** @type {string[]} */
  const said = [];
  /** @type {string[]} */
  const toasts = [];
  const app = new App({
    lab: 'demo', csrf: '', store, i18n: new I18n('en'), preferences: new Preferences(null),
    request: async (event, /** @type {any} */ payload) => {
      (event === 'command' ? sent : asked).push(payload[event]);
      return { result: event === 'query' ? answer(payload.query) : { guest: 9, host: 9 } };
    },
    toast: ({ text }) => toasts.push(text), announce: (text) => said.push(text),
  });
  store.keyframe(keyframe(), 1, 0);
  return { carry: new Carry(app), app, store, sent, asked, said, toasts };
}
const settled = () => new Promise((resolve) => { setTimeout(resolve, 0); });
const fits = () => ({ fits: true, error: null, free_mib: 90, need_mib: 16 });

test('an image dropped on a host becomes a guest', async () => {
  const { carry, sent, app } = lab(fits);
  carry.begin({ kind: 'image', id: 'ringos' }, 'pointer');
  carry.over(1, true);
  assert.equal(carry.load?.verdict?.fits, null, 'not known before the lab has answered');
  await settled();
  assert.equal(carry.load?.verdict?.fits, true);
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(sent, [{ type: 'guest.create', host: 1, image: 'ringos' }]);
  assert.deepEqual(app.selection, { kind: 'guest', id: 9 });
  assert.equal(carry.load, null);
});

test('a drop that does not fit says why and sends nothing', async () => {
  const { carry, sent, toasts } = lab(() => ({ fits: false, error: { key: 'strange', message: 'host-1 has 2 MiB free.', params: {} }, free_mib: 2, need_mib: 16 }));
  carry.begin({ kind: 'image', id: 'ringos' }, 'pointer');
  carry.over(1, true);
  await settled();
  assert.equal(carry.load?.verdict?.detail, 'host-1 has 2 MiB free.');
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(sent, []);
  assert.deepEqual(toasts, ['host-1 has 2 MiB free.']);
});

test('the lab is asked once a host and revision', async () => {
  const { carry, asked, store } = lab(fits);
  carry.begin({ kind: 'image', id: 'ringos' }, 'pointer');
  for (const host of [1, 2, 1, 2]) {
    carry.over(host, true);
    await settled();
  }
  assert.equal(asked.length, 2);
  store.revision += 1;
  carry.over(1, true);
  await settled();
  assert.equal(asked.length, 3);
});

test('an answer that never came is asked for again', async () => {
  let connected = false;
  const { carry, asked, sent } = lab(() => {
    if (!connected) throw new ProblemError({ key: 'not-connected', message: '' });
    return fits();
  });
  for (const there of [false, true]) {
    connected = there;
    carry.begin({ kind: 'image', id: 'ringos' }, 'pointer');
    carry.over(1, true);
    await settled();
    assert.equal(carry.load?.verdict?.fits, there);
    await carry.drop({ x: 0, y: 0 });
  }
  assert.equal(asked.length, 2);
  assert.equal(sent.length, 1);
});

test('by keyboard: arrows go round the hosts, each is announced, the drop is the same command', async () => {
  const { carry, sent, said } = lab(fits);
  carry.begin({ kind: 'image', id: 'hello' }, 'keyboard');
  await settled();
  assert.equal(carry.load?.target, 1);
  carry.next(1);
  await settled();
  assert.equal(carry.load?.target, 2);
  carry.next(1);
  assert.equal(carry.load?.target, 1);
  carry.next(-1);
  await settled();
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(sent, [{ type: 'guest.create', host: 2, image: 'hello' }]);
  assert.ok(said.some((text) => text.startsWith('host-2:')), said.join(' | '));
});

test('a guest cannot be moved to where it is; to another host it is moved, and migrated while it runs', async () => {
  const { carry, sent, app } = lab(fits);
  carry.begin({ kind: 'guest', id: 1 }, 'keyboard');
  await settled();
  assert.deepEqual(carry.targets(), [2]);
  await carry.drop({ x: 0, y: 0 });
  carry.begin({ kind: 'guest', id: 1 }, 'pointer');
  carry.over(1, true);
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(sent, [{ type: 'guest.migrate', guest: 1, host: 2, mode: 'pre-copy' }]);
  app.store.live(1).state = 3;
  carry.begin({ kind: 'guest', id: 1 }, 'pointer');
  carry.over(2, true);
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(sent[1], { type: 'guest.move', guest: 1, host: 2 });
});

test('a host that has a stack refuses it; with another it restarts, and whoever dropped it is asked about guests', async () => {
  const { carry, app } = lab(fits);
  /** @type {any[]} */
  const asked = [];
  app.parts = /** @type {any} */ ({ restack: async (/** @type {any[]} */ ...what) => { asked.push(what); return true; } });
  carry.begin({ kind: 'stack', id: 'kvm' }, 'pointer');
  carry.over(1, true);
  await settled();
  assert.equal(carry.load?.verdict?.fits, false);
  carry.cancel();
  carry.begin({ kind: 'stack', id: 'bare-metal' }, 'pointer');
  carry.over(1, true);
  await settled();
  assert.equal(carry.load?.verdict?.fits, true);
  assert.match(carry.load?.verdict?.detail ?? '', /guests/);
  await carry.drop({ x: 0, y: 0 });
  carry.begin({ kind: 'technique', id: 'trap-and-emulate' }, 'pointer');
  carry.over(2, true);
  await settled();
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(asked, [[1, { stack: 'bare-metal' }], [2, { stack: 'kvm', technique: 'trap-and-emulate' }]]);
});

test('what a host is given by a drop: hardware, a scheduler, sharing; what it has is taken away or refused', async () => {
  const { carry, app, store, sent, said, toasts } = lab(fits);
  /** @type {any[]} */
  const asked = [];
  app.parts = /** @type {any} */ ({ restack: async (/** @type {any[]} */ ...what) => { asked.push(what[1]); return true; } });
  Object.assign(store.schema, {
    generations: [['no-vmid', 'shadow-paging'], []],
    switches: { 'no-vmid': { stacks: ['kvm'], techniques: ['hardware-assist'] }, silent: { stacks: ['kvm', 'bare-metal'], techniques: ['trap-and-emulate', 'hardware-assist'] } },
  });
  const drop = async (/** @type {any} */ item, /** @type {number} */ host) => {
    carry.begin(item, 'pointer');
    carry.over(host, true);
    await settled();
    const verdict = carry.load?.verdict;
    await carry.drop({ x: 0, y: 0 });
    return verdict;
  };
  const host = /** @type {any} */ (store.host(1));
  assert.match((await drop({ kind: 'technique', id: 'hardware-assist' }, 1))?.detail ?? '', /restarts the host/);
  asked.length = 0;
  /** @type {any} */ (store.image('hello')).paravirtual = true;
  store.revision += 1;
  assert.match((await drop({ kind: 'technique', id: 'hardware-assist' }, 1))?.detail ?? '', /^vm-2 cannot be there: .*hypercalls/);
  /** @type {any} */ (store.image('hello')).paravirtual = false;
  store.revision += 1;
  await drop({ kind: 'generation', id: '0' }, 1);
  await drop({ kind: 'generation', id: '1' }, 2);
  await drop({ kind: 'switch', id: 'silent' }, 1);
  assert.equal((await drop({ kind: 'switch', id: 'no-vmid' }, 1))?.fits, false, 'means nothing without hardware assist');
  Object.assign(host, { technique: 'hardware-assist', switches: ['silent', 'no-vmid'] });
  store.revision += 1;
  assert.match((await drop({ kind: 'switch', id: 'silent' }, 1))?.title ?? '', /take it away/);
  await drop({ kind: 'generation', id: '0' }, 1);
  host.switches = ['shadow-paging', 'no-vmid'];
  store.revision += 1;
  assert.equal((await drop({ kind: 'generation', id: '0' }, 1))?.detail, 'host-1 has it already.');
  assert.deepEqual(asked, [
    { stack: 'kvm', technique: 'hardware-assist', switches: ['no-vmid', 'shadow-paging'] },
    { stack: 'kvm', technique: 'hardware-assist', switches: [] },
    { stack: 'kvm', technique: 'trap-and-emulate', switches: ['silent'] },
    { stack: 'kvm', technique: 'hardware-assist', switches: ['no-vmid'] },
    { stack: 'kvm', technique: 'hardware-assist', switches: ['no-vmid', 'shadow-paging', 'silent'] },
  ]);
  await drop({ kind: 'scheduler', id: 'credit' }, 1);
  assert.equal((await drop({ kind: 'scheduler', id: 'fair-share' }, 1))?.fits, false, 'its own already');
  await drop({ kind: 'sharing', id: 'pages' }, 1);
  assert.equal((await drop({ kind: 'sharing', id: 'pages' }, 2))?.fits, false, 'nobody is below a bare machine');
  await drop({ kind: 'overcommit', id: 'memory' }, 1);
  assert.equal((await drop({ kind: 'overcommit', id: 'memory' }, 2))?.fits, false, 'nobody is below a bare machine');
  assert.deepEqual(sent, [
    { type: 'host.scheduler', host: 1, scheduler: 'credit' }, { type: 'host.sharing', host: 1, share_pages: true },
    { type: 'host.overcommit', host: 1, overcommit: true },
  ]);
  assert.deepEqual(said, ['host-1: Credit.', 'host-1: Share equal pages.', 'host-1: Overcommit memory.']);
  carry.begin({ kind: 'scheduler', id: 'credit' }, 'pointer');
  carry.over(1, true);
  await settled();
  host.scheduler = 'credit'; // somebody else was quicker
  await carry.drop({ x: 0, y: 0 });
  assert.equal(toasts.at(-1), 'host-1 has it already.');
});

test('a workload runs in a fresh guest of a host, or is compared as the hosts of the lab would run it', async () => {
  const { carry, app, sent, said } = lab(fits);
  /** @type {any[]} */
  const compared = [];
  app.parts = /** @type {any} */ ({ openCompare: (/** @type {any[]} */ ...what) => compared.push(what) });
  carry.begin({ kind: 'workload', id: 'syscall' }, 'keyboard');
  assert.deepEqual(carry.targets(), [1, 2, 'compare']);
  await settled();
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(sent, [{ type: 'guest.create', host: 1, image: 'ringos', arguments: 'run=work syscall 1000' }]);
  carry.begin({ kind: 'workload', id: 'disk' }, 'keyboard');
  await settled();
  assert.match(said.at(-1) ?? '', /^host-1: .* have no disk/);
  carry.cancel();
  carry.begin({ kind: 'workload', id: 'syscall' }, 'keyboard');
  carry.next(-1);
  await settled();
  assert.equal(said.at(-1), 'Compare: KVM-like · Trap-and-emulate, Bare metal');
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(compared, [[{ workloads: ['syscall:1000'], configurations: ['kvm/trap-and-emulate', 'bare-metal'] }, false]]);
});

test('a host goes where it is dropped, on empty canvas only', async () => {
  const { carry, sent } = lab(fits);
  carry.begin({ kind: 'host' }, 'pointer');
  carry.over(1, true);
  await carry.drop({ x: 5, y: 5 });
  carry.begin({ kind: 'host' }, 'pointer');
  carry.over(null, true);
  await carry.drop({ x: 40.4, y: -7.6 });
  assert.deepEqual(sent, [{ type: 'host.create', x: 40, y: -8 }]);
});

test('Escape drops nothing', async () => {
  const { carry, sent, said } = lab(fits);
  carry.begin({ kind: 'image', id: 'hello' }, 'keyboard');
  carry.cancel();
  await carry.drop({ x: 0, y: 0 });
  assert.deepEqual(sent, []);
  assert.equal(said.at(-1), 'Cancelled; nothing has changed.');
});
