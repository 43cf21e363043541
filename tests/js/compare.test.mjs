/** What the Compare screen derives from a comparison's answer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  askedBy, baseOf, byWorkload, bytesOf, configurationOf, crossingsBy, exitsBy, figureOf, measured, ratioText, sorted, withSwitches, workloadOf,
} from '../../static/js/compare/model.js';

/** @param {string} configuration @param {number} exits @param {object} [more] @returns {any} */
const run = (configuration, exits, more = {}) => ({
  workload: 'io', count: 10, configuration, figures: { exits, start_ns: 500 }, said: '', output_sha256: 'x',
  exits: [
    { kind: 'mmio', cause: 13, path: ['kernel', 'hypervisor'], disposition: 'forwarded', count: exits, crossed: exits, cycles: 1, exit: true },
    { kind: 'syscall', cause: 8, path: ['user', 'hardware', 'kernel'], disposition: 'hardware', count: 7, crossed: 0, cycles: 0, exit: false },
  ],
  switches: [{ source: 'kernel', target: 'hypervisor', count: exits }],
  ...more,
});
/** @type {any} */
const choices = {
  workloads: [{ name: 'io', count: 1000 }],
  switches: [{ id: 'b', stacks: ['kvm'], techniques: ['hardware-assist'] }, { id: 'a', stacks: ['kvm', 'bare-metal'], techniques: ['hardware-assist'] }],
};

test('texts of workloads and configurations are read', () => {
  assert.deepEqual(workloadOf('io:5', choices), { name: 'io', count: 5 });
  assert.deepEqual(workloadOf('io', choices), { name: 'io', count: 1000 });
  assert.deepEqual(configurationOf('xen/hardware-assist+b+a'), { stack: 'xen', technique: 'hardware-assist', switches: ['b', 'a'] });
  assert.deepEqual(configurationOf('bare-metal'), { stack: 'bare-metal', technique: null, switches: [] });
});

test('switches go only with what they mean something on, in a fixed order', () => {
  const kvm = { id: 'kvm/hardware-assist', stack: 'kvm', technique: 'hardware-assist' };
  assert.equal(withSwitches(kvm, ['b', 'a'], choices), 'kvm/hardware-assist+a+b');
  assert.equal(withSwitches({ ...kvm, id: 'kvm/trap-and-emulate', technique: 'trap-and-emulate' }, ['b'], choices), 'kvm/trap-and-emulate');
  assert.equal(withSwitches({ id: 'bare-metal', stack: 'bare-metal', technique: null }, ['a', 'b'], choices), 'bare-metal+a');
});

test('a link asks for a comparison, or for none', () => {
  const asked = { workloads: ['io:5', 'switch'], configurations: ['bare-metal', 'kvm/hardware-assist+no-vmid'], costs: '' };
  assert.deepEqual(askedBy('?workload=io:5,switch&configs=bare-metal,kvm/hardware-assist+no-vmid'), asked);
  assert.deepEqual(askedBy('?workload=io%3A5,switch&configs=bare-metal%2Ckvm%2Fhardware-assist%2Bno-vmid'), asked);
  assert.equal(askedBy('?workload=io&configs=kvm&costs=dall-x86-2016+exit:5')?.costs, 'dall-x86-2016+exit:5');
  for (const search of ['', '?workload=io', '?configs=kvm', '?workload=&configs=']) assert.equal(askedBy(search), null);
});

test('figures are for one unit or for all of them, and starting is never divided', () => {
  assert.equal(figureOf(run('kvm', 50), { id: 'exits', per_unit: true, repeats: true }, true), 5);
  assert.equal(figureOf(run('kvm', 50), { id: 'exits', per_unit: true, repeats: true }, false), 50);
  assert.equal(figureOf(run('kvm', 50), { id: 'start_ns', per_unit: false, repeats: true }, true), 500);
});

test('ratios are to the run with most exits', () => {
  const runs = [run('a', 0), run('b', 40), run('c', 10)];
  assert.equal(baseOf(runs).configuration, 'b');
  assert.equal(ratioText(10, 40), '0.25×');
  assert.equal(ratioText(1, 3000), '0.000333×');
  assert.equal(ratioText(0, 0), '–');
});

test('exits are summed by sort, and what the hardware delivers is none', () => {
  const runs = [run('a', 3), run('b', 40)];
  assert.deepEqual(exitsBy(runs, (row) => row.kind), [{ sort: 'mmio', counts: [3, 40] }]);
  assert.deepEqual(crossingsBy(runs), [{ sort: 'kernel hypervisor', counts: [3, 40] }]);
});

test('runs without figures are told apart, and runs are grouped by workload', () => {
  const failed = { workload: 'io', count: 20, configuration: 'x', problem: { key: 'k', message: 'm' } };
  assert.equal(measured(failed), false);
  assert.equal(measured(run('a', 1)), true);
  assert.deepEqual([...byWorkload([run('a', 1), failed, run('b', 2)])].map(([key, runs]) => [key, runs.length]), [['io:10', 2], ['io:20', 1]]);
});

test('sorting keeps equal rows in their order', () => {
  const rows = [['x', 2], ['b', 1], ['a', 2]];
  assert.deepEqual(sorted(rows, (row) => row[1], true), [['x', 2], ['a', 2], ['b', 1]]);
  assert.deepEqual(sorted(rows, (row) => row[0], false).map(([name]) => name), ['a', 'b', 'x']);
});

test('records come as base64', () => {
  assert.deepEqual([...new Uint8Array(bytesOf('AP8Q'))], [0, 255, 16]);
});
