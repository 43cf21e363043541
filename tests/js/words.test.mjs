/** The catalogue: complete, in both languages, nothing unused; and how a message is filled. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Actions, keyName } from '../../static/js/actions.js';
import { fuzzy } from '../../static/js/chrome/fuzzy.js';
import { keyText } from '../../static/js/chrome/parts.js';
import { CATALOGUE, I18n, PARTICLES } from '../../static/js/i18n.js';
import { ERROR_MESSAGES } from '../../static/js/error_messages.js';
import { ICONS } from '../../static/js/icons.js';
import { DISPOSITION_MARKS, STATE_MARKS, shownState } from '../../static/js/marks.js';
import { GUEST_STATES } from '../../static/js/protocol.js';
import { OWN_BANDS, STACKS, TECHNIQUES } from '../../static/js/stacks.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** @param {string} folder @param {RegExp} name @returns {string[]} */
const files = (folder, name) => readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
  const path = join(folder, entry.name);
  if (entry.isDirectory()) return entry.name === 'vendor' ? [] : files(path, name);
  return name.test(entry.name) ? [path] : [];
});
const sources = [...files('static/js', /\.js$/).filter((path) => !/messages\.js$/.test(path)), ...files('templates', /\.html$/)]
  .map((path) => ({ path, text: readFileSync(join(ROOT, path), 'utf8') }));

/** Keys that code puts together: a pattern for each template literal, so that `state.${name}` stands for all states. */
const patterns = sources.flatMap(({ text }) => [...text.matchAll(/`([a-z][\w-]*\.[\w.-]*\$\{[^`]*)`/g)].map(
  ([, literal]) => new RegExp(`^${literal.replaceAll(/\$\{[^}]*\}/g, '\0').replaceAll('.', '\\.').replaceAll('\0', '.+')}$`),
));
const literals = new Set(sources.flatMap(({ text }) => [...text.matchAll(/['"`]([a-z][\w-]*(?:\.[\w-]+)+)['"`]/g)].map(([, key]) => key)));

test('every message is there in both languages and has the same parameters', () => {
  const names = (/** @type {string} */ text) => [...new Set([...text.matchAll(/\{(\w+)/g)].map(([, name]) => name))].sort().join();
  for (const [key, [en, ko]] of Object.entries(CATALOGUE)) {
    assert.ok(en && ko, key);
    for (const name of names(ko).split(',').filter(Boolean)) assert.ok(names(en).includes(name), `${key}: {${name}} only in Korean`);
  }
});

test('every key that code or templates use exists', () => {
  const asked = sources.flatMap(({ path, text }) => [
    ...[...text.matchAll(/\bt\((?:[^()'`]*\? )?'([\w.-]+)'/g)].map(([, key]) => ({ path, key })),
    ...[...text.matchAll(/data-t(?:-label|-title)?="([\w.-]+)"/g)].map(([, key]) => ({ path, key })),
    ...[...text.matchAll(/(?:titleKey|hintKey): '([\w.-]+)'/g)].map(([, key]) => ({ path, key })),
  ]);
  assert.ok(asked.length > 100);
  assert.deepEqual(asked.filter(({ key }) => !Object.hasOwn(CATALOGUE, key)), []);
});

test('no message is unused', () => {
  const fromOutside = (/** @type {string} */ key) => Object.hasOwn(ERROR_MESSAGES, key) || /^((notice|failure)\.|guest\.[\w-]+\.title$)/.test(key);
  const unused = Object.keys(CATALOGUE).filter((key) => !literals.has(key) && !fromOutside(key) && !patterns.some((pattern) => pattern.test(key)));
  assert.deepEqual(unused, []);
});

test('every action, stack, state and speed has its words', () => {
  const keys = [
    ...STACKS.flatMap(({ id }) => ['', '.detail', '.letter', '.explained'].map((part) => `stack.${id}${part}`)),
    ...TECHNIQUES.flatMap(({ id }) => ['', '.detail', '.letter', '.explained'].map((part) => `technique.${id}${part}`)),
    ...STACKS.flatMap(({ bands }) => bands.flatMap((band) => [`band.${band}`, `band.${band}.tip`])),
    ...[...OWN_BANDS].flatMap((band) => [`band.${band}`, `band.${band}.tip`]),
    ...[...GUEST_STATES, 'paused'].map((state) => `state.${state}`),
  ];
  assert.deepEqual(keys.filter((key) => !Object.hasOwn(CATALOGUE, key)), []);
  const actions = new Actions(/** @type {any} */ ({ i18n: new I18n('en') }));
  for (const { titleKey, hintKey } of actions.all()) for (const key of [titleKey, hintKey]) assert.ok(!key || Object.hasOwn(CATALOGUE, key), key);
});

test('every disposition and state has a mark of its own', () => {
  assert.equal(new Set([...Object.values(DISPOSITION_MARKS)]).size, Object.keys(DISPOSITION_MARKS).length);
  assert.deepEqual(Object.keys(STATE_MARKS).sort(), [...GUEST_STATES, 'paused'].sort());
  assert.ok(Object.values(ICONS).every((path) => /^M/.test(path)));
  assert.equal(shownState('running', false), 'paused');
  assert.equal(shownState('failed', false), 'failed');
});

test('no two actions share a key', () => {
  const actions = new Actions(/** @type {any} */ ({}));
  const keys = actions.all().flatMap((action) => action.keys ?? []);
  assert.equal(new Set(keys).size, keys.length);
  assert.throws(() => new Actions(/** @type {any} */ ({}), [{ id: 'run', titleKey: 'do.run', run: () => undefined }]), /two actions/);
});

test('a key is told by its letter, or by its place under a Korean input method', () => {
  const key = (/** @type {Partial<KeyboardEvent>} */ event) => keyName(/** @type {any} */ ({ key: '', code: '', ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...event }));
  assert.equal(key({ key: 'r', code: 'KeyR' }), 'r');
  assert.equal(key({ key: 'ㄱ', code: 'KeyR' }), 'r');
  assert.equal(key({ key: 'p', code: 'KeyR' }), 'p', 'a Dvorak R is where its letter is');
  assert.equal(key({ key: 'Z', code: 'KeyZ', ctrlKey: true, shiftKey: true }), 'ctrl+shift+z');
  assert.equal(key({ key: 'z', code: 'KeyZ', metaKey: true }), 'ctrl+z');
  assert.equal(key({ key: '?', code: 'Slash', shiftKey: true }), '?');
  assert.equal(keyText('ctrl+shift+z'), 'Ctrl+Shift+Z');
});

test('parameters, plurals and Korean particles', () => {
  const en = new I18n('en');
  const ko = new I18n('ko');
  assert.equal(en.t('tip.guest', { image: 'ringos', memory: 16, vcpus: 1 }), 'ringos · 16 MiB · 1 vCPU');
  assert.equal(en.t('tip.guest', { image: 'ringos', memory: 1024, vcpus: 2 }), 'ringos · 1,024 MiB · 2 vCPUs');
  assert.equal(ko.t('toast.removed', { name: '서버' }), '서버를 제거했습니다.');
  assert.equal(ko.t('toast.removed', { name: '게임' }), '게임을 제거했습니다.');
  assert.equal(ko.t('toast.removed', { name: 'vm-1' }), 'vm-1을 제거했습니다.');
  assert.equal(ko.t('toast.removed', { name: 'vm-2' }), 'vm-2를 제거했습니다.');
  const to = (/** @type {string} */ host) => ko.t('announce.guest-moved', { name: '게임', host });
  assert.deepEqual(['host-1', 'host-2', 'host-3', '서울', '부산', 'kernel', 'server'].map((host) => to(host).split(' ')[1]),
    ['host-1로', 'host-2로', 'host-3으로', '서울로', '부산으로', 'kernel로', 'server로']);
  assert.equal(ko.t('toast.removed', { name: 'server' }), 'server를 제거했습니다.');
  assert.equal(en.t('no.such.key'), 'no.such.key');
  assert.equal(en.t('toast.removed', { name: '{name}' }), '{name} was removed.');
});

test('every particle that a message asks for is known, and none is written both ways', () => {
  for (const [key, [, text]] of Object.entries(CATALOGUE)) {
    for (const [, particle] of text.matchAll(/\{\w+:([^}]+)\}/g)) assert.ok(Object.hasOwn(PARTICLES, particle), `${key}: ${particle}`);
    assert.doesNotMatch(text, /[은이을과]\([는가를와]\)|\(으\)로/u, key);
  }
});

test('figures have three digits and a unit at most', () => {
  const en = new I18n('en');
  assert.deepEqual([0, 0.25, 9.9, 950, 12_345, 4_100_000, 2.5e9].map((value) => en.compact(value)), ['0', '0.3', '9.9', '950', '12.3 k', '4.1 M', '2.5 G']);
  assert.deepEqual([950, 1500, 2_500_000, 3e9].map((value) => en.duration(value)), ['950 ns', '1.5 µs', '2.5 ms', '3.0 s']);
});

test('the command palette finds letters in order and prefers word beginnings', () => {
  assert.equal(fuzzy('zq', 'Zoom in'), 0);
  assert.ok(fuzzy('sb', 'Step back') > fuzzy('sb', 'Show objects below'));
  assert.equal(fuzzy('', 'anything'), fuzzy('', 'any'), 'nothing typed: in the order of the table');
  assert.ok(fuzzy('한단', '한 단계') > 0);
});
