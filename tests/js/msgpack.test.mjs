/** The page's MessagePack: exact integers both ways, against the format's own tables; hostile bytes end in MessageError. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, encode, MessageError, parser } from '../../static/js/msgpack.js';

const hexOf = (/** @type {Uint8Array} */ bytes) => Buffer.from(bytes).toString('hex');

test('bytes are those of the specification', () => {
  /** @type {[unknown, string][]} */
  const rows = [
    [null, 'c0'], [false, 'c2'], [true, 'c3'], [0, '00'], [127, '7f'], [128, 'cc80'], [256, 'cd0100'], [65536, 'ce00010000'],
    [-1, 'ff'], [-32, 'e0'], [2 ** 32, 'cf0000000100000000'], [2n ** 64n - 1n, 'cfffffffffffffffff'],
    [-(2n ** 63n), 'd38000000000000000'], [1.5, 'cb3ff8000000000000'], ['a', 'a161'], ['한', 'a3ed959c'],
    [[1, 2], '920102'], [{ a: 1 }, '81a16101'], [new Uint8Array([1, 2]), 'c4020102'],
  ];
  for (const [value, hex] of rows) assert.equal(hexOf(encode(value)), hex, String(value));
});

test('every 64-bit integer survives', () => {
  for (const integer of [0n, 1n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 0xffffffc000102abcn, 2n ** 64n - 1n, -(2n ** 53n) - 1n]) {
    const back = decode(encode(integer));
    assert.equal(BigInt(back), integer);
    assert.equal(typeof back, Number.isSafeInteger(Number(integer)) ? 'number' : 'bigint');
  }
});

test('long strings, arrays, maps and binaries come back', () => {
  const value = {
    text: 'x'.repeat(70000), list: Array.from({ length: 70000 }, (_, index) => index),
    map: Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`k${index}`, -index * 1000])), nothing: null,
  };
  assert.deepEqual(decode(encode(value)), value);
  const bin = new Uint8Array(70000).map((_, index) => index);
  assert.deepEqual(new Uint8Array(decode(encode(bin))), bin);
});

test('a bin owns its bytes', () => {
  const message = encode(new Uint8Array([1, 2, 3]));
  const bin = new Uint8Array(decode(message));
  message.fill(0);
  assert.deepEqual([...bin], [1, 2, 3]);
});

test('cut, long, nested and foreign messages are refused', () => {
  const whole = encode({ a: [1, 'two', 2n ** 60n] });
  for (let cut = 0; cut < whole.length; cut++) assert.throws(() => decode(whole.slice(0, cut)), MessageError);
  assert.throws(() => decode(new Uint8Array([1, 1])), MessageError);
  assert.throws(() => decode(new Uint8Array([0xc1])), MessageError);
  assert.throws(() => decode(new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff])), MessageError);
  assert.throws(() => decode(new Uint8Array(1000).fill(0x91)), MessageError);
  assert.throws(() => encode(2n ** 64n), MessageError);
  assert.throws(() => encode(() => 0), MessageError);
});

test('the parser hands whole packets to its listeners', () => {
  const decoder = new parser.Decoder();
  /** @type {any[]} */
  const seen = [];
  decoder.on('decoded', (packet) => seen.push(packet));
  decoder.add(new parser.Encoder().encode({ type: 2, nsp: '/', data: ['tick', { n: 1 }] })[0]);
  assert.deepEqual(seen, [{ type: 2, nsp: '/', data: ['tick', { n: 1 }] }]);
  assert.throws(() => decoder.add(encode({ type: 9 })), MessageError);
  decoder.destroy();
  decoder.add(encode({ type: 2, nsp: '/', data: [] }));
  assert.equal(seen.length, 1);
});
